"""A synthetic study of the documented shapes, for the tests of figures, tables and verdicts only."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from realign.hrsa import METRICS, Report, replicates

LAYERS = 7
KS = (5, 10)


def report(
    similarity: float, neighbours: float | None = None, dimensions: int = 24, width: float = 0.01
) -> Report:
    """A report in which every metric of the registry has one similarity at all layers and layer pairs.

    Args:
        similarity: of every metric, and what is left of a probe's accuracy on the other model.
        neighbours: similarity of neighbours, where it is another one.
        dimensions: of the rotation.
        width: half the width of every interval by layer.
    """
    rows = [
        {"metric": m.name, "estimator": e, "variant": variant, "k": k, "layer": layer, "value": value}
        | {"low": value - width, "high": value + width, "null": NULLS.get((m.level, e), math.nan)}
        for m in METRICS.values()
        for e in m.estimators
        for variant in {"", m.variant if e == "reference" else ""}
        for k in (KS if m.name == "knn" else (0,))
        for layer in (range(LAYERS) if m.level != "function" else [LAYERS - 1])
        for value in [_value(m.name, e, similarity, neighbours)]
    ]
    shares = {"calibrated": "value", "calibrated_low": "low", "calibrated_high": "high"}  # floor 0, ceiling 1
    rng = np.random.default_rng(0)
    mixed = np.linalg.qr(np.eye(dimensions) + (1 - similarity) * rng.normal(size=(dimensions,) * 2))[0]
    return Report(
        pd.DataFrame([row | {share: row[name] for share, name in shares.items()} for row in rows]).assign(
            ceiling=math.nan
        ),
        _details(similarity),
        rotation=(mixed * np.sign(np.diag(mixed))).astype(np.float16),
        meta={"layers": LAYERS, "k": list(KS), "sample": "same", "resamples": 100, "seed": 0},
    )


JS = "next-token divergence (bits)"
NULLS = {("local geometry", "reference"): 0.0, ("representation", "reference"): 0.1}


def _value(metric: str, estimator: str, similarity: float, neighbours: float | None) -> float:
    if metric != "knn":
        return similarity
    corrected = similarity if neighbours is None else neighbours
    return corrected if estimator == "reference" else corrected / (2 - corrected)


def _details(s: float) -> dict[str, pd.DataFrame]:
    """What is not a number by layer, of the columns that a report documents."""
    grid = [
        {"metric": metric, "estimator": e, "layer_a": a, "layer_b": b, "value": v}
        | {"low": v - 0.01, "high": v + 0.01}
        for metric in ("cka", "correlation")
        for e in METRICS[metric].estimators
        for a in range(LAYERS)
        for b in range(LAYERS)
        for v in [s * 0.9 ** abs(a - b)]
    ]
    r = np.clip(np.random.default_rng(1).normal(s, 0.05, 24), -1, 1)
    r[0] = np.nan  # a constant dimension
    accuracy = {"a->a": 0.9, "b->b": 0.9, "a->b": 0.9 * s, "b->a": 0.9 * s}
    probe = pd.DataFrame(
        {"text_set": "docs", "direction": d, "scaler": scaler, "accuracy": x}
        | {"majority": 0.2, "low": x - 0.005, "high": x + 0.005}
        | {f"{a}_f1{end}": x - 0.01 for a in ("macro", "weighted") for end in ("", "_low", "_high")}
        for d, x in accuracy.items()
        for scaler in (("source",) if d[0] == d[-1] else ("source", "target"))
    )
    controls = [
        {"text_set": "docs", "direction": d, "control": c, "value": v, "low": v - 0.01, "high": v + 0.01}
        for d in ("a->b", "b->a")
        for c, v in {"procrustes": 0.9, "shuffled": 0.15, "transfer_ratio": s}.items()
    ]
    shares = ("top_dimension_share", "top_rows_share")
    energy = [
        {"layer": layer, "model": m, **{f"{x}{end}": 0.3 for x in shares for end in ("", "_low", "_high")}}
        for layer in range(LAYERS)
        for m in ("a", "b")
    ]
    return {
        "grid": pd.DataFrame(grid),
        "correlation_histogram": pd.DataFrame({"dimension": np.arange(24), "r": r}),
        "probe": probe,
        "probe_paper": probe[probe["scaler"] == "source"],
        "probe_controls": pd.DataFrame(controls),
        "energy": pd.DataFrame(energy),
    }


def scores(
    reason: float = 0.1, sft: float = -2.0, seeds: int = 3, noise: float = 0.02, by_seed: float = 1.0
) -> pd.DataFrame:
    """Scores of 2 suites x 2 tasks; ``reason`` and ``sft`` are the true shifts against base, ``by_seed`` that of a seed."""
    rng = np.random.default_rng(0)
    rows = []
    for suite, first in (("laptop-code", 30.0), ("laptop-multilingual", 50.0)):
        for i, kind in enumerate(("Retrieval", "Classification")):
            place = {"suite": suite, "task": f"{suite}-task{i}", "type": kind}
            for role, shift in (("base", 0.0), ("reason", reason), ("sft", sft)):
                for seed in range(seeds):
                    score = first + 10 * i + shift + by_seed * seed + noise * rng.normal()
                    rows.append({"model": "emb", "role": role, "seed": seed, "score": score, **place})
                rows.append({"model": "untrained", "role": role, "seed": -1, "score": first - 9, **place})
            rows.append({"model": "random", "role": "", "seed": -1, "score": 1.0, **place})
            if kind == "Retrieval":
                rows.append({"model": "bm25", "role": "", "seed": -1, "score": first, **place})
    return pd.DataFrame(rows)


def items(queries: int = 0, noise: float = 0.3) -> pd.DataFrame:
    """Scores of single queries of the trained models of :func:`scores`; none unless ``queries`` are asked for."""
    rng = np.random.default_rng(1)
    trained = scores().query("model == 'emb'")[["model", "role", "seed", "suite", "task"]]
    parts = [
        trained.assign(subset="", item=str(n), value=rng.normal(0.5, noise, len(trained)))
        for n in range(queries)
    ]
    return pd.concat([trained.iloc[:0].assign(subset="", item="", value=0.0), *parts], ignore_index=True)


def mechanism() -> dict[str, Any]:
    """Updates, landscape and domains in which SFT moves twice as far as RLVR."""
    size = {"reason": 0.1, "sft": 0.2}
    updates = pd.DataFrame(
        {"role": role, "layer": layer, "module": module, "size": much, "rank": 3.5, "moved": 2 * much}
        | {"base_left": much, "base_left_chance": 0.05, "base_right": much, "base_right_chance": 0.05}
        for role, much in size.items()
        for layer in range(4)
        for module in ("q_proj", "up_proj")
    )
    agreement = updates[updates["role"] == "sft"].assign(a="reason", b="sft", left=0.3, left_chance=0.01)
    measures = pd.DataFrame(
        {"role": role, "domain": domain, "measure": measure, "value": value, "low": value - 0.005}
        | {"high": value + 0.005, "null": 0.0}
        for role, much in size.items()
        for domain in ("task", "docs")
        for measure in ("landscape shift", "trajectory distance", "spread", "step length", "occupancy", JS)
        for value in [0.1 if measure == JS else much]
    )
    points = pd.DataFrame(
        {"role": role, "domain": domain, "text": text, "token": token, "x": float(text), "y": token / 2}
        for role, domain in (("fixed texts", ""), ("base", "task"), ("reason", "task"), ("sft", "docs"))
        for text in range(3)
        for token in range(4)
    )
    domains = pd.DataFrame(
        {"role": role, "domain": domain, "metric": metric, "at": at, "value": 1 - much}
        | {"low": 0.9 - much, "high": 1.0}
        for role, much in size.items()
        for domain in ("task", "docs", "code")
        for metric, at in (("cka", "mean"), ("knn@10", "mean"), ("correlation", "last"))
    )
    return {
        "updates": SimpleNamespace(frame=lambda: updates, agreement=lambda: agreement),
        "landscape": SimpleNamespace(
            frame=lambda table="measures": points if table == "points" else measures
        ),
        "domains": SimpleNamespace(frame=lambda: domains),
    }


def reading() -> pd.DataFrame:
    """What two tasks read, for two seeds of base and one backbone."""
    rows = []
    for model, role, seed in (
        ("untrained", "base", -1),
        ("emb", "base", 1),
        ("emb", "base", 0),
        ("emb", "sft", 0),
    ):
        for task, cut in (("A", 5), ("B", 0)):
            counts = {"texts": 20, "tokens": 300, "truncated": cut, "empty": 0, "dtype": "bfloat16"}
            times = {"seconds": 2.0 + seed, "encode_seconds": 1.5 + seed}
            place = {"model": model, "role": role, "seed": seed, "suite": "smoke", "task": task}
            rows.append({**place, "instruction": f"Do {task}", **counts, **times})
    return pd.DataFrame(rows)


def study(
    *,
    scores: Callable[[], pd.DataFrame] = scores,
    reports: Callable[[str], dict[tuple[str, str], Report]] | None = None,
    ceilings: Callable[[str], dict[str, Report]] | None = None,
    policy: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
) -> Any:
    """A study in which RLVR keeps the geometry, changes neighbours, and SFT moves more.

    Args:
        scores: instead of the scores made here; the other arguments likewise.
        reports: by kind of model, 'backbone' or 'embedding'.
        ceilings: by kind of model.
        policy: behaviour of the checkpoints.
        drift: similarity of the checkpoints to base.
    """
    steps = {"reason": (4, 16, 36), "sft": (36,)}
    states = [{"role": "base", "step": 0, "sampled": 0.14, "kl": 0.0}]
    states += [
        {"role": r, "step": s, "sampled": 0.14 + 0.007 * s, "kl": 0.01 * s} for r in steps for s in steps[r]
    ]
    behaviour = pd.DataFrame(
        {"role": p["role"], "step": p["step"], "entropy": 1 - p["sampled"], "kl": p["kl"], "n": 200}
        | {
            f"{m}_{d}{e}": p["kl"] / 2
            for m in ("js", "kl")
            for d in ("task", "neutral")
            for e in ("", "_low", "_high")
        }
        | {f"accuracy_{m}": p["sampled"] for m in ("greedy", "sampled")}
        | {f"accuracy_{m}_low": p["sampled"] - 0.03 for m in ("greedy", "sampled")}
        | {f"accuracy_{m}_high": p["sampled"] + 0.03 for m in ("greedy", "sampled")}
        for p in states
    )
    moved = pd.DataFrame(
        {"role": r, "step": s, "metric": m, "at": at, "value": 1 - 0.002 * s}
        | {"low": 0.99 - 0.002 * s, "high": 1.0}
        for r in steps
        for s in steps[r]
        for m in ("cka", "knn@5", "knn@10", "correlation", "probe_transfer")
        for at in (("mean", "last") if m != "probe_transfer" else ("mean",))
    )
    logs = pd.DataFrame(
        {"role": r, "seed": seed, "step": s, "loss": 3 / s, "learning_rate": 1e-5, "grad_norm": 1 / s}
        | {"accuracy": 1 - 1 / s, "tokens_per_second": 400.0, "padding_share": 0.1, "memory_gib": 2.0}
        | {"alignment": 1 / s, "uniformity": -s, "reward": 0.1 * s, "entropy": 1 / s}
        for r in ("base", "reason", "sft")
        for seed in range(3)
        for s in range(1, 6)
    )
    made = pd.DataFrame(
        [{"artifact": "x", "stage": "compare", "key": "abc", "source": "local", "seconds": 90.0}]
    )
    alignment = pd.DataFrame(
        {"role": role, "trained": trained, "language": x, "metric": metric, "layer": layer}
        | {"value": 0.5, "low": 0.4, "high": 0.6}
        for role, trained in (("base", False), ("reason", False), ("sft", False), ("base", True))
        for x in ("fr", "ja")
        for metric in ("cka", "knn@5", "knn@10", "correlation")
        for layer in (0, 3, 6)
    )
    where = [("base", "backbone", 0), ("reason", "backbone", 4), ("reason", "backbone", 36)]
    where += [("sft", "backbone", 36), ("base", "embedding", 0), ("reason", "embedding", 0)]
    places = pd.DataFrame(
        {"role": r, "kind": kind, "number": n, "x": 0.1 * i, "y": 0.01 * i, "x_error": 0.01, "y_error": 0.02}
        for i, (r, kind, n) in enumerate(where)
    )
    pairs = {("base", "reason"): report(0.97), ("base", "sft"): report(0.7)}
    after = {("base", "reason"): report(0.95), ("base", "sft"): report(0.85)}
    limits = {
        "backbone": {"another precision and batch size": report(0.995)},
        "embedding": {"another seed": report(0.99)},
    }
    kinds = {
        kind: {
            pair: replicates.calibrate(each, report(0.0), *limits[kind].values())
            for pair, each in held.items()
        }
        for kind, held in {"backbone": pairs, "embedding": after}.items()
    }
    kinds["same seed"] = kinds["embedding"]
    stages = {
        "evaluate": SimpleNamespace(scores=scores, items=items, reading=reading),
        "compare": SimpleNamespace(
            reports=reports or kinds.__getitem__, ceilings=ceilings or limits.__getitem__
        ),
        "policy": SimpleNamespace(frame=lambda: behaviour if policy is None else policy),
        "drift": SimpleNamespace(
            frame=lambda: moved if drift is None else drift,
            modes=lambda: {"bidirectional": pairs, "causal": after},
        ),
        "languages": SimpleNamespace(frame=lambda: alignment),
        "map": SimpleNamespace(frame=lambda: places),
        "training_log": SimpleNamespace(frame=lambda: logs),
        "tuning_log": SimpleNamespace(frame=lambda table="log": logs[logs["role"] != "base"]),
        **mechanism(),
    }
    configuration = {"name": "laptop", "recipe": {"temperature": 0.02}, "hrsa": {"k": [5, 10]}}
    return SimpleNamespace(
        profile=SimpleNamespace(name="laptop", margin=1.0, suites=("smoke",)),
        provenance=lambda: made,
        configuration=lambda: configuration | {"seeds": (0, 1, 2)},
        **stages,
    )
