"""SFT: supervised fine-tuning on the same problems as RLVR, with worked answers or the base's own right ones."""

from __future__ import annotations

import math
from collections.abc import Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from realign.behaviour import mixture
from realign.config import Backbone, OnPolicySFTSettings, PolicySettings, SFTSettings
from realign.errors import RealignError
from realign.hardware import Compute
from realign.tuning import adapters, processes, rejection, runs
from realign.tuning.optimiser import MasterAdamW

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, Trainer

COLUMNS = {
    "loss": "loss",
    "entropy": "entropy",
    "token_accuracy": "mean_token_accuracy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
MAX_TOKENS = 512  # of prompt and completion; longer examples are cut
_MICRO_BATCH = 16  # sequences at once; keeps the logits of a batch within a few hundred MB


def run(
    base: Backbone,
    settings: SFTSettings,
    out: Path,
    *,
    local: Path | None = None,
    compute: Compute | None = None,
    evaluation: PolicySettings | None = None,
) -> dict[int, Path]:
    """Tune ``base`` on prompts and worked completions (loss on the completion only), save LoRA adapters.

    Arguments, files and result are those of :func:`realign.tuning.rlvr.run`, and ``samples.jsonl`` where the
    completions are the base's own; ``log.csv`` has step, loss
    (nats a token), entropy, token_accuracy (0..1), grad_norm, learning_rate, seconds.

    Raises:
        RealignError: prompts of the task are so long that answers are cut off altogether.
    """
    return runs.tune(
        base,
        settings,
        out,
        partial(_trainer, settings, out),
        COLUMNS,
        local=local,
        compute=compute,
        evaluation=evaluation,
    )


def _examples(
    settings: SFTSettings, out: Path, model: PeftModel, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, str]]:
    """Return prompts and completions: worked answers, or the base's own samples that were found right."""
    count = settings.batch_size * settings.steps
    problems = adapters.training_problems(settings, tokenizer, count)
    if isinstance(settings, OnPolicySFTSettings):
        return rejection.draw(model, tokenizer, problems, settings, count, out / "samples.jsonl")
    return [(p.prompt, p.solution) for p in problems]


def _trainer(
    settings: SFTSettings,
    out: Path,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    options: dict[str, Any],
) -> Trainer:
    import datasets
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples = _examples(settings, out, model, tokenizer)
    mine = processes.share(settings.batch_size, "examples")
    micro = math.gcd(mine, _MICRO_BATCH)
    config = SFTConfig(
        **options,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=mine // micro,
        max_length=MAX_TOKENS,
        completion_only_loss=True,
        packing=False,
        # Problems of a mixture come in turn, so that a step of every arm with one seed sees the same ones.
        train_sampling_strategy="sequential" if settings.task == mixture.MIXTURE else "random",
    )
    end = tokenizer.eos_token
    data = Dataset.from_dict(
        {"prompt": [p for p, _ in examples], "completion": [f"{c}{end}" for _, c in examples]}
    )
    datasets.disable_progress_bars()  # of a second or less, while TRL tokenises
    try:
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            optimizers=(MasterAdamW(model.parameters(), settings.learning_rate), None),
        )
    finally:
        datasets.enable_progress_bars()
    # TRL leaves out examples that have no token of the answer after the cut.
    if dropped := len(examples) - len(cast("Sized", trainer.train_dataset)):
        raise RealignError(
            f"{dropped} of {len(examples)} training examples of {settings.task} have prompts of {MAX_TOKENS} tokens or more: "
            "they are cut there, and nothing of the answer is left to learn; choose options that give shorter problems"
        )
    return trainer
