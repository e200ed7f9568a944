"""Near copies: texts that differ in a few words only, which a check for equal texts misses."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
RUN = 3
"""Words in a row that are compared."""
SHARE = 0.6
"""Two texts are near copies from this Jaccard index of their runs of words on."""


def runs(text: str) -> set[int]:
    """Hash every run of :data:`RUN` words (names and numbers are words, signs are not); a shorter text is one run."""
    words = re.findall(r"\w+", text.casefold())
    return {hash(tuple(words[i : i + RUN])) for i in range(max(len(words) - RUN + 1, 1))}


class Copies:
    """Texts that further texts are compared with."""

    def __init__(self, texts: Iterable[str] = (), share: float = SHARE) -> None:
        self.share = share
        self._sizes: list[int] = []
        self._places: dict[int, list[int]] = defaultdict(list)  # by run: the texts that have it
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Add a text, whose place is the number of texts before it."""
        mine = runs(text)
        for run in mine:
            self._places[run].append(len(self._sizes))
        self._sizes.append(len(mine))

    def of(self, text: str) -> list[int]:
        """Return the places of the texts that ``text`` is a near copy of, or equal to."""
        mine = runs(text)
        common = Counter(place for run in mine if run in self._places for place in self._places[run])
        return sorted(
            place for place, n in common.items() if n >= self.share * (len(mine) + self._sizes[place] - n)
        )


def distinct(items: Iterable[T], text: Callable[[T], str], share: float = SHARE) -> list[T]:
    """Return the items without those that are a near copy of an earlier one."""
    copies, kept = Copies(share=share), []
    for item in items:
        if not copies.of(text(item)):
            copies.add(text(item))
            kept.append(item)
    return kept


def apart(
    items: Iterable[T], text: Callable[[T], str], known: Iterable[str], share: float = SHARE
) -> list[T]:
    """Return the items that are no near copy of a known text, such as a training text."""
    items = list(items)
    copies = Copies(map(text, items), share)
    copied = {place for each in known for place in copies.of(each)}
    return [item for place, item in enumerate(items) if place not in copied]
