"""A backbone as a policy: accuracy on never-seen problems, entropy of its tokens, distance to its base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from realign.behaviour import mixture
from realign.behaviour import problems as problem_sets
from realign.config import Backbone, PolicySettings, ProblemSettings
from realign.hardware import Compute
from realign.models import loading
from realign.progress import track

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 64


class LogitsModel(Protocol):
    """A language model, or what stands for one (a tuned model with its adapter switched off)."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    def __call__(self, **inputs: Any) -> Any:
        """Return an object with ``logits``."""
        ...


def wilson(successes: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion (95% for the default ``z``).

    Args:
        successes: number of successes, may be fractional.
        n: number of trials, at least 1; may be an effective number.
        z: normal quantile.

    Raises:
        ValueError: if ``n`` is below 1 or ``successes`` is outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes ({successes}) must lie in 0..n and n ({n}) must be at least 1")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_wilson(correct: np.ndarray) -> tuple[float, float, float]:
    """Return mean and Wilson 95% interval for ``correct`` (problems, samples) of zeros and ones.

    Samples of one problem depend on each other, so the number of trials is the effective one: that of
    independent trials with the variance seen between problem means, kept within problems..problems x
    samples.
    """
    count, samples = correct.shape
    p = float(correct.mean())
    between = float(correct.mean(axis=1).var(ddof=1)) / count if count > 1 else 0.0
    effective = p * (1 - p) / between if between > 0 else float(count)
    effective = min(max(effective, float(count)), float(count * samples))
    low, high = wilson(p * effective, effective)
    return p, low, high


def problems_of(
    settings: ProblemSettings,
    tokenizer: PreTrainedTokenizerBase,
    split: problem_sets.Split,
    count: int,
    seed: int = 0,
) -> list[problem_sets.VerifiableProblem]:
    """Return ``count`` problems of one split, of one task or of a mixture, prompted as the tokenizer allows."""
    load: Any = (
        mixture.load if settings.task == mixture.MIXTURE else partial(problem_sets.load, settings.task)
    )
    chat = problem_sets.has_chat_markers(tokenizer)
    return load(settings.task_options, split, count, seed, chat=chat, style=settings.style)  # type: ignore[no-any-return]


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    max_new_tokens: int,
    sample: bool,
) -> list[list[int]]:
    """Continue prompts greedily or by sampling at temperature 1 from the full distribution.

    Returns the new token ids of each prompt, the end marker included where one was written.
    """
    import torch
    from transformers import GenerationConfig

    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=sample,
        temperature=1.0 if sample else None,
        top_k=0 if sample else None,
        top_p=1.0 if sample else None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.no_grad():
        out: torch.Tensor = model.generate(  # type: ignore[operator]
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=config
        )
    completions = []
    for row in out[:, batch.input_ids.shape[1] :].tolist():
        end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
        completions.append(row[:end])
    return completions


