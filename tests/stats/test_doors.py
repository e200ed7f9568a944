"""Every public function of stats says what is wrong with an argument."""

import inspect

import numpy as np
import pandas as pd
import pytest
from doors import BAD, cases, functions, refuses

from realign import stats

SIZES = stats.Sizes(tasks=4, queries=5, runs=2, seeds=2, base_runs=0, base_seeds=2)
SETTINGS = {"simulations": "count", "level": "share", "seed": "seed"}


def study():
    rng = np.random.default_rng(0)
    rows = [(arm, run, seed, f"t{t}", f"q{q}") for arm, runs in (("base", [""]), ("reason", ["r0", "r1"]), ("sft", ["r0", "r1"]))
            for run in runs for seed in (0, 1) for t in range(4) for q in range(3)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["arm", "run", "seed", "task", "query"])
    return frame.assign(score=rng.normal(50, 5, len(frame)))


def arms():
    frame = (
        study()[lambda f: f["run"] != "r1"].groupby(["arm", "task", "seed"], as_index=False)["score"].mean()
    )
    return frame.rename(columns={"arm": "role"}).assign(suite="one")


def pairs():
    rng = np.random.default_rng(0)
    models = [(arm, run, seed) for arm in ("a", "b") for run in ("r0", "r1") for seed in (0, 1)]
    rows = [(*one, *two) for i, one in enumerate(models) for two in models[:i]]
    frame = pd.DataFrame(rows, columns=[f"{n}_{side}" for side in "ab" for n in ("arm", "run", "seed")])
    return frame.assign(value=rng.normal(size=len(frame)))


def spoilt(make, column):
    return {
        **BAD["frame"],
        "no column": make().drop(columns=column),
        "texts in it": make().assign(**{column: "a"}),
        "infinite": make().assign(**{column: np.inf}),
        "empty rows": make().iloc[:0],
    }


FRAME, ROLES, PAIRS = spoilt(study, "score"), spoilt(arms, "score"), spoilt(pairs, "value")
ARM = {"none": None, "nonsense": "nonsense", "number": 3, "list": [], "frame": pd.DataFrame()}
VARIANCES = {"none": None, "text": "nonsense", "list": [1.0], "unknown": {"nonsense": 1.0}, "negative": {"seed": -1.0},
             "NaN": {"seed": float("nan")}, "texts": {"seed": "1"}}  # fmt: skip
DESIGN = {"none": None, "text": "nonsense", "tuple": (4, 5, 2, 2, 0, 2)}
TABLE = {name: bad for name, bad in BAD["vector"].items() if name != "objects"}
TABLE |= {"infinite": [[1.0, np.inf]], "vector": [1.0, 2.0]}
P = {
    "none": None,
    "text": "nonsense",
    "empty": {},
    "list": [0.1],
    "above 1": {"a": 1.5},
    "NaN": {"a": np.nan},
    "texts": {"a": "0"},
}
DESIGNS = {"none": None, "list": [1], "too short": {"task": np.ones((2, 1))}, "texts": {"task": np.full((6, 1), "a")},
           "NaN": {"task": np.full((6, 1), np.nan)}, "vector": {"task": np.ones(6)}}  # fmt: skip
FIXED = {"text": "nonsense", "short": np.ones((2, 1)), "NaN": np.full((6, 1), np.nan), "vector": np.ones(6)}
DIFFERENCE = {"a": ARM, "b": ARM}
VALUES = {"values": "vector"}
BOOTSTRAP = {"level": "share", "resamples": "count", "seed": "seed"}


def values(**more):
    return lambda: {"values": [1.0, 2.0, 4.0, 3.0, 2.0, 5.0], **more}


def compared(make, **more):
    return lambda: {"scores": make(), "a": "base", "b": "sft", **more}


def designed(**more):
    return lambda: {"variances": {"seed": 1.0, "model": 1.0}, "sizes": SIZES, "simulations": 5, **more}


