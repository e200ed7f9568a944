"""How much of a score or a similarity is its history? Variance components by restricted maximum likelihood (REML).

Factors are crossed (seeds with arms, queries with models), for which statsmodels' MixedLM needs one group and
dense matrices of all rows; here queries are summed into the covariance of the models first, which loses nothing
for a complete table, and the likelihood of what remains (models x tasks) is maximised exactly. It equals MixedLM and
the analysis of variance of balanced tables (tests/stats/test_components.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from realign.stats.inputs import Floats, checked_instance, real_array
from realign.stats.panel import panel


def indicator(labels: Sequence[object] | pd.Series | np.ndarray) -> Floats:
    """Design matrix (rows, levels) of a factor; an empty label belongs to no level."""
    if isinstance(labels, str) or not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) != 1:
        raise TypeError(f"labels must be a list of one label a row, got {type(labels).__name__}")
    values = pd.Series(list(labels)).astype(str)
    return pd.get_dummies(values).drop(columns="", errors="ignore").to_numpy(dtype=np.float64)


def reml(values: ArrayLike, random: Mapping[str, Floats], *, fixed: ArrayLike | None = None) -> pd.DataFrame:
    """Variance components of ``y = X b + sum_k Z_k u_k + e``, u_k ~ N(0, v_k I), by exact REML.

    Patterson and Thompson (1971); Searle, Casella and McCulloch, Variance Components (1992), ch. 6: the likelihood
    of A'y with A'X = 0, maximised over v >= 0. Dense: up to about 1,000 rows.

    Args:
        values: (rows,) y.
        random: factor to its design matrix (rows, levels); a row may belong to several levels (both models of a pair).
        fixed: (rows, p) X; None is an intercept.

    Returns:
        component, variance, error (from the information matrix), share of the sum, levels; "residual" last.
        Factors that the design cannot tell from those before them are left out and named in
        ``attrs["not_identified"]``.

    Raises:
        TypeError: values are not real numbers.
        ValueError: shapes do not match, or there are too few rows.
    """
    y = real_array(values, "rows")
    checked_instance(random, "random", Mapping)
    x = np.ones((len(y), 1)) if fixed is None else real_array(fixed, "rows, effects", name="fixed")
    random = {
        name: real_array(design, "rows, levels", name=f"random '{name}'") for name, design in random.items()
    }
    for name, design in {**random, "fixed": x}.items():
        if len(design) != len(y):
            raise ValueError(
                f"random or fixed: '{name}' must have shape ({len(y)} rows, levels), got {np.shape(design)}"
            )
    space = _complement(x)
    if space.shape[1] < 2:
        raise ValueError(f"{len(y)} rows are too few for {x.shape[1]} fixed effects")
    kernels = {name: (space.T @ z) @ (space.T @ z).T for name, z in random.items()}
    kernels["residual"] = np.eye(space.shape[1])
    z = space.T @ y
    levels = {name: design.shape[1] for name, design in random.items()} | {"residual": len(y)}
    return _table(np.outer(z, z), 1, kernels, np.zeros_like(kernels["residual"]), levels)


def score_components(scores: pd.DataFrame) -> pd.DataFrame:
    """Variance components of the score of one query of one model, in squared points.

    Model: task + arm + run(arm) + seed + arm x seed + model + (arm, run, seed, model) x task + query(task) + arm x
    query + model x query, all random ("how much does a score vary by"); the untuned arm has no run. Queries are
    fitted from their covariances within tasks, the rest from task means, whose query noise is then known.

    Args:
        scores: as for :func:`realign.stats.panel.panel`.

    Returns:
        as :func:`reml`; "model:task" holds what is left between task means, "model:query" what is left between
        queries.
    """
    data = panel(scores)
    models, tasks = data.models, len(data.tasks)
    runs = [f"{a}/{r}" if r else "" for a, r in zip(models["arm"], models["run"], strict=True)]
    within = {
        "query": np.ones((len(models), 1)),
        "arm:query": indicator(models["arm"]),
        "model:query": np.eye(len(models)),
    }
    known = data.queries > 1
    rows, noise = [], np.zeros((len(models), len(models)))
    if known.any():
        n = data.queries[known]
        cross = np.einsum("t,tmn->mn", n * (n - 1.0), data.noise[known])
        sizes = {name: int(z.shape[1] * n.sum()) for name, z in within.items()}
        found = _table(
            cross, int((n - 1).sum()), {k: z @ z.T for k, z in within.items()}, np.zeros_like(cross), sizes
        )
        rows.append(found)
        noise = sum(
            v * within[k] @ within[k].T for k, v in zip(found["component"], found["variance"], strict=True)
        )
    factors = {
        "arm": indicator(models["arm"]),
        "run": indicator(runs),
        "seed": indicator(models["seed"]),
        "arm:seed": indicator(models["arm"] + "/" + models["seed"].astype(str)),
        "model": np.eye(len(models)),
    }
    together, apart = np.ones((tasks, 1)), np.eye(tasks)
    random = {"task": np.kron(np.ones((len(models), 1)), apart)}
    random |= {name: np.kron(z, together) for name, z in factors.items()}
    random |= {f"{name}:task": np.kron(factors[name], apart) for name in ("arm", "run", "seed", "model")}
    space = _complement(np.ones((len(models) * tasks, 1)))
    kernels = {name: (space.T @ z) @ (space.T @ z).T for name, z in random.items() if z.size}
    of_means = np.kron(noise, np.diag(np.where(known, 1 / np.maximum(data.queries, 1), 0.0)))
    z = space.T @ data.scores.ravel()
    sizes = {name: design.shape[1] for name, design in random.items()}
    rows.insert(0, _table(np.outer(z, z), 1, kernels, space.T @ of_means @ space, sizes))
    table = pd.concat(rows, ignore_index=True)
    table["share"] = table["variance"] / table["variance"].sum()
    table.attrs["not_identified"] = tuple(name for part in rows for name in part.attrs["not_identified"])
    return table


def similarity_components(pairs: pd.DataFrame) -> pd.DataFrame:
    """Variance components of the similarity of two trained models, each model in many pairs.

    Model: mean (+ a shift of pairs that share a seed) + pair of arms + run + seed + model + residual, where a pair
    belongs to both of its runs, seeds and models.

    Args:
        pairs: arm_a, run_a (empty without tuning), seed_a, arm_b, run_b, seed_b, value; each pair once.

    Returns:
        as :func:`reml`.
    """
    checked_instance(pairs, "pairs", pd.DataFrame)
    columns = [f"{name}_{side}" for side in "ab" for name in ("arm", "run", "seed")]
    missing = {*columns, "value"} - set(pairs.columns)
    if missing:
        raise ValueError(f"pairs lacks the columns {sorted(missing)}")
    real_array(pairs["value"], "rows", name="pairs")
    sides = []
    for side in "ab":
        part = pairs[[f"{name}_{side}" for name in ("arm", "run", "seed")]].fillna("").astype(str)
        run = (part[f"arm_{side}"] + "/" + part[f"run_{side}"]).where(part[f"run_{side}"] != "", "")
        model = part.agg("/".join, axis=1)
        sides.append({"arm": part[f"arm_{side}"], "run": run, "seed": part[f"seed_{side}"], "model": model})
    first, second = sides
    kinds = [" - ".join(sorted(pair)) for pair in zip(first["arm"], second["arm"], strict=True)]
    random = {"arm": indicator(kinds)}
    for name in ("run", "seed", "model"):
        both = indicator(pd.concat([first[name], second[name]]))
        random[name] = both[: len(pairs)] + both[len(pairs) :]
    same = (first["seed"] == second["seed"]).to_numpy(dtype=np.float64)
    fixed = np.column_stack([np.ones(len(pairs)), same]) if 0 < same.mean() < 1 else None
    return reml(pairs["value"], {name: z for name, z in random.items() if z.size}, fixed=fixed)


def _complement(x: Floats) -> Floats:
    """Orthonormal basis (rows, rows - rank) of what is orthogonal to the columns of x."""
    left, size, _ = np.linalg.svd(x, full_matrices=True)
    return left[:, int((size > 1e-10 * size.max()).sum()) :]


def _table(
    cross: Floats, freedom: int, kernels: Mapping[str, Floats], known: Floats, levels: Mapping[str, int]
) -> pd.DataFrame:
    """Maximise -1/2 (f log|V| + tr(V^-1 S)), V = known + sum_k v_k K_k, for a cross product S of f vectors."""
    flat = {name: k.ravel() / max(float(np.linalg.norm(k)), 1e-300) for name, k in kernels.items()}
    kept = [list(kernels)[-1]]  # what is left is always there; then factors in order, if they add anything
    for name in list(kernels)[:-1]:
        basis = np.stack([flat[each] for each in (*kept, name)])
        if np.linalg.eigvalsh(basis @ basis.T)[0] > 1e-8:
            kept.append(name)
    kept = [*kept[1:], kept[0]]
    size, scale = len(cross), float(np.trace(cross)) / (freedom * len(cross)) or 1.0
    used = [kernels[name] * (size / np.trace(kernels[name])) for name in kept]

    def inverse(share: Floats) -> tuple[Floats, float]:
        total = known / scale + sum(v * k for v, k in zip(share, used, strict=True)) + 1e-9 * np.eye(size)
        factor = cho_factor(total, lower=True)
        return cho_solve(factor, np.eye(size)), 2 * float(np.log(np.diag(factor[0])).sum())

    def loss(share: Floats) -> tuple[float, Floats]:
        inverted, logdet = inverse(share)
        fitted = inverted @ cross @ inverted / scale
        slope = [float(((freedom * inverted - fitted) * k).sum()) for k in used]
        return freedom * logdet + float((inverted * cross).sum()) / scale, np.array(slope)

    start = np.full(len(used), 1 / len(used))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(used),
                     options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-8})  # fmt: skip
    moved = [inverse(found.x)[0] @ k for k in used]
    information = freedom / 2 * np.array([[float((a * b.T).sum()) for b in moved] for a in moved])
    unit = np.array([scale * size / np.trace(kernels[name]) for name in kept])
    error = unit * np.sqrt(np.diag(np.linalg.pinv(information)))
    variance = unit * found.x
    table = pd.DataFrame({"component": kept, "variance": variance, "error": error})
    table["share"] = variance / variance.sum()
    table["levels"] = [levels[name] for name in kept]
    table.attrs["not_identified"] = tuple(name for name in kernels if name not in kept)
    return table