def token_log_probabilities(
    model: LogitsModel, prompts: list[list[int]], completions: list[list[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the model's distribution at every completion token, given what came before it.

    Returns:
        Log-probabilities (batch, longest completion, vocabulary) float32 and a boolean mask (batch,
        longest completion) of the tokens that exist. Prompts are padded on the left, completions on the
        right, so that only the last positions need logits.
    """
    import torch

    width, keep = max(map(len, prompts)), max(map(len, completions))
    ids = torch.full((len(prompts), width + keep), pad)
    seen = torch.zeros_like(ids)
    mask = torch.zeros(len(prompts), keep, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        row = torch.tensor([*prompt, *completion])
        start = width - len(prompt)
        ids[i, start : start + len(row)] = row
        seen[i, start : start + len(row)] = 1
        mask[i, : len(completion)] = True
    with torch.no_grad():
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=seen.to(model.device),
            logits_to_keep=keep + 1,
            use_cache=False,
        ).logits[:, :-1]
    return torch.log_softmax(logits.float(), dim=-1), mask.to(model.device)


def measure(
    backbone: Backbone,
    settings: PolicySettings,
    *,
    local: Path | None = None,
    reference: PreTrainedModel | Backbone | None = None,
    compute: Compute | None = None,
    split: problem_sets.Split = "test",
) -> dict[str, Any]:
    """Measure a backbone as a policy on problems of one split (test: never trained on).

    Args:
        backbone: the policy.
        settings: problems, samples and length.
        local: directory of the materialised root base.
        reference: usually the base, by name or loaded; if given, the KL divergence to it is measured.
        compute: device and dtype; float32 on the CPU if None.
        split: which problems.

    Returns:
        ``accuracy_greedy`` and ``accuracy_sampled`` (0..1, each with ``_low`` and ``_high``, Wilson 95%;
        for samples with the effective number of trials), ``n`` problems, ``samples`` a problem,
        ``entropy`` (nats a generated token, temperature 1), ``kl`` (nats a generated token, full
        distributions on the policy's own samples; NaN without a reference), ``style``, ``completion_length``
        (tokens), and ``rows``: one dict a problem.
    """
    import torch

    dtype = compute.dtype if compute else torch.float32
    device = compute.device if compute else torch.device("cpu")
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "local": local,
        "attn_implementation": "eager",
    }
    model, tokenizer = loading.load_lm(backbone, **options)
    base = loading.load_lm(reference, **options)[0] if isinstance(reference, Backbone) else reference
    return measure_model(
        model, tokenizer, problems_of(settings, tokenizer, split, settings.problems), settings, base=base
    )


def measure_model(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[problem_sets.VerifiableProblem],
    settings: PolicySettings,
    *,
    base: LogitsModel | None = None,
) -> dict[str, Any]:
    """Measure a loaded policy on given problems; see :func:`measure`."""
    import torch

    # Problems of similar length share a batch, so that little is spent on padding.
    order = sorted(range(len(problems)), key=lambda i: len(problems[i].prompt))
    rows: list[dict[str, Any]] = [{} for _ in problems]
    correct = np.zeros((len(problems), settings.samples))
    entropy, kl, tokens = 0.0, 0.0, 0
    per_batch = max(1, _BATCH // settings.samples)
    batches = [order[i : i + per_batch] for i in range(0, len(order), per_batch)]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        for batch in track(batches, desc="policy", unit="batch"):
            part = _measure_batch(model, tokenizer, [problems[i] for i in batch], settings, base)
            correct[batch] = part.correct
            for i, row in zip(batch, part.rows, strict=True):
                rows[i] = row
            entropy, kl, tokens = entropy + part.entropy, kl + part.kl, tokens + part.tokens
    hits = sum(row["greedy_correct"] for row in rows)
    low, high = wilson(hits, len(rows))
    sampled_accuracy, sampled_low, sampled_high = clustered_wilson(correct)
    return {
        "accuracy_greedy": hits / len(rows),
        "accuracy_greedy_low": low,
        "accuracy_greedy_high": high,
        "accuracy_sampled": sampled_accuracy,
        "accuracy_sampled_low": sampled_low,
        "accuracy_sampled_high": sampled_high,
        "n": len(rows),
        "samples": settings.samples,
        "style": settings.style,
        "entropy": entropy / tokens,
        "kl": kl / tokens,
        "completion_length": tokens / correct.size,
        "rows": rows,
    }


class _Batch(NamedTuple):
    """A few problems measured: rows, (problems, samples) of zeros and ones, and sums over generated tokens."""

    rows: list[dict[str, Any]]
    correct: list[list[bool]]
    entropy: float
    kl: float
    tokens: int


def _measure_batch(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[problem_sets.VerifiableProblem],
    settings: PolicySettings,
    base: LogitsModel | None,
) -> _Batch:
    import torch

    prompts = [problem.prompt for problem in problems]
    repeated = [p for p in prompts for _ in range(settings.samples)]
    length = settings.max_new_tokens
    greedy = generate(model, tokenizer, prompts, max_new_tokens=length, sample=False)
    sampled = generate(model, tokenizer, repeated, max_new_tokens=length, sample=True)
    ids = [list(row) for row in tokenizer(repeated).input_ids]
    log_p, mask = token_log_probabilities(model, ids, sampled, tokenizer.pad_token_id)
    entropy = -(log_p.exp() * log_p).sum(-1) * mask
    kl = torch.full_like(entropy, math.nan)
    if base is not None:
        log_q, _ = token_log_probabilities(base, ids, sampled, tokenizer.pad_token_id)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1) * mask
    rows, correct = [], []
    for j, problem in enumerate(problems):
        mine = slice(j * settings.samples, (j + 1) * settings.samples)
        texts = tokenizer.batch_decode(sampled[mine], skip_special_tokens=True)
        correct.append([problem_sets.score(problem, t) > 0.999 for t in texts])
        best = str(tokenizer.decode(greedy[j], skip_special_tokens=True))
        tokens = int(mask[mine].sum())
        rows.append(
            {
                "question": problem.question,
                "answer": problem.answer,
                "greedy": best,
                "greedy_correct": problem_sets.score(problem, best) > 0.999,
                "sampled_accuracy": float(np.mean(correct[-1])),
                "entropy": float(entropy[mine].sum()) / tokens,
                "kl": float(kl[mine].sum()) / tokens,
                "tokens": tokens / settings.samples,
            }
        )
    return _Batch(rows, correct, float(entropy.sum()), float(kl.sum()), int(mask.sum()))
