"""Studies drawn from known variances, for the simulations of tests/stats."""

import numpy as np
import pandas as pd

from realign.stats import Sizes
from realign.stats.panel import Panel


def models_of(sizes: Sizes, arms=("reason", "sft")) -> pd.DataFrame:
    models = sizes.models()
    tuned = [models[models["arm"] == "arm"].assign(arm=arm) for arm in arms]
    return pd.concat([models[models["arm"] == "base"], *tuned], ignore_index=True)


def draw(rng, sizes: Sizes, sd: dict[str, float], shifts=None, arms=("reason", "sft"), scale=1.0):
    """Models and their scores (models, tasks, queries); sd by source, shifts by arm (tasks,)."""
    models = models_of(sizes, arms)
    keys = {
        "arm": models["arm"],
        "run": models["arm"] + models["run"],
        "seed": models["seed"].astype(str),
        "arm:seed": models["arm"] + models["seed"].astype(str),
        "model": pd.Series(map(str, models.index)),
    }
    tuned = (models["run"] != "").to_numpy()[:, None, None]
    y = np.zeros((len(models), sizes.tasks, sizes.queries))
    if shifts:
        y += np.stack([np.broadcast_to(shifts.get(a, 0.0), sizes.tasks) for a in models["arm"]])[:, :, None]
    for source, size in sd.items():
        by, _, unit = source.partition(":") if source != "arm:seed" else (source, "", "")
        shape = {"": (1, 1), "task": (sizes.tasks, 1), "query": (sizes.tasks, sizes.queries)}[unit]
        number, levels = pd.factorize(keys[by]) if by in keys else (np.zeros(len(models), int), ["all"])
        if by == "query":
            shape = (sizes.tasks, sizes.queries)
        effect = rng.normal(0, size, (len(levels), *shape))
        if source == "model:task":
            effect = effect * np.reshape(scale, (1, -1, 1))
        y += effect[number] * (tuned if by == "run" else 1.0)
    return models, y


def as_panel(models, y) -> Panel:
    centred = y - y.mean(axis=2, keepdims=True)
    n = y.shape[2]
    noise = np.einsum("mtq,ntq->tmn", centred, centred) / (n - 1) / n
    return Panel(
        models, tuple(f"t{t}" for t in range(y.shape[1])), y.mean(axis=2), np.full(y.shape[1], n), noise
    )


def as_frame(models, y) -> pd.DataFrame:
    m, t, q = np.indices(y.shape).reshape(3, -1)
    frame = models.iloc[m].reset_index(drop=True)
    return frame.assign(task=[f"t{i}" for i in t], query=[f"q{i}" for i in q], score=y.ravel())
