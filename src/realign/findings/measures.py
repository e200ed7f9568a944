"""What the rules of data/claims.toml may speak of: named measures of a study, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from realign import hrsa
from realign.findings import scores
from realign.findings.similarity import text_sets
from realign.hrsa import METRICS, Report, replicates
from realign.hrsa.report import CALIBRATED

if TYPE_CHECKING:
    from realign.study import Study

KINDS = ("backbone", "embedding")
ROLES = ("reason", "sft")
NAMES = {
    "cka": "CKA",
    "knn": "k-NN overlap",
    "correlation": "correlation",
    "diagonal_energy": "diagonal energy",
    "inverse_row_entropy": "inverse row entropy",
}
"""How claims.toml calls a metric, where that is not the metric's title."""


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

    def over(self, other: Estimate) -> Estimate:
        """Ratio of two positive estimates; errors are combined as independent on a logarithmic scale."""
        ends = (self.value, self.low, self.high, other.value, other.low, other.high)
        if not min(ends) > 0:
            return Estimate(*[math.nan] * 3)
        value, mine, theirs = self.value / other.value, self, other
        down = math.hypot(math.log(mine.value / mine.low), math.log(theirs.high / theirs.value))
        up = math.hypot(math.log(mine.high / mine.value), math.log(theirs.value / theirs.low))
        return Estimate(value, value * math.exp(-down), value * math.exp(up))


AT: dict[Literal["mean", "last"], str] = {"mean": "", "last": "last-layer "}

Measure = Callable[["Study"], list[Estimate]]
"""Returns nothing where the study has not measured it, and one estimate a suite where there are several."""


def _estimate(row: pd.Series) -> Estimate:
    value = float(row["value"])
    low, high = (float(row[c]) if math.isfinite(row[c]) else value for c in ("low", "high"))
    return Estimate(value, low, high)


@dataclass(frozen=True)
class PairSimilarity:
    """A metric between base and a role, raw or on the way from unrelated texts (0) to a replicate (1)."""

    metric: str
    kind: str
    role: str
    at: Literal["mean", "last"] = "mean"
    calibrated: bool = False

    def sets(self, report: Report | None) -> list[str | None]:
        """The text sets on which probes tell anything, [None] for a metric of all texts; [] if it is not measured."""
        if report is None or self.metric not in report.metrics:
            return []
        return [name for name, flag in text_sets(report, self.metric).items() if not flag]

    def report(self, study: Study) -> Report | None:
        """Return the HRSA report that holds this similarity, or None where there is none."""
        return study.compare.reports(self.kind).get(("base", self.role))

    def __call__(self, study: Study) -> list[Estimate]:
        """Return the mean over layers or the last layer, one for each text set; empty if not measured."""
        report = self.report(study)
        columns = list(CALIBRATED) if self.calibrated else ["value", "low", "high"]
        return [
            Estimate(*replicates.overall(report, self.metric, self.at, variant=variant)[columns])
            for variant in self.sets(report)
            if report is not None
        ]

    def minus(self, other: PairSimilarity, study: Study) -> list[Estimate]:
        """Difference to another similarity; of the raw metric of two pairs, texts, seeds and runs are paired."""
        mine, theirs = self.report(study), other.report(study)
        if mine is None or theirs is None:
            return []
        independent = [a.minus(b) for a, b in zip(self(study), other(study), strict=False)]
        if self.calibrated or other.calibrated or self.metric != other.metric:
            return independent
        layer = mine.layers - 1 if self.at == "last" and METRICS[self.metric].level != "function" else None
        gaps = []
        for variant in self.sets(mine):
            if variant in other.sets(theirs):
                try:
                    gap = hrsa.difference(mine, theirs, mine.reference_id(self.metric, variant), layer=layer)
                except ValueError:  # other texts, or a metric without influences
                    return independent
                gaps.append(Estimate(gap.value, gap.low, gap.high))
        return gaps


