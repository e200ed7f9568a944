"""Published results computed again, and compared number by number."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from realign import paths
from realign.errors import RealignError, UsageError, unknown
from realign.study.store import Store

if TYPE_CHECKING:
    from realign.study import Study


def verify(study: Study, stage: str = "", limit: int = 0) -> Iterator[tuple[str, float]]:
    """Compute published results again in a scratch store; yield one comparison each, at least one.

    Weights that are already in the local store are reused; published numbers are not. Nothing is written to
    data/results.

    Args:
        study: whose results.
        stage: only results of this stage; all published ones if empty.
        limit: at most so many; all if 0.

    Raises:
        UsageError: not a stage that is published, or a limit below 0.
        RealignError: the study has no published result of that kind.
    """
    stages = [each.name for each in study.stages if each.published]
    if stage and stage not in stages:
        raise unknown("published stage", stage, stages)
    if limit < 0:
        raise UsageError(f"limit {limit}: a number from 0 on is needed, or nothing would be checked")
    results = paths.data() / "results"
    wanted = [node for node in study.nodes() if node.request.stage in ([stage] if stage else stages)]
    nodes = {node.request.key: node for node in wanted if (results / node.request.folder).is_dir()}
    if not nodes:
        of = f"results of profile {study.profile.name}" + (f" of stage {stage}" if stage else "")
        lacking = f"none of the {len(wanted)} {of} is in {results}" if wanted else f"there are no {of}"
        raise RealignError(f"nothing to verify: {lacking}")
    with tempfile.TemporaryDirectory(prefix="realign-verify-") as scratch:
        store = Store(Path(scratch))
        for node in list(nodes.values())[: limit or None]:
            published = results / node.request.folder
            if damage := store.damage(published, node.request.key):
                yield f"{node.label} (damaged: {damage})", float("inf")
                continue
            for need in node.needs:
                study.graph.run(need)
            made = store.get(node.request, node.build)
            yield node.label, largest_difference(published, made.path)


def largest_difference(a: Path, b: Path) -> float:
    """Return the largest absolute difference between the numbers of two artifacts' tables.

    Infinite when a table is missing or has another shape, or a text cell differs.
    """
    worst = 0.0
    for file in sorted(a.glob("*.csv*")):
        other = b / file.name
        if not other.is_file():
            return float("inf")
        x, y = pd.read_csv(file), pd.read_csv(other)
        if x.shape != y.shape or list(x.columns) != list(y.columns):
            return float("inf")
        for column in x.columns:
            if pd.api.types.is_numeric_dtype(x[column]) and pd.api.types.is_numeric_dtype(y[column]):
                if (x[column].isna() != y[column].isna()).any():
                    return float("inf")
                gap = (x[column].astype(float) - y[column].astype(float)).abs().max()
                worst = max(worst, 0.0 if pd.isna(gap) else float(gap))
            elif not x[column].fillna("").equals(y[column].fillna("")):
                return float("inf")
    return worst
