"""How far a policy's next-token distributions are from its base's, on texts that neither of them wrote.

A divergence on a policy's own samples asks each policy about other texts; on common texts all are asked the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from realign.behaviour.policy import LogitsModel, token_log_probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Text = tuple[str, str]
"""What is given, and what comes after it and is looked at; without the former the first token is given."""

BATCH = 8
"""Texts at once: their distributions over the vocabulary are whole in memory, twice."""


def divergence(
    model: LogitsModel,
    base: LogitsModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Sequence[Text]],
    *,
    max_tokens: int = 64,
) -> dict[str, float]:
    """Mean divergence a token by domain, with 95% intervals over texts.

    Args:
        model: the policy p.
        base: the reference q, with the same vocabulary.
        tokenizer: of both.
        texts: by domain, two texts or more each.
        max_tokens: of a text that are looked at.

    Returns:
        ``js_DOMAIN`` in [0, ln 2] and ``kl_DOMAIN`` (KL of p from q) at least 0, nats a token, each with ``_low`` and
        ``_high``. Texts are the unit: a text's number is the mean over its tokens.
    """
    measured: dict[str, float] = {}
    for domain, pairs in texts.items():
        rows = [_ids(tokenizer, text, max_tokens) for text in pairs]
        rows = [row for row in rows if row[1]]
        values = np.concatenate(
            [_of_batch(model, base, rows[i : i + BATCH], tokenizer) for i in range(0, len(rows), BATCH)]
        )
        for name, column, top in (("js", values[:, 0], math.log(2)), ("kl", values[:, 1], math.inf)):
            mean = float(column.mean())
            reach = float(student.ppf(0.975, len(column) - 1) * column.std(ddof=1) / math.sqrt(len(column)))
            measured |= {f"{name}_{domain}": mean, f"{name}_{domain}_low": max(mean - reach, 0.0)}
            measured[f"{name}_{domain}_high"] = min(mean + reach, top)
    return measured


def _ids(tokenizer: PreTrainedTokenizerBase, text: Text, max_tokens: int) -> tuple[list[int], list[int]]:
    given, after = text
    before: list[int] = list(tokenizer(given).input_ids) if given else []
    rest: list[int] = list(tokenizer(after, add_special_tokens=not given).input_ids)[
        : max_tokens + (not given)
    ]
    return (before, rest) if given else (rest[:1], rest[1:])


def _of_batch(
    model: LogitsModel,
    base: LogitsModel,
    rows: Sequence[tuple[list[int], list[int]]],
    tokenizer: PreTrainedTokenizerBase,
) -> np.ndarray:
    """Mean over the tokens of each text: (texts, 2) of Jensen-Shannon and KL divergence."""
    prompts, after = (list(side) for side in zip(*rows, strict=True))
    pad: Any = tokenizer.pad_token_id
    log_p, mask = token_log_probabilities(model, prompts, after, pad)
    log_q, _ = token_log_probabilities(base, prompts, after, pad)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    kl = _kl(log_p, log_q)
    js = (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2
    per_text = torch.stack([(value * mask).sum(1) / mask.sum(1) for value in (js, kl)], dim=1)
    return per_text.clamp_min(0).double().cpu().numpy()  # type: ignore[no-any-return]


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)
