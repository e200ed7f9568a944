"""The power that is said before a study is that of its rule: simulated studies of those sizes hold as often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realign import config, stats
from realign.errors import RealignError
from realign.findings import power

NOISE = {"seed": 0.2, "model": 1.0, "seed:task": 0.5, "model:task": 4.0, "model:query": 900.0}


def sized(**changes: object) -> config.Profile:
    return config.load_profile("smoke").model_copy(update={"suites": ("smoke-code",), **changes})


def test_power_is_how_often_simulated_studies_of_these_sizes_are_equivalent() -> None:
    profile = sized(seeds=(0, 1, 2), margin=13.0)
    row = power.score_power(profile, {"smoke-code": NOISE}).iloc[0]
    rng = np.random.default_rng(0)
    held = [
        stats.suite_difference(_study(rng, row.tasks, row.queries), "base", "reason", 13.0).equivalent
        for _ in range(40)
    ]
    assert 0.1 < row.holds < 0.95
    assert row.holds == pytest.approx(np.mean(held), abs=0.2)


def _study(rng: np.random.Generator, tasks: int, queries: int) -> pd.DataFrame:
    """Scores of one run of reason and of base on three seeds, without any effect."""
    shape = {"seed": (1, 3, 1, 1), "model": (2, 3, 1, 1), "seed:task": (1, 3, tasks, 1)}
    shape |= {"model:task": (2, 3, tasks, 1), "model:query": (2, 3, tasks, queries)}
    scores = 50 + sum(rng.normal(size=size) * NOISE[name] ** 0.5 for name, size in shape.items())
    index = pd.MultiIndex.from_product(
        [("base", "reason"), range(3), range(tasks), range(queries)], names=["arm", "seed", "task", "query"]
    )
    frame = pd.DataFrame({"score": scores.ravel()}, index=index).reset_index()
    return frame.assign(run=np.where(frame["arm"] == "base", "", "reason"))


def test_power_grows_with_the_margin_and_falls_with_the_variance_between_runs() -> None:
    rows = power.score_power(sized(seeds=(0, 1, 2), margin=11.0), {"smoke-code": NOISE})
    wide = power.score_power(sized(seeds=(0, 1, 2), margin=16.0), {"smoke-code": NOISE})
    assert rows["holds"].iloc[0] + 0.1 < wide["holds"].iloc[0]
    by_runs = rows[rows["suite"] != "all"]["holds"].to_numpy()
    assert by_runs[0] > by_runs[-1] - 0.02
    assert set(rows["part"]) == {"reason is equivalent to base", "sft shifts tasks apart more"}


def test_without_replicates_or_reason_there_is_no_power() -> None:
    assert power.score_power(sized(seeds=(0,)), {"x": NOISE}).empty
    assert power.score_power(sized(roles=("base", "sft")), {"x": NOISE}).empty


def test_missing_components_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RealignError, match=r"no variance components at .*components\.py"):
        power.components(tmp_path / "none.csv")
