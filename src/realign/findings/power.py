"""How likely the rules of data/claims.toml are to decide at a profile's sizes, before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from realign import paths, stats
from realign.config import Profile
from realign.config.naming import arm
from realign.errors import RealignError
from realign.evaluation import suites
from realign.evaluation.specs import Corpus, TaskSpec
from realign.stats import Sizes

RUN_VARIANCES = (0.0, 0.5, 2.0)
"""Variance between tuning runs (squared points) that are tried: one run an arm leaves it unknown."""
APART = 2.0
"""Standard deviation over tasks (points) of the true shifts of sft for which power is given."""
SIMULATIONS = 2000


def components(path: Path | None = None) -> dict[str, dict[str, float]]:
    """Read the variance components of scores by suite, in squared points (``benchmarks/measure/components.py``).

    Raises:
        RealignError: there is no such file.
    """
    path = path or paths.data() / "power" / "components.csv"
    if not path.is_file():
        raise RealignError(f"no variance components at {path}: run 'python benchmarks/measure/components.py'")
    table = pd.read_csv(path)
    return {
        str(suite): dict(zip(part["component"], part["variance"].astype(float), strict=True))
        for suite, part in table.groupby("suite", sort=False)
    }


def score_power(profile: Profile, variances: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Power of both parts of C1 at the sizes of a profile, for the arm ``reason``.

    Args:
        profile: gives roles, seeds, suites and the margin.
        variances: of :func:`components`; a suite that has none is given their mean.

    Returns:
        Frame with suite ('all' for the second part), part, tasks, queries (mean over tasks), runs, seeds, run_variance,
        truth, holds (chance of the verdict "holds"), error (Monte Carlo), half_width (median, of the 90% interval, in
        points; squared points for the second part). Suites of the hub are left out: their sizes are not known before
        they are loaded. Empty where the profile has no reason, or one seed.
    """
    runs = Counter(arm(role) for role in profile.roles if role != "base")["reason"]
    seeds = len(profile.seeds)
    if not runs or seeds < 2:
        return pd.DataFrame()
    rows, every = [], []
    for suite in profile.suites:
        counts = [queries(spec, n) for spec, n in suites.specs(suite)]
        if not counts:
            continue
        every += counts
        sizes = Sizes(len(counts), round(sum(counts) / len(counts)), runs, seeds, 0, seeds)
        for extra in RUN_VARIANCES:
            noise = {**_of_suite(suite, variances), "run": extra}
            found = stats.power(noise, sizes, "inside", profile.margin, simulations=SIMULATIONS)
            rows.append(_row(suite, "reason is equivalent to base", sizes, extra, "no difference", found))
    if len(every) >= 3:
        sizes = Sizes(len(every), round(sum(every) / len(every)), runs, seeds, 0, seeds)
        noise = _of_suite("", variances)
        found = stats.excess_power(noise, sizes, (0.0, APART**2))
        truth = f"sft shifts tasks by {APART:g} points (sd), reason by none"
        rows.append(_row("all", "sft shifts tasks apart more", sizes, 0.0, truth, found))
    return pd.DataFrame(rows)


def queries(spec: TaskSpec, n: int) -> int:
    """Return how many queries, pairs or texts of a task at size ``n`` are scored."""
    data = spec.data(n)
    if isinstance(data, Corpus):
        return max(len(data.queries), 2)
    columns = [splits["test"] for splits in data.subsets.values() if "test" in splits]
    return max(sum(len(next(iter(c.values()))) for c in columns), 2)


def _of_suite(suite: str, variances: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    if suite in variances:
        return dict(variances[suite])
    return pd.DataFrame(variances).fillna(0.0).mean(axis=1).to_dict()


def _row(
    suite: str, part: str, sizes: Sizes, run_variance: float, truth: str, found: stats.Power
) -> dict[str, object]:
    return {
        "suite": suite,
        "part": part,
        "tasks": sizes.tasks,
        "queries": sizes.queries,
        "runs": sizes.runs,
        "seeds": sizes.seeds,
        "run_variance": run_variance,
        "truth": truth,
        "holds": found.holds,
        "error": found.error,
        "half_width": found.half_width,
    }