#       the call, arguments that fit, and the kind (or a dict of bad values) of every argument
DOORS = {
    "bootstrap_mean": (stats.bootstrap_mean, values(), VALUES | BOOTSTRAP),
    "delta_table": (
        stats.delta_table,
        lambda: {"scores": arms()},
        {"scores": ROLES, "base": ARM, "margin": "positive", "by": {"nonsense": "nonsense", "number": 3, "list": []},
         "arm": ARM, "seed": "seed"},
    ),
    "draws_interval": (stats.draws_interval, lambda: {"draws": [1.0, 2.0]}, {"draws": "vector", "level": "share"}),
    "excess_power": (
        stats.excess_power,
        designed(excess=(0.0, 1.0)),
        {"variances": VARIANCES, "sizes": DESIGN, **SETTINGS,
         "excess": {"none": None, "one": (1.0,), "negative": (-1.0, 1.0), "NaN": (np.nan, 1.0), "texts": ("a", "b")}},
    ),
    "excess_variance": (
        stats.excess_variance,
        lambda: {"scores": study(), "base": "base", "arms": "sft"},
        {"scores": FRAME, "base": ARM, "arms": ARM, "level": "share"},
    ),
    "family": (
        stats.family, lambda: {"parts": {"a": 0.1}, "needs": "all"}, {"parts": P, "needs": "choice", "level": "share"},
    ),
    "hierarchical_interval": (
        stats.hierarchical_interval, lambda: {"differences": np.eye(3)}, {"differences": TABLE, **BOOTSTRAP},
    ),
    "indicator": (
        stats.indicator, lambda: {"labels": ["a", "b"]}, {"labels": {"none": None, "text": "nonsense", "number": 3, "table": np.eye(2)}},
    ),
    "new_tasks_interval": (
        stats.new_tasks_interval, compared(study), {"scores": FRAME, **DIFFERENCE, "level": "share"},
    ),
    "paired": (
        stats.paired,
        compared(arms, margin=1.0),
        {"scores": ROLES, **DIFFERENCE, "margin": "positive", "arm": ARM, "resamples": "count", "seed": "seed"},
    ),
    "power": (
        stats.power,
        designed(test="inside", threshold=1.0),
        {"variances": VARIANCES, "sizes": DESIGN, "test": "choice", "threshold": "finite", "effect": "finite", **SETTINGS},
    ),
    "reml": (
        stats.reml, values(random={"task": np.repeat(np.eye(3), 2, axis=0)}), VALUES | {"random": DESIGNS, "fixed": FIXED},
    ),
    "score_components": (stats.score_components, lambda: {"scores": study()}, {"scores": FRAME}),
    "sign_flip_p": (stats.sign_flip_p, values(), VALUES | {"flips": "count", "seed": "seed"}),
    "similarity_components": (stats.similarity_components, lambda: {"pairs": pairs()}, {"pairs": PAIRS}),
    "suite_difference": (
        stats.suite_difference, compared(study, margin=1.0), {"scores": FRAME, **DIFFERENCE, "margin": "positive"},
    ),
    "t_interval": (stats.t_interval, values(), VALUES | {"level": "share"}),
    "tost": (stats.tost, values(margin=1.0), VALUES | {"margin": "positive"}),
    "verdict": (
        stats.verdict,
        lambda: {"low": 0.0, "high": 1.0, "test": "above", "threshold": 0.5},
        {"low": BAD["other"], "high": BAD["other"], "test": "choice", "threshold": {**BAD["other"], "NaN": np.nan}},
    ),
    "verdict_curve": (
        stats.verdict_curve,
        lambda: {"low": 0.0, "high": 1.0, "test": "above"},
        {"low": "number", "high": "number", "test": "choice"},
    ),
}  # fmt: skip


def test_every_public_function_and_each_of_its_arguments_has_a_door():
    assert functions(stats) == set(DOORS)
    for name, (call, _, kinds) in DOORS.items():
        assert set(inspect.signature(call).parameters) == set(kinds), name


@pytest.mark.parametrize("name", DOORS)
def test_good_arguments_pass(name):
    call, good, _ = DOORS[name]
    arguments = good()
    before = [arguments.pop(each) for each in ("scores", "base", "arms")] if "arms" in arguments else []
    call(*before, **arguments)


@pytest.mark.parametrize(("name", "argument", "label"), cases(DOORS))
def test_a_bad_argument_is_refused_by_name(name, argument, label):
    refuses(DOORS, "stats", name, argument, label)
