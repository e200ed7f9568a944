"""Verdicts on the paper's claims, computed from numbers by rules written down in data/claims.toml.

Every part of a claim compares a measure, with its interval, to a threshold: met when the whole interval
is on the right side, missed when it is wholly on the wrong side, open otherwise. A report's number that
has no interval is judged by its value; a difference over training seeds with a single seed stays open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from realign import paths, stats
from realign.config import Config, parse, read_toml
from realign.display import tables
from realign.display.format import Text, between, number
from realign.errors import UsageError, unknown

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "inconclusive", "not tested here"


class Part(Config):
    """One condition of a claim."""

    measure: str
    test: Literal["above", "below", "inside"]
    value: float = 0.0
    minus: str | None = None
    says: str


class Claim(Config):
    """One claim of the paper and the rule it is judged by."""

    rq: str
    title: str
    statement: str
    criterion: str
    needs_steps: int = 0
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval (equal to the number where there is none to give)."""

    value: float
    low: float
    high: float

    def minus(self, other: Estimate) -> Estimate:
        """Difference of two estimates; errors are combined as independent."""
        value = self.value - other.value
        down = math.hypot(self.value - self.low, other.high - other.value)
        up = math.hypot(self.high - self.value, other.value - other.low)
        return Estimate(value, value - down, value + up)

    def __str__(self) -> str:
        size = max(abs(self.low), abs(self.high), abs(self.value))
        digits = 3 if not 0 < size < 0.01 else 5  # a tiny number keeps digits that tell it from zero
        if self.low == self.high:
            return number(self.value, digits)
        return between(self.value, self.low, self.high, digits)


def load(path: Path | None = None) -> dict[str, Claim]:
    """Read the claims; a rule that names an unknown measure is refused.

    Raises:
        UsageError: for a malformed file or an unknown measure.
    """
    path = path or paths.data() / "claims.toml"
    claims = {name: parse(Claim, entry, f"{path.name}: {name}") for name, entry in read_toml(path).items()}
    for name, claim in claims.items():
        for part in claim.parts:
            for measure in filter(None, (part.measure, part.minus)):
                if measure not in MEASURES:
                    raise unknown(f"measure in {path.name}: {name}", measure, MEASURES)
    return claims


# ---------------------------------------------------------------------------- measures
def _report(study: Any, kind: str, role: str) -> Any | None:
    return study.comparisons(kind).get(("base", role))


def _mean(frame: pd.DataFrame) -> list[Estimate]:
    """The mean over layers; layers share texts, so their intervals are averaged and not shrunk."""
    return [] if frame.empty else [_estimate(frame.mean())]


def _last(frame: pd.DataFrame) -> list[Estimate]:
    return [] if frame.empty else [_estimate(frame.iloc[-1])]


def _estimate(row: pd.Series) -> Estimate:
    value = float(row["value"])
    low, high = (float(row[c]) if math.isfinite(row[c]) else value for c in ("low", "high"))
    return Estimate(value, low, high)


Measure = Callable[[Any], list[Estimate]]


@dataclass(frozen=True)
class Similarity:
    """One similarity of two models: of a pair of roles, or of the noise ceiling where role is ''."""

    metric: str
    kind: str
    role: str
    last: bool = False

    def report(self, study: Any) -> Any | None:
        """Return the HRSA report that holds this similarity, or None where there is none."""
        if self.role:
            return _report(study, self.kind, self.role)
        return next(iter(study.noise_ceilings("embedding").values()), None)

    def __call__(self, study: Any) -> list[Estimate]:
        """Return the mean over layers (or the last layer) with its interval; empty if not measured."""
        report = self.report(study)
        if report is None:
            return []
        frame = tables.profile(report, self.metric)
        return _last(frame) if self.last else _mean(frame)

    def minus(self, other: Similarity, study: Any) -> list[Estimate]:
        """Difference to another pair; texts are paired where both reports have read the same ones."""
        from realign import hrsa  # brings torch: only where two reports meet

        mine, theirs = self.report(study), other.report(study)
        if mine is None or theirs is None:
            return []
        layer = mine.layers - 1 if self.last else None
        try:
            found = hrsa.difference(mine, theirs, _influence(mine, self.metric), layer=layer)
        except ValueError:  # other texts, or a metric without influences: independent intervals
            return [a.minus(b) for a, b in zip(self(study), other(study), strict=False)]
        return [Estimate(found["value"], found["low"], found["high"])]


