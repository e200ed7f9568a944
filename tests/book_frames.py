"""A synthetic study of the documented shapes, for the tests of figures, tables and verdicts only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

LAYERS = 7
KS = (5, 10)


class FakeReport:
    """Stands in for hrsa.Report: ``frame(name)`` of the documented columns around one similarity."""

    def __init__(self, similarity: float, dimensions: int = 24, seed: int = 0) -> None:
        self.similarity = similarity
        rng = np.random.default_rng(seed)
        mixed = np.linalg.qr(np.eye(dimensions) + (1 - similarity) * rng.normal(size=(dimensions,) * 2))[0]
        self.rotation = (mixed * np.sign(np.diag(mixed))).astype(np.float16)
        self.meta: dict[str, Any] = {"sample": "same", "resamples": 100, "seed": 0}
        self.influence: dict[str, Any] = {}
        self.layers = LAYERS

    def frame(self, name: str) -> pd.DataFrame:
        return pd.DataFrame(getattr(self, f"_{name}")())

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        return {name: self.frame(name) for name in ("cka_diagonal", "correlation_diagonal", "knn")}

    def _by_layer(self, **columns: Any) -> list[dict[str, Any]]:
        s = self.similarity
        return [
            {"layer": layer, "value": s, "low": s - 0.01, "high": s + 0.01, **columns}
            for layer in range(LAYERS)
        ]

    def _cka(self) -> list[dict[str, Any]]:
        return [
            {"estimator": e, "layer_a": a, "layer_b": b, "value": s, "low": s - 0.01, "high": s + 0.01}
            for e in ("paper", "reference")
            for a in range(LAYERS)
            for b in range(LAYERS)
            for s in [self.similarity * 0.9 ** abs(a - b)]
        ]

    def _correlation(self) -> list[dict[str, Any]]:
        return [row for row in self._cka() if row.pop("estimator") == "paper"]

    def _correlation_diagonal(self) -> list[dict[str, Any]]:
        return self._by_layer()

    def _correlation_histogram(self) -> dict[str, Any]:
        r = np.clip(np.random.default_rng(1).normal(self.similarity, 0.05, 24), -1, 1)
        r[0] = np.nan  # a constant dimension
        return {"dimension": np.arange(24), "r": r}

    def _cka_diagonal(self) -> list[dict[str, Any]]:
        return [
            *self._by_layer(estimator="paper", variant="all"),
            *self._by_layer(estimator="reference", variant="all"),
            *self._by_layer(estimator="reference", variant="no_sinks"),
        ]

    def _knn(self) -> list[dict[str, Any]]:
        s = self.similarity
        return [
            {**row, "k": k, "jaccard": s / (2 - s), "overlap": s, "chance": k / 99, "corrected": s}
            for e in ("paper", "reference")
            for k in KS
            for row in self._by_layer(estimator=e)
        ]

    def _procrustes(self) -> list[dict[str, Any]]:
        quantities = (
            "r2",
            "unrotated_r2",
            "rotated_correlation",
            "cosine",
            "residual_variance",
            "inverse_row_entropy",
            "diagonal_energy",
        )
        return [
            row
            for e in ("paper", "reference")
            for q in quantities
            for row in self._by_layer(estimator=e, quantity=q, null=0.1)
        ]

    def _probe(self) -> list[dict[str, Any]]:
        accuracy = {"a->a": 0.9, "b->b": 0.9, "a->b": 0.9 * self.similarity, "b->a": 0.9 * self.similarity}
        return [
            {"text_set": "docs", "direction": d, "scaler": s, "accuracy": x}
            | {"majority": 0.2, "low": x - 0.005, "high": x + 0.005}
            | {f"{a}_f1{end}": x - 0.01 for a in ("macro", "weighted") for end in ("", "_low", "_high")}
            for d, x in accuracy.items()
            for s in (("source",) if d[0] == d[-1] else ("source", "target"))
        ]

    def _probe_controls(self) -> list[dict[str, Any]]:
        values = {"procrustes": 0.9, "shuffled": 0.15, "transfer_ratio": self.similarity}
        return [
            {"text_set": "docs", "direction": d, "control": c, "value": v, "low": v - 0.01, "high": v + 0.01}
            for d in ("a->b", "b->a")
            for c, v in values.items()
        ]

    def _energy(self) -> list[dict[str, Any]]:
        return [
            {"layer": layer, "model": m}
            | {
                f"{share}{end}": 0.3
                for share in ("top_dimension_share", "top_rows_share")
                for end in ("", "_low", "_high")
            }
            for layer in range(LAYERS)
            for m in ("a", "b")
        ]


def scores(reason: float = 0.1, sft: float = -2.0, seeds: int = 3, noise: float = 0.02) -> pd.DataFrame:
    """Scores of 2 suites x 2 tasks; ``reason`` and ``sft`` are the true shifts against base."""
    rng = np.random.default_rng(0)
    rows = []
    for suite, first in (("laptop-code", 30.0), ("laptop-multilingual", 50.0)):
        for i, kind in enumerate(("Retrieval", "Classification")):
            place = {"suite": suite, "task": f"{suite}-task{i}", "type": kind}
            for role, shift in (("base", 0.0), ("reason", reason), ("sft", sft)):
                for seed in range(seeds):
                    score = first + 10 * i + shift + seed + noise * rng.normal()
                    rows.append({"model": "emb", "role": role, "seed": seed, "score": score, **place})
                rows.append({"model": "untrained", "role": role, "seed": -1, "score": first - 9, **place})
            rows.append({"model": "random", "role": "", "seed": -1, "score": 1.0, **place})
            if kind == "Retrieval":
                rows.append({"model": "bm25", "role": "", "seed": -1, "score": first, **place})
    return pd.DataFrame(rows)


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
        {"role": role, "domain": domain, "measure": measure, "value": much, "low": much - 0.05}
        | {"high": much + 0.05, "null": 0.0}
        for role, much in size.items()
        for domain in ("task", "docs")
        for measure in ("landscape shift", "trajectory distance", "spread", "step length", "occupancy")
    )
    points = pd.DataFrame(
        {"role": role, "domain": domain, "text": text, "token": token, "x": float(text), "y": token / 2}
        for role, domain in (("fixed texts", ""), ("base", "task"), ("reason", "task"), ("sft", "docs"))
        for text in range(3)
        for token in range(4)
    )
    domains = pd.DataFrame(
        {"role": role, "domain": domain, "metric": metric, "value": 1 - much, "low": 0.9 - much, "high": 1.0}
        for role, much in size.items()
        for domain in ("task", "docs", "code")
        for metric in ("cka_mean", "knn@10_mean", "correlation_last")
    )
    return {
        "updates": lambda: updates,
        "update_agreement": lambda: agreement,
        "landscape": lambda table="measures": points if table == "points" else measures,
        "domains": lambda: domains,
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


def study(**changes: Any) -> SimpleNamespace:
    """A study in which RLVR keeps the geometry, changes neighbours, and SFT moves more."""
    steps = {"reason": (4, 16, 36), "sft": (36,)}
    policy = [{"role": "base", "step": 0, "sampled": 0.14, "kl": 0.0}]
    policy += [
        {"role": r, "step": s, "sampled": 0.14 + 0.007 * s, "kl": 0.01 * s} for r in steps for s in steps[r]
    ]
    behaviour = pd.DataFrame(
        {"role": p["role"], "step": p["step"], "entropy": 1 - p["sampled"], "kl": p["kl"], "n": 200}
        | {f"accuracy_{m}": p["sampled"] for m in ("greedy", "sampled")}
        | {f"accuracy_{m}_low": p["sampled"] - 0.03 for m in ("greedy", "sampled")}
        | {f"accuracy_{m}_high": p["sampled"] + 0.03 for m in ("greedy", "sampled")}
        for p in policy
    )
    drift = pd.DataFrame(
        {"role": r, "step": s, "metric": m, "value": 1 - 0.002 * s, "low": 0.99 - 0.002 * s, "high": 1.0}
        for r in steps
        for s in steps[r]
        for m in ("cka_mean", "cka_last", "knn@5_mean", "knn@10_mean", "correlation_last", "probe_transfer")
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
        {"model": m, "language": x, "metric": metric, "layer": layer, "value": 0.5, "low": 0.4, "high": 0.6}
        for m in ("base", "reason", "sft", "base-Emb")
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
    pairs = {("base", "reason"): FakeReport(0.97), ("base", "sft"): FakeReport(0.7)}
    after = {("base", "reason"): FakeReport(0.95), ("base", "sft"): FakeReport(0.85)}
    facts = {
        "profile": SimpleNamespace(name="laptop", margin=1.0, suites=("smoke",)),
        "scores": scores,
        "reading": reading,
        "training_logs": lambda: logs,
        "comparisons": lambda kind: pairs if kind == "backbone" else after,
        "noise_ceilings": lambda kind: (
            {"another seed": FakeReport(0.99)}
            if kind == "embedding"
            else {"bfloat16": FakeReport(0.995), "another batch size": FakeReport(1.0)}
        ),
        "attention_modes": lambda: {"bidirectional": pairs, "causal": after},
        "alignment": lambda: alignment,
        "models_map": lambda: places,
        "drift": lambda: drift,
        "policy": lambda: behaviour,
        **mechanism(),
        "tuning_logs": lambda table="log": logs[logs["role"] != "base"],
        "provenance": lambda: made,
        "configuration": lambda: {
            "name": "laptop",
            "recipe": {"temperature": 0.02},
            "hrsa": {"k": [5, 10]},
            "seeds": (0, 1, 2),
        },
    }
    return SimpleNamespace(**(facts | changes))
