"""RLVR: GRPO on reasoning_gym problems with the task's own verifier as the only reward."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from realign import hardware
from realign.config import Backbone, PolicySettings, RLVRSettings
from realign.hardware import Compute
from realign.tuning import adapters, policy
from realign.tuning import problems as problem_sets

COLUMNS = {
    "reward": "reward",
    "reward_std": "reward_std",
    "entropy": "entropy",
    "completion_length": "completions/mean_length",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


def reward_function(
    problems: list[problem_sets.Problem], kind: str, seed: int
) -> Callable[..., list[float | None]]:
    """Return the reward: the verifier's score (0..1), or a fair coin that ignores the completion.

    The trainer passes completions and the data set's column ``problem``, an index into ``problems``.
    """
    rng = np.random.default_rng(seed)

    def verifier(completions: list[str], problem: list[int], **kwargs: Any) -> list[float | None]:
        return [problem_sets.score(problems[i], text) for i, text in zip(problem, completions, strict=True)]

    def random(completions: list[str], **kwargs: Any) -> list[float | None]:
        return [float(x) for x in rng.integers(0, 2, size=len(completions))]

    return verifier if kind == "verifier" else random


def run(
    base: Backbone,
    settings: RLVRSettings,
    out: Path,
    *,
    local: Path | None = None,
    compute: Compute | None = None,
    evaluation: PolicySettings | None = None,
) -> dict[int, Path]:
    """Tune ``base`` by GRPO (dr_grpo loss, group-standardised rewards, beta 0, temperature 1) and save LoRA adapters.

    Args:
        base: a root backbone.
        settings: task, steps, batch and LoRA.
        out: receives ``step-N`` for every save step, ``final``, and ``log.csv`` (step, reward,
            reward_std, entropy in nats a token, completion_length in tokens, loss, grad_norm,
            learning_rate, seconds).
        local: directory of the materialised base.
        compute: device and dtype; chosen for this hardware if None.
        evaluation: if given, base and adapters are measured on test problems for the model card
            (README.md) that every adapter gets.

    Returns:
        The adapter directory of every saved step.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    compute = compute or hardware.resolve()
    out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = adapters.load_policy(base, settings, compute, local)
    count = settings.prompts * settings.steps
    found = problem_sets.load(
        settings.task,
        settings.task_options,
        "train",
        count,
        settings.seed,
        chat=policy.has_chat_markers(tokenizer),
    )
    data = Dataset.from_dict({"prompt": [p.prompt for p in found], "problem": list(range(count))})
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = GRPOConfig(
            **adapters.trainer_options(settings, compute, Path(work)),
            per_device_train_batch_size=settings.prompts * settings.completions,
            num_generations=settings.completions,
            max_completion_length=settings.max_new_tokens,
            temperature=1.0,
            beta=0.0,
            loss_type="dr_grpo",
        )
        trainer = GRPOTrainer(
            model=model,
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            reward_funcs=reward_function(found, settings.reward, settings.seed),
            optimizers=(adapters.MasterAdamW(model.parameters(), settings.learning_rate), None),
        )
        saved = adapters.train(trainer, adapters.Recorder(out, base, settings, COLUMNS))
    del model, trainer
    adapters.write_cards(saved, base, settings, evaluation, local=local, compute=compute)
    return saved