def _slope(metric: str, role: str) -> Measure:
    """Change of a last-layer similarity to base for each doubling of the tuning steps, by least squares.

    The errors of the checkpoints are combined as independent; they read the same texts, so the truth is narrower.
    """

    def measure(study: Study) -> list[Estimate]:
        frame = study.drift.frame()
        if frame.empty:
            return []
        mine = frame[(frame["role"] == role) & (frame["metric"] == metric) & (frame["at"] == "last")]
        if mine["step"].nunique() < 3:
            return []
        x = np.log2(mine["step"].to_numpy(dtype=float))
        weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        value, low, high = (mine[name].to_numpy(dtype=float) for name in ("value", "low", "high"))
        slope, below, above = float(weights @ value), value - low, high - value
        down = math.sqrt(float((np.where(weights > 0, below, above) ** 2 * weights**2).sum()))
        up = math.sqrt(float((np.where(weights > 0, above, below) ** 2 * weights**2).sum()))
        return [Estimate(slope, slope - down, slope + up)]

    return measure


def _shift_per_behaviour(role: str) -> Measure:
    """Landscape shift over next-token divergence (bits), on the same texts that base wrote; one estimate a domain."""

    def measure(study: Study) -> list[Estimate]:
        frame = study.landscape.frame()
        mine = frame[frame["role"] == role]
        shift, change = (
            mine[mine["measure"] == name].set_index("domain")[["value", "low", "high"]]
            for name in ("landscape shift", "next-token divergence (bits)")
        )
        both = [domain for domain in shift.index if domain in change.index]
        return [Estimate(*shift.loc[d]).over(Estimate(*change.loc[d])) for d in both]

    return measure


def _suite_deltas(arm: str) -> Measure:
    """Difference of an arm to base on the fixed tasks of each suite, with its 90% interval; NaN where it is not known."""

    def measure(study: Study) -> list[Estimate]:
        table = study.evaluate.scores()
        if arm not in set(scores.trained_scores(table, table.iloc[:0])["arm"]):
            return []
        tests = scores.equivalence(table, study.evaluate.items(), study.profile.margin)
        known = tests[(tests["arm"] == arm) & tests["identified"]].set_index("suite")
        ends = known[["delta", "low", "high"]].reindex(pd.unique(table["suite"]))
        return [Estimate(*map(float, row)) for row in ends.to_numpy()]

    return measure


def _excess_shift(first: str, second: str) -> Measure:
    """Variance over tasks of the true shifts of the second arm minus that of the first, with its 90% interval."""

    def measure(study: Study) -> list[Estimate]:
        table = study.evaluate.scores()
        if not {first, second} <= set(scores.trained_scores(table, table.iloc[:0])["arm"]):
            return []
        excess = scores.excess_shift(table, study.evaluate.items(), first, second)
        return [Estimate(excess.value, excess.low, excess.high) if excess else Estimate(*[math.nan] * 3)]

    return measure


def _accuracy_gain(role: str) -> Measure:
    """Sampled accuracy (0-1) at the end of tuning minus that of the base."""

    def measure(study: Study) -> list[Estimate]:
        ends = {"": "value", "_low": "low", "_high": "high"}
        columns = {f"accuracy_sampled{end}": name for end, name in ends.items()}
        policy = study.policy.frame().rename(columns=columns)
        base, mine = policy[policy["role"] == "base"], policy[policy["role"] == role].sort_values("step")
        if base.empty or mine.empty:
            return []
        return [_estimate(mine.iloc[-1]).minus(_estimate(base.iloc[0]))]

    return measure


def _measures() -> dict[str, Measure]:
    """Every measure by the name that claims.toml uses."""
    named: dict[str, Measure] = {
        "score delta of reason, every suite": _suite_deltas("reason"),
        "excess variance of task shifts, sft minus reason": _excess_shift("reason", "sft"),
        "gain in sampled accuracy of reason": _accuracy_gain("reason"),
    }
    by_layer = {NAMES.get(m.name, m.title): m.name for m in METRICS.values() if m.level != "function"}
    for role in ROLES:
        named[f"landscape shift for each change of behaviour of {role}"] = _shift_per_behaviour(role)
        for name, metric in by_layer.items():
            named[f"slope of last-layer {name} along {role}"] = _slope(metric, role)
    for kind in KINDS:
        for role in ROLES:
            named[f"{kind} probe transfer to {role}"] = PairSimilarity("probe_transfer", kind, role)
            for name, metric in by_layer.items():
                named[f"{kind} {name} of {role}"] = PairSimilarity(metric, kind, role)
                named[f"{kind} last-layer {name} of {role}"] = PairSimilarity(metric, kind, role, "last")
                for at, where in AT.items():
                    key = f"{kind} calibrated {where}{name} of {role}"
                    named[key] = PairSimilarity(metric, kind, role, at, calibrated=True)
    return named


MEASURES = _measures()
