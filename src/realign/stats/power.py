"""Power of a design before anything is computed, by simulation with the estimators that will judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from realign.stats.designs import Layout, add_parts
from realign.stats.excess import excess_of_panel
from realign.stats.inputs import (
    Floats,
    checked_choice,
    checked_count,
    checked_instance,
    checked_level,
    checked_number,
    real_array,
)
from realign.stats.panel import Panel, add_queries
from realign.stats.verdicts import TESTS, Test, verdict

SOURCES = frozenset(
    [
        "task",
        "arm",
        "run",
        "seed",
        "arm:seed",
        "model",
        "arm:task",
        "run:task",
        "seed:task",
        "model:task",
        "query",
        "arm:query",
        "model:query",
    ]
)


@dataclass(frozen=True)
class Sizes:
    """What a design has. For similarities, one task whose queries are the texts.

    Attributes:
        tasks: number of tasks.
        queries: queries of a task.
        runs: tuning runs of the arm.
        seeds: contrastive seeds of each run.
        base_runs: tuning runs of the arm it is compared with; 0 for an arm without tuning.
        base_seeds: seeds of that arm (of each run).
    """

    tasks: int
    queries: int
    runs: int
    seeds: int
    base_runs: int
    base_seeds: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            checked_count(value, name, 0 if name == "base_runs" else 2 if name == "queries" else 1)

    def models(self) -> pd.DataFrame:
        """Arm ("base", "arm"), run and seed of each model; seeds have the same numbers in both arms."""
        sides = (("base", self.base_runs, self.base_seeds), ("arm", self.runs, self.seeds))
        rows = [
            (arm, f"run{run}" if runs else "", seed)
            for arm, runs, seeds in sides
            for run in range(max(runs, 1))
            for seed in range(seeds)
        ]
        return pd.DataFrame(rows, columns=["arm", "run", "seed"])


@dataclass(frozen=True)
class Power:
    """Chance of each verdict, the Monte Carlo error of "holds", and the median half-width of the interval."""

    holds: float
    fails: float
    error: float
    half_width: float


def power(
    variances: Mapping[str, float],
    sizes: Sizes,
    test: Test,
    threshold: float,
    *,
    effect: float = 0.0,
    level: float = 0.90,
    simulations: int = 4000,
    seed: int = 0,
) -> Power:
    """Chance that the interval of (arm - base), tasks fixed, holds against a threshold when the truth is ``effect``.

    Args:
        variances: component (names of :func:`realign.stats.components.score_components`) to its variance; what is
            not named is 0, what cancels in a difference on fixed tasks (task, arm, query) is not used.
        sizes: of the design.
        test: "inside" (equivalence), "above" or "below".
        threshold: margin or threshold, in units of the scores.
        effect: true difference.
        level: of the interval: at .90 each end errs at most 5% of the time.
        simulations: how many studies are drawn.
        seed: of the draws.

    Raises:
        ValueError: an unknown component, a negative variance, or a design with one model an arm.
    """
    v, level = _checked(variances, sizes), checked_level(level)
    simulations, effect = checked_count(simulations, "simulations"), checked_number(effect, "effect")
    checked_choice(test, "test", TESTS)
    threshold = checked_number(threshold, "threshold")
    rng = np.random.default_rng(checked_count(seed, "seed", 0))
    models = sizes.models()
    of_mean = {name: v[name] + v[f"{name}:task"] / sizes.tasks for name in ("run", "seed", "model")}
    asked = sizes.queries * sizes.tasks
    y = _factor(rng, models["seed"], of_mean["seed"], simulations)
    y += _factor(rng, models["arm"] + models["seed"].astype(str), v["arm:seed"], simulations)
    y += (
        _factor(rng, models["arm"] + models["run"], of_mean["run"], simulations)
        * (models["run"] != "").to_numpy()
    )
    y += rng.normal(size=y.shape) * np.sqrt(of_mean["model"] + v["model:query"] / asked)
    y += _factor(rng, models["arm"], v["arm:query"] / asked, simulations)
    value, parts, runs, overlap, both = np.full(simulations, effect), [], [], 0.0, 0.0
    for arm, sign in (("base", -1.0), ("arm", 1.0)):
        rows = np.flatnonzero(models["arm"] == arm)
        layout = Layout(models["run"].to_numpy()[rows], models["seed"].to_numpy()[rows])
        value += sign * (y[:, rows] @ layout.weights)
        noise = v["model:query"] / asked * float(layout.weights @ layout.weights)
        both += noise + v["arm:query"] / asked
        if layout.identified:
            overlap += noise
            between, freedoms, by_run = layout.variance(y[:, rows])
            parts.append((between, freedoms))
            runs.append((by_run, np.full(simulations, max(layout.runs - 1.0, 1.0))))
    if not parts:
        raise ValueError("a design with one model an arm has no interval for new seeds or runs")
    freedom = sizes.tasks * (sizes.queries - 1)
    queries = both * rng.chisquare(freedom, simulations) / freedom
    variance, freedoms = add_queries(*_sum(parts), queries, float(freedom), overlap)
    reach = [student.ppf((1 + level) / 2, f) * np.sqrt(v) for v, f in ((variance, freedoms), _sum(runs))]
    return _judged(value, np.maximum(*reach), test, threshold)


def excess_power(
    variances: Mapping[str, float],
    sizes: Sizes,
    excess: tuple[float, float],
    *,
    level: float = 0.90,
    simulations: int = 200,
    seed: int = 0,
) -> Power:
    """Chance of finding the excess variance of task shifts larger for a second arm (sft) than for a first (reason).

    Args:
        variances: as for :func:`power`.
        sizes: of both arms and of base.
        excess: true variance over tasks of the shifts of the first and second arm.
        level: of the interval.
        simulations: how many studies are drawn.
        seed: of the draws.
    """
    v, level = _checked(variances, sizes), checked_level(level)
    simulations = checked_count(simulations, "simulations")
    both = real_array(excess, "arms", name="excess")
    if both.shape != (2,) or (both < 0).any():
        raise ValueError(f"excess must be two variances, which are not negative, got {excess}")
    rng = np.random.default_rng(checked_count(seed, "seed", 0))
    models = sizes.models()
    models = pd.concat([models, models[models["arm"] == "arm"].assign(arm="other")], ignore_index=True)
    arms, tasks, queries = models["arm"].to_numpy(), sizes.tasks, sizes.queries
    same = (arms[:, None] == arms).astype(float)
    noise = v["arm:query"] * same + v["model:query"] * np.eye(len(arms))
    root = np.linalg.cholesky(noise / queries + 1e-12 * np.eye(len(arms)))
    shape = rng.normal(size=(2, simulations, tasks))
    shape -= shape.mean(axis=-1, keepdims=True)
    shape *= np.sqrt(both[:, None, None]) / shape.std(axis=-1, ddof=1, keepdims=True)
    found = []
    for first, second in zip(*shape, strict=True):
        y = (arms == "arm")[:, None] * first + (arms == "other")[:, None] * second
        y = y + _factor(rng, models["seed"], v["seed:task"], tasks).T
        runs = _factor(rng, models["arm"] + models["run"], v["run:task"], tasks).T
        y = y + runs * (models["run"] != "").to_numpy()[:, None] + root @ rng.normal(size=y.shape)
        y = y + rng.normal(size=y.shape) * np.sqrt(v["model:task"])
        data = Panel(
            models,
            tuple(map(str, range(tasks))),
            y,
            np.full(tasks, queries),
            np.tile(noise / queries, (tasks, 1, 1)),
        )
        found.append(excess_of_panel(data, "base", ("arm", "other"), level))
    value = np.array([each.value for each in found])
    return _judged(value, value - np.array([each.low for each in found]), "above", 0.0)


def _checked(variances: Mapping[str, float], sizes: Sizes) -> dict[str, float]:
    checked_instance(variances, "variances", Mapping)
    checked_instance(sizes, "sizes", Sizes)
    unknown = set(variances) - SOURCES
    if unknown:
        raise ValueError(f"variances has unknown components {sorted(unknown)}; known are {sorted(SOURCES)}")
    for name, value in variances.items():
        checked_number(value, f"variances[{name!r}]")
    if any(not 0 <= value < np.inf for value in variances.values()):
        raise ValueError("variances must be finite and not negative")
    return {name: float(variances.get(name, 0.0)) for name in SOURCES}


def _factor(rng: np.random.Generator, labels: pd.Series, variance: float, draws: int) -> Floats:
    """Random effects (draws, models) of a factor with these labels."""
    number, levels = pd.factorize(labels)
    return (rng.normal(size=(draws, len(levels))) * np.sqrt(variance))[:, number]


def _sum(parts: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    return add_parts([variance for variance, _ in parts], [freedom for _, freedom in parts])


def _judged(value: Floats, reach: Floats, test: Test, threshold: float) -> Power:
    words = [
        verdict(low, high, test, threshold) for low, high in zip(value - reach, value + reach, strict=True)
    ]
    holds = words.count("holds") / len(words)
    error = float(np.sqrt(holds * (1 - holds) / len(words)))
    return Power(holds, words.count("fails") / len(words), error, float(np.median(reach)))