def _influence(report: Any, metric: str) -> str:
    """The name that the report's influences give to what :func:`realign.display.tables.profile` shows."""
    if metric == "cka" and "cka_no_sinks" in report.influence:
        return "cka_no_sinks"
    if metric == "knn":
        ks = sorted(set(report.frame("knn")["k"]))
        return f"knn@{ks[len(ks) // 2]}"
    return "procrustes_r2" if metric == "r2" else metric


def _transfer(kind: str, role: str) -> Measure:
    """Accuracy of base's probe on the other model over that of the other model's own probe."""

    def measure(study: Any) -> list[Estimate]:
        report = _report(study, kind, role)
        if report is None:
            return []
        rows = report.frame("probe_controls").query("control == 'transfer_ratio' and direction == 'a->b'")
        return [] if rows.empty else [_estimate(rows[["value", "low", "high"]].mean())]

    return measure


def _suite_deltas(role: str) -> Measure:
    def measure(study: Any) -> list[Estimate]:
        frame = tables.deltas(study.scores(), "suite")
        mine = frame[frame["role"] == role]
        return [Estimate(*map(float, row)) for row in mine[["delta", "low", "high"]].to_numpy()]

    return measure


def _task_shift(role: str) -> Measure:
    """Mean over tasks of |delta|, with a 90% interval over tasks."""

    def measure(study: Any) -> list[Estimate]:
        frame = tables.deltas(study.scores(), "task")
        sizes = frame.loc[frame["role"] == role, "delta"].abs().to_numpy()
        if not sizes.size:
            return []
        known = bool(np.isfinite(sizes).all())
        interval = stats.bootstrap_mean(sizes, level=0.90) if known else (math.nan, math.nan)
        return [Estimate(float(sizes.mean()), *interval)]

    return measure


def _accuracy_gain(role: str) -> Measure:
    def measure(study: Any) -> list[Estimate]:
        policy = study.policy().rename(columns={"accuracy_sampled": "value"})
        policy = policy.rename(columns={"accuracy_sampled_low": "low", "accuracy_sampled_high": "high"})
        base, mine = policy[policy["role"] == "base"], policy[policy["role"] == role].sort_values("step")
        if base.empty or mine.empty:
            return []
        return [_estimate(mine.iloc[-1]).minus(_estimate(base.iloc[0]))]

    return measure


MEASURES: dict[str, Measure] = {
    "score delta of reason, every suite": _suite_deltas("reason"),
    "mean absolute task delta of reason": _task_shift("reason"),
    "mean absolute task delta of sft": _task_shift("sft"),
    "gain in sampled accuracy of reason": _accuracy_gain("reason"),
    "noise ceiling of k-NN overlap": Similarity("knn", "embedding", ""),
}
for _kind in ("backbone", "embedding"):
    for _role in ("reason", "sft"):
        MEASURES |= {
            f"{_kind} CKA of {_role}": Similarity("cka", _kind, _role),
            f"{_kind} k-NN overlap of {_role}": Similarity("knn", _kind, _role),
            f"{_kind} last-layer correlation of {_role}": Similarity("correlation", _kind, _role, last=True),
            f"{_kind} last-layer diagonal energy of {_role}": Similarity(
                "diagonal_energy", _kind, _role, last=True
            ),
            f"{_kind} probe transfer to {_role}": _transfer(_kind, _role),
        }


