"""The train/evaluation split of texts, and seeded samples that stay nearly the same when a text is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

Split = Literal["train", "eval"]
EVAL_SHARE = 0.25
T = TypeVar("T")


def order_key(*parts: object) -> str:
    """Return a sort key (sha256, hexadecimal) that looks random and depends on ``parts`` only."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends on ``parts`` only, uniform over inputs."""
    return int(order_key(*parts)[:16], 16) / 2**64


def side(kind: str, key: str) -> Split:
    """Return the side of an item: about a quarter of all keys is ``eval``, on every machine."""
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


def draw(items: Iterable[T], n: int | None, key: Callable[[T], str], *salt: object) -> list[T]:
    """Return ``n`` items in an order drawn by ``salt`` (all of them where ``n`` is None or too large).

    The order comes from each item's own digest, not from its position, so an item that another
    platform's build of a package lacks changes one place of the sample and no other.
    """
    return sorted(items, key=lambda item: order_key(*salt, key(item)))[:n]


def sample(items: Iterable[T], n: int | None, key: Callable[[T], str], seed: int) -> list[T]:
    """Return a sample as :func:`draw` does, by a seed."""
    return draw(items, n, key, "sample", seed)


def balanced(
    items: Iterable[T], n: int | None, key: Callable[[T], str], label: Callable[[T], str], seed: int
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
