"""Leakage: no evaluation text may be a training text; checked whenever a model is trained."""

from __future__ import annotations

from collections.abc import Iterable

from realign.errors import RealignError
from realign.texts.copies import apart
from realign.texts.splits import normalise

NEAR = 0.8
"""Share of their runs of words from which on a text counts as a near copy of a training text."""


def shared(train_texts: Iterable[str], eval_texts: Iterable[str]) -> list[str]:
    """Return the distinct evaluation texts that also occur in training.

    Texts are the same if they agree after case folding and with white space collapsed.
    """
    known = {normalise(text) for text in train_texts}
    return list({key: text for text in eval_texts if (key := normalise(text)) in known}.values())


def near(train_texts: Iterable[str], eval_texts: Iterable[str]) -> list[str]:
    """Return the distinct evaluation texts that are equal to a training text but for a few words."""
    once = list(dict.fromkeys(eval_texts))
    kept = set(apart(once, str, train_texts, NEAR))
    return [text for text in once if text not in kept]


def check(train_texts: Iterable[str], eval_texts: Iterable[str]) -> None:
    """Refuse if any evaluation text is also a training text.

    Raises:
        RealignError: with how many are shared and the first of them.
    """
    both = shared(train_texts, eval_texts)
    if both:
        raise RealignError(
            f"{len(both)} evaluation text(s) also occur in the training data, first: {both[0][:120]!r}; "
            "take training texts from split='train' only"
        )
