"""Choices of texts that an analysis needs: translations of the same messages, and classes to probe for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realign.errors import RealignError
from realign.texts import corpus, splits

if TYPE_CHECKING:
    from realign.texts import TextSet


def parallel_messages(languages: Sequence[str], n: int) -> dict[str, list[str]]:
    """Return ``n`` messages of the evaluation side in English ('en', first) and in every other language.

    Raises:
        RealignError: fewer messages have all translations.
    """
    messages = [m for m in corpus.catalogues("eval") if all(one in m.translations for one in languages)]
    if len(messages) < n:
        raise RealignError(
            f"{len(messages)} messages have translations into {', '.join(languages)}, fewer than the "
            f"{n} of hrsa.n_messages: ask for fewer messages or languages"
        )
    chosen = splits.sample(messages, n, lambda m: m.key, seed=0)
    return {
        "en": [m.text for m in chosen],
        **{one: [m.translations[one] for m in chosen] for one in languages},
    }


@dataclass(frozen=True)
class Labelled:
    """Texts of one set whose class is large enough to be learned.

    Attributes:
        rows: places of the texts among those of all sets, one after the other.
        labels: class of each.
        groups: group of each; None where the set has no groups.
    """

    rows: list[int]
    labels: list[str]
    groups: list[str] | None


def labelled(sets: Sequence[TextSet], fewest: int = 10) -> dict[str, Labelled]:
    """Return the labelled texts of every set with two classes or more, by the name of the set.

    Classes with fewer than ``fewest`` texts are left out: the paper's split has ten folds.
    """
    parts: dict[str, Labelled] = {}
    start = 0
    for each in sets:
        sizes = Counter(each.labels)
        kept = [i for i, label in enumerate(each.labels) if sizes[label] >= fewest]
        labels = [each.labels[i] for i in kept]
        if len(set(labels)) > 1:
            groups = [each.groups[i] for i in kept] if each.groups else None
            parts[each.name] = Labelled([start + i for i in kept], labels, groups)
        start += len(each.texts)
    return parts