# ---------------------------------------------------------------------------- verdicts
def judge_part(part: Part, study: Any) -> tuple[str, str]:
    """Return the verdict on one part and the evidence for it in words."""
    estimates = _measured(part, study)
    if not estimates:
        return UNTESTED, f"{part.says}: not measured"
    margin = float(study.profile.margin) if part.test == "inside" else 0.0
    verdict = _combine(_one(part, estimate, margin) for estimate in estimates)
    shown = "; ".join(map(str, estimates))
    difference = "difference " if part.minus else ""
    wanted = f"inside ±{margin:g}" if part.test == "inside" else f"{part.test} {part.value:g}"
    word = {HOLDS: "met", FAILS: "missed", OPEN: "open"}[verdict]
    return verdict, f"{part.says}: {difference}{shown}, wanted {wanted}: {word}"


def _measured(part: Part, study: Any) -> list[Estimate]:
    measure = MEASURES[part.measure]
    if part.minus is None:
        return measure(study)
    other = MEASURES[part.minus]
    if isinstance(measure, Similarity) and isinstance(other, Similarity):
        return measure.minus(other, study)
    return [a.minus(b) for a, b in zip(measure(study), other(study), strict=False)]


def _one(part: Part, estimate: Estimate, margin: float) -> str:
    low, high = estimate.low, estimate.high
    if not np.isfinite([estimate.value, low, high]).all():
        return OPEN
    if part.test == "inside":
        return HOLDS if -margin < low and high < margin else FAILS if low > margin or high < -margin else OPEN
    if part.test == "above":
        return HOLDS if low > part.value else FAILS if high <= part.value else OPEN
    return HOLDS if high < part.value else FAILS if low >= part.value else OPEN


def _combine(verdicts: Iterable[str]) -> str:
    """All met: holds. One missed: does not hold. Nothing measured: not tested. Else inconclusive."""
    found = list(verdicts)
    if FAILS in found:
        return FAILS
    if all(v == HOLDS for v in found):
        return HOLDS
    return UNTESTED if all(v == UNTESTED for v in found) else OPEN


def judge(name: str, claim: Claim, study: Any) -> dict[str, str]:
    """Return one row: claim, rq, title, statement, criterion, verdict, evidence."""
    parts = [judge_part(part, study) for part in claim.parts]
    verdict, evidence = _combine(v for v, _ in parts), [text for _, text in parts]
    if claim.needs_steps and verdict != UNTESTED:
        drift = study.drift()
        steps = int(drift.loc[drift["role"] == "reason", "step"].max()) if not drift.empty else 0
        if steps < claim.needs_steps:
            verdict = UNTESTED
            evidence.insert(0, f"{steps} RLVR steps here, the claim needs {claim.needs_steps}")
    row = {"claim": name, "rq": claim.rq, "title": claim.title, "statement": claim.statement}
    return row | {"criterion": claim.criterion, "verdict": verdict, "evidence": "\n".join(evidence)}


def claims(study: Any, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Judge the claims on a study's numbers; computes only what the named claims need.

    Args:
        study: of :func:`realign.study.study`.
        names: for example ["C1"]; None is all.

    Returns:
        Frame: claim, rq, title, statement, criterion, verdict, evidence.

    Raises:
        UsageError: for an unknown claim.
    """
    known = load()
    wanted = list(known if names is None else names)
    for name in wanted:
        if name not in known:
            raise unknown("claim", name, known)
    if not wanted:
        raise UsageError("no claim was named: give at least one, for example 'C1'")
    return pd.DataFrame([judge(name, known[name], study) for name in wanted])


def verdict(study: Any, *names: str) -> Text:
    """Return the generated statement that closes a chapter, as Markdown."""
    rows = claims(study, names)
    return Text("\n\n".join(map(_statement, rows.to_dict("records"))))


def _statement(row: dict[Any, Any]) -> str:
    evidence = "\n".join(f"- {part}" for part in row["evidence"].splitlines())
    return (
        f"**{row['claim']} ({row['title']}): {row['verdict']}.** {row['statement']}\n\n"
        f"*Criterion, set in advance:* {row['criterion']}\n\n{evidence}"
    )
