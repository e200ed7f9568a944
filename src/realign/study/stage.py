"""What a stage is: its name and version, the results that it wants, how each is built and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from realign import texts
from realign.study.artifact import Request
from realign.study.graph import Node

if TYPE_CHECKING:
    from realign.study import Study

_text_sources = cache(texts.sources)  # reads package metadata, and is asked for by many nodes


class Stage:
    """One step of a study; the subclasses are the attributes of :class:`realign.study.Study`.

    Attributes:
        name: names the folder of its artifacts; the attribute of a study has '_' for '-'.
        version: goes up when the code changes what it computes, so that old artifacts are not found.
        published: whether its results are small tables that belong in data/results; the others hold weights
            or activations.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    published: ClassVar[bool] = False

    def __init__(self, study: Study) -> None:
        self.study = study
        self.profile = study.profile
        self.graph = study.graph
        self.models = study.models

    def results(self) -> Mapping[Any, Node]:
        """The results that chapters read, by what they are of; none for a stage that only others need."""
        return {}

    def nodes(self) -> list[Node]:
        """The results that chapters read, in the order in which they are computed."""
        return list(self.results().values())

    def table(self, file: str, *labels: str) -> pd.DataFrame:
        """Read a table of every result, with the parts of the result's key as columns ``labels``."""
        frames = []
        for key, node in self.results().items():
            values = key if isinstance(key, tuple) else (key,)
            frame = pd.read_csv(self.graph.run(node).path / file)
            frames.append(frame.assign(**dict(zip(labels, values, strict=True))))
        return concatenate(frames, labels)

    def request(
        self,
        slug: str,
        config: dict[str, Any],
        inputs: dict[str, Any],
        outside: dict[str, str] | None = None,
    ) -> Request:
        """Ask for a result of this stage, named by the family unless ``slug`` says more."""
        return Request(self.name, self.version, slug, config, inputs, outside or {})

    def slug(self, *names: str) -> str:
        """Join the family's name and others."""
        return "-".join([self.models.family.name, *names])


def text_versions(names: Iterable[str]) -> dict[str, str]:
    """Return what text or training sets are built from (package -> version), for keys."""
    return {source: version for name in names for source, version in _text_sources(name).items()}


def concatenate(frames: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Put frames below each other; without any, an empty frame with ``columns``."""
    parts = list(frames)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
