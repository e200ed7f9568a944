"""Which side of the train/evaluation split a text is on, and seeded samples that survive small changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

Split = Literal["train", "eval"]
EVAL_SHARE = 0.25
T = TypeVar("T")


def fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends on ``parts`` only (sha256), uniform over inputs."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def side(kind: str, key: str) -> Split:
    """Return the side of an item: about a quarter of all keys is ``eval``, whoever asks and when."""
    return "eval" if fraction("split", kind, key) < EVAL_SHARE else "train"


def normalise(text: str) -> str:
    """Case-folded text with runs of white space as one blank: what counts as the same text."""
    return " ".join(text.casefold().split())


def digest(texts: Iterable[str]) -> str:
    """Return the sha256 (hex) of a sequence of texts; order counts."""
    total = hashlib.sha256()
    for text in texts:
        data = text.encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def sample(items: Sequence[T], n: int | None, key: Callable[[T], str], seed: int) -> list[T]:
    """Return ``n`` items in an order drawn by ``seed`` (all of them where ``n`` is None or too large).

    The order comes from each item's own digest, not from its position, so an item that another
    platform's build of a package lacks changes one place of the sample and no other.
    """
    order = sorted(items, key=lambda item: fraction("sample", seed, key(item)))
    return order if n is None else order[:n]


def balanced(
    items: Sequence[T], n: int | None, key: Callable[[T], str], label: Callable[[T], str], seed: int
) -> list[T]:
    """Return a sample as :func:`sample` does, taking the labels in turn so that classes are balanced."""
    rank: dict[str, int] = {}
    ranked = []
    for item in sample(items, None, key, seed):
        name = label(item)
        rank[name] = rank.get(name, 0) + 1
        ranked.append((rank[name], item))
    ranked.sort(key=lambda pair: pair[0])  # stable: the digest order stays inside one rank
    return [item for _, item in ranked[:n]]
