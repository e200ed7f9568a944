"""RLVR: GRPO on reasoning_gym problems with the task's own verifier as the only reward."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realign import hardware
from realign.behaviour import policy
from realign.behaviour import problems as problem_sets
from realign.config import Backbone, PolicySettings, RLVRSettings, SFTSettings
from realign.hardware import Compute
from realign.tuning import adapters, grpo, processes, runs, sft
from realign.tuning.optimiser import MasterAdamW

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, Trainer
    from trl import GRPOTrainer

COLUMNS = {
    "reward": "reward",
    "reward_std": "reward_std",
    "entropy": "entropy",
    "kl": "rewards/kl_to_base/mean",
    "completion_length": "completions/mean_length",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


def reward_function(
    problems: list[problem_sets.VerifiableProblem], kind: str, seed: int
) -> Callable[..., list[float | None]]:
    """Return the reward: the verifier's score (0..1), or a fair coin that ignores the completion.

    The trainer passes completions and the data set's column ``problem``, an index into ``problems``.
    """

    def verifier(completions: list[str], problem: list[int], **kwargs: Any) -> list[float | None]:
        return [problem_sets.score(problems[i], text) for i, text in zip(problem, completions, strict=True)]

    def random(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float | None]:
        # Drawn from the step and the process alone, so that a resumed run tosses the same coins.
        rng = np.random.default_rng([seed, trainer_state.global_step, processes.rank()])
        return [float(x) for x in rng.integers(0, 2, size=len(completions))]

    return verifier if kind == "verifier" else random


def kl_meter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, completions_a_prompt: int
) -> Callable[..., list[float | None]]:
    """Return a "reward" of weight 0 that logs the KL divergence to the base, in nats a token.

    Full distributions on one completion of every prompt, where policy and base are read again.
    """
    base = adapters.BaseOf(model)

    def kl_to_base(prompts: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
        ids = [list(row) for row in tokenizer(prompts[::completions_a_prompt]).input_ids]
        written = completion_ids[::completions_a_prompt]
        log_p, log_q = (
            policy.token_log_probabilities(m, ids, written, tokenizer.pad_token_id)[0] for m in (model, base)
        )
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        rows: list[float | None] = [None] * len(prompts)
        rows[::completions_a_prompt] = [
            float(row[: len(tokens)].mean()) for row, tokens in zip(kl, written, strict=True)
        ]
        return rows

    return kl_to_base


def generates_with_vllm(compute: Compute) -> bool:
    """Whether completions are written by vLLM: where it is installed and there is a GPU."""
    return compute.device.type == "cuda" and importlib.util.find_spec("vllm") is not None


def _warm_start(
    base: Backbone, settings: RLVRSettings, out: Path, local: Path | None, compute: Compute
) -> Path:
    """Return the adapter of the SFT that comes before RLVR, made (or finished) if it is not there."""
    asked = SFTSettings(
        task=settings.task,
        task_options=settings.task_options,
        steps=settings.warm_start,
        batch_size=settings.prompts,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lora=settings.lora,
        max_new_tokens=settings.max_new_tokens,
        style=settings.style,
        validate_every=0,
        seed=settings.seed,
    )
    if runs.unfinished(out):
        sft.run(base, asked, out, local=local, compute=compute)
    return out / "final"


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
        out: receives ``warm-start`` if there is one, ``step-N`` for every save step, ``final``, ``log.csv`` (step, reward,
            reward_std, entropy and kl to the base in nats a token, completion_length in tokens, loss,
            grad_norm, learning_rate, seconds) and ``validation.csv`` (step, and what
            :func:`realign.behaviour.policy.measure` gives on validation problems, every
            ``validate_every`` steps). A run that was killed goes on when ``out`` is the same.
        local: directory of the materialised base.
        compute: device and dtype; chosen for this hardware if None.
        evaluation: if given, base and adapters are measured on test problems for the model card
            (README.md) that every adapter gets.

    Returns:
        The adapter directory of every saved step.
    """
    compute = compute or hardware.resolve()
    start = _warm_start(base, settings, out / "warm-start", local, compute) if settings.warm_start else None
    return runs.tune(
        base,
        settings,
        out,
        partial(_trainer, settings, compute),
        COLUMNS,
        local=local,
        compute=compute,
        evaluation=evaluation,
        start=start,
    )


def _trainer(
    settings: RLVRSettings,
    compute: Compute,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    options: dict[str, Any],
) -> Trainer:
    """Return our own trainer, or TRL's where vLLM writes the completions or several processes share a batch."""
    problems = adapters.training_problems(settings, tokenizer, settings.prompts * settings.steps)
    if generates_with_vllm(compute) or processes.processes() > 1:
        return trl_trainer(settings, compute, model, tokenizer, options, problems)
    return grpo.GroupTrainer(
        model,
        tokenizer,
        [problem.prompt for problem in problems],
        reward_function(problems, settings.reward, settings.seed),
        completions=settings.completions,
        max_new_tokens=settings.max_new_tokens,
        options=options,
        batch=settings.prompts,
        optimiser=MasterAdamW(model.parameters(), settings.learning_rate),
    )


def trl_trainer(
    settings: RLVRSettings,
    compute: Compute,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    options: dict[str, Any],
    problems: list[problem_sets.VerifiableProblem],
) -> GRPOTrainer:
    """Return TRL's trainer for the same update."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        **options,
        per_device_train_batch_size=processes.share(settings.prompts * settings.completions, "completions"),
        num_generations=settings.completions,
        max_completion_length=settings.max_new_tokens,
        temperature=1.0,
        beta=0.0,
        loss_type="dr_grpo",
        use_vllm=generates_with_vllm(compute),
        vllm_mode="colocate",
        reward_weights=[1.0, 0.0],
    )
    return GRPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(
            {"prompt": [p.prompt for p in problems], "problem": list(range(len(problems)))}
        ),
        processing_class=tokenizer,
        reward_funcs=[
            reward_function(problems, settings.reward, settings.seed),
            kl_meter(model, tokenizer, settings.completions),
        ],
        optimizers=(MasterAdamW(model.parameters(), settings.learning_rate), None),
    )
