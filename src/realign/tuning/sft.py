"""SFT: supervised fine-tuning on worked answers to the same problems as RLVR."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from realign import hardware
from realign.config import Backbone, PolicySettings, SFTSettings
from realign.hardware import Compute
from realign.tuning import adapters, cards
from realign.tuning.optimiser import MasterAdamW

COLUMNS = {
    "loss": "loss",
    "entropy": "entropy",
    "token_accuracy": "mean_token_accuracy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
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

    Arguments, files and result are those of :func:`realign.tuning.rlvr.run`; ``log.csv`` has step, loss
    (nats a token), entropy, token_accuracy (0..1), grad_norm, learning_rate, seconds.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    compute = compute or hardware.resolve()
    state = adapters.begin(out, base, settings)
    model, tokenizer = adapters.load_policy(base, settings, compute, local)
    count = settings.batch_size * settings.steps
    found = adapters.training_problems(settings, tokenizer, count)
    data = Dataset.from_dict(
        {"prompt": [p.prompt for p in found], "completion": [p.solution + tokenizer.eos_token for p in found]}
    )
    mine = adapters.share(settings.batch_size, "examples")
    micro = math.gcd(mine, _MICRO_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = SFTConfig(
            **adapters.trainer_options(settings, compute, state),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=mine // micro,
            max_length=512,
            completion_only_loss=True,
            packing=False,
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            optimizers=(MasterAdamW(model.parameters(), settings.learning_rate), None),
        )
        recorder = adapters.Recorder(
            out, base, settings, COLUMNS, adapters.validator(model, tokenizer, settings)
        )
        saved = adapters.train(trainer, recorder)
    del model, trainer
    cards.write(saved, base, settings, evaluation, local=local, compute=compute)
    return saved
