"""GRPO in one process, made for speed: each prompt is read once for all its completions.

The update is TRL's with ``loss_type="dr_grpo"`` and one update a batch (tests hold the two equal): the policy that
learns is the one that wrote, so its log-probabilities are not computed twice. A group whose completions all earned the
same has no advantage, and is not learned from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from realign.behaviour import generation, packing
from realign.errors import RealignError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    Reward = Callable[..., list[float | None]]

PACKED_TOKENS = 1536  # read at once while learning, padding included; bounds the memory of a step


class GroupTrainer(Trainer):
    """transformers' trainer (checkpoints, schedule, clipping, log) with a step of GRPO."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        reward: Reward,
        *,
        completions: int,
        max_new_tokens: int,
        options: dict[str, Any],
        batch: int,
        optimiser: torch.optim.Optimizer,
    ) -> None:
        """``batch`` prompts a step, in the order given; ``reward`` is called as TRL calls it."""
        self.tokenizer, self.reward = tokenizer, reward
        self.prompts = [list(row) for row in tokenizer(list(prompts)).input_ids]
        self.completions, self.max_new_tokens = completions, max_new_tokens
        self.measured: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        arguments = TrainingArguments(
            **options,
            per_device_train_batch_size=batch,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=list(range(len(prompts))),  # type: ignore[arg-type]
            data_collator=lambda rows: {"problem": torch.tensor(rows)},
            optimizers=(optimiser, None),
        )

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: object = None
    ) -> Tensor:
        """Write, score, learn. Returns the loss, whose gradient is there.

        Raises:
            RealignError: logits or the loss are not numbers.
        """
        step = self.state.global_step + 1
        policy: Any = model
        policy.train()
        problems = inputs["problem"].tolist()
        prompts = [self.prompts[i] for i in problems]
        # Drawn from the seed and the step alone, so that a resumed run draws the same.
        draws = torch.Generator().manual_seed(
            int(np.random.default_rng([self.args.seed, step]).integers(2**62))
        )
        began = time.perf_counter()
        try:
            written = generation.sample(
                policy,
                self.tokenizer,
                prompts,
                self.completions,
                max_new_tokens=self.max_new_tokens,
                generator=draws,
            )
        except RealignError as error:
            raise RealignError(f"step {step}: {error}") from None
        generated = time.perf_counter()
        texts = self.tokenizer.batch_decode(written.tokens, skip_special_tokens=True)
        earned = self.reward(
            completions=texts,
            problem=[i for i in problems for _ in range(self.completions)],
            trainer_state=self.state,
        )
        rewards = torch.tensor(earned, dtype=torch.float32).view(len(prompts), self.completions)
        kl = self._kl(model, prompts, written)
        scored = time.perf_counter()
        loss = self._learn(model, prompts, written.tokens, advantages(rewards))
        self.seconds = {
            "generating": generated - began,
            "scoring": scored - generated,
            "learning": time.perf_counter() - scored,
        }
        if not np.isfinite(loss):
            raise RealignError(
                f"step {step}: the loss is {loss}: lower the learning rate, or tune in float32"
            )
        chances = np.concatenate(written.log_probabilities)
        self.measured = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(dim=1).mean()),
            "entropy": -float(chances.mean()),
            "rewards/kl_to_base/mean": kl,
            "completions/mean_length": len(chances) / len(texts),
        }
        return torch.tensor(loss)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what was measured in the step as well."""
        super().log({**logs, **self.measured} if "loss" in logs else logs, start_time)

    def _kl(
        self, model: torch.nn.Module, prompts: Sequence[Sequence[int]], written: generation.Samples
    ) -> float:
        """Return the KL divergence to the base, in nats a token, on one completion of every prompt.

        Estimated from the drawn tokens alone (Schulman's k3: never negative, little variance), so that the policy
        is not read again.
        """
        ours = slice(None, None, self.completions)
        lm: Any = model
        packed = packing.pack(
            prompts, [[c] for c in written.tokens[ours]], self.tokenizer.pad_token_id, lm.dtype, lm.device
        )
        with torch.no_grad(), lm.disable_adapter():
            base = packing.token_log_probabilities(lm, packed).cpu()
        ratio = base - torch.tensor(np.concatenate(written.log_probabilities[ours]), dtype=torch.float32)
        return float((ratio.exp() - ratio - 1).mean())

    def _learn(
        self,
        model: torch.nn.Module,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        advantage: Tensor,
    ) -> float:
        """Add the gradient of the dr_grpo loss to the parameters, and return the loss."""
        lm: Any = model
        size = self.completions
        groups = [list(completions[i * size : (i + 1) * size]) for i in range(len(prompts))]
        learned = [i for i in range(len(prompts)) if bool(advantage[i].any())]
        learned.sort(key=lambda i: len(prompts[i]) + sum(map(len, groups[i])))
        total = 0.0
        for part in _parts([len(prompts[i]) + sum(map(len, groups[i])) for i in learned], PACKED_TOKENS):
            rows = [learned[i] for i in part]
            packed = packing.pack(
                [prompts[i] for i in rows],
                [groups[i] for i in rows],
                self.tokenizer.pad_token_id,
                lm.dtype,
                lm.device,
            )
            chances = packing.token_log_probabilities(lm, packed)
            weights = advantage[rows].flatten().to(chances.device)[packed.owner]
            # The ratio of the policy to itself is 1; only its gradient is that of the log-probability.
            ratio = torch.exp(chances - chances.detach())
            loss = -(ratio * weights).sum() / (len(completions) * self.max_new_tokens)
            loss.backward()
            total += float(loss.detach())
        if not learned:  # the optimiser expects gradients: zeros, so that its averages decay as TRL's do
            for parameter in lm.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        return total


def advantages(rewards: Tensor) -> Tensor:
    """Standardise rewards (prompts, completions) within the groups, as TRL does."""
    spread = rewards.std(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (spread + 1e-4)


def _parts(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut indices of increasing lengths into parts of at most ``budget`` padded tokens, one index at least."""
    parts: list[list[int]] = []
    for i, length in enumerate(lengths):
        if parts and length * (len(parts[-1]) + 1) <= budget:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts
