"""Verdicts on the paper's claims, computed from numbers by rules written down in data/claims.toml.

Every part of a claim compares a measure, with its interval, to a threshold: met when the whole interval
is on the right side, missed when it is wholly on the wrong side, open otherwise. A report's number that
has no interval is judged by its value; a difference over training seeds with a single seed stays open.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from realign import paths
from realign.config import AMENDMENTS, Config, parse, read_toml
from realign.errors import UsageError, unknown
from realign.findings.measures import MEASURES, Estimate, PairSimilarity

if TYPE_CHECKING:
    from realign.study import Study

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


class Amendment(Config):
    """A change of rules after results were seen.

    Attributes:
        date: of the change.
        claims: whose rules were changed.
        what: the change.
        why: its reason.
        known: the results that were known.
        before: digest of the rules before it (:func:`realign.config.rules_digest`).
    """

    date: datetime.date
    claims: tuple[str, ...]
    what: str
    why: str
    known: str
    before: str


@dataclass(frozen=True)
class Evidence:
    """One condition and what was measured for it.

    Attributes:
        part: the condition.
        estimates: what was measured, one a suite where there are several; empty: nothing.
        margin: half the width of the interval that 'inside' means, in points.
        verdict: on this condition alone.
    """

    part: Part
    estimates: tuple[Estimate, ...]
    margin: float
    verdict: str


@dataclass(frozen=True)
class TooFewSteps:
    """Why a claim about prolonged training is not tested: the steps of RLVR made here, and those needed."""

    steps: int
    needed: int


def load(path: Path | None = None) -> dict[str, Claim]:
    """Read the claims; a rule that names an unknown measure is refused.

    Raises:
        UsageError: for a malformed file or an unknown measure.
    """
    path = path or paths.data() / "claims.toml"
    tables = {name: entry for name, entry in read_toml(path).items() if name != AMENDMENTS}
    rules = {name: parse(Claim, entry, f"{path.name}: {name}") for name, entry in tables.items()}
    for name, claim in rules.items():
        for part in claim.parts:
            for measure in filter(None, (part.measure, part.minus)):
                if measure not in MEASURES:
                    raise unknown(f"measure in {path.name}: {name}", measure, MEASURES)
    return rules


def amendments(path: Path | None = None) -> tuple[Amendment, ...]:
    """Read which rules were changed after results were seen, oldest first.

    Raises:
        UsageError: for a malformed entry, or one of a claim that does not exist.
    """
    path = path or paths.data() / "claims.toml"
    known = load(path)
    entries = [parse(Amendment, e, f"{path.name}: amendment") for e in read_toml(path).get(AMENDMENTS, [])]
    for entry in entries:
        for name in entry.claims:
            if name not in known:
                raise unknown(f"claim in an amendment of {path.name}", name, known)
    return tuple(sorted(entries, key=lambda entry: entry.date))


def judge_part(part: Part, study: Study) -> Evidence:
    """Measure one condition and judge it; with several estimates each must meet it."""
    margin = float(study.profile.margin) if part.test == "inside" else 0.0
    estimates = _measured(part, study)
    verdict = _combine(_one(part, estimate, margin) for estimate in estimates) if estimates else UNTESTED
    return Evidence(part, tuple(estimates), margin, verdict)


def _measured(part: Part, study: Study) -> list[Estimate]:
    measure = MEASURES[part.measure]
    if part.minus is None:
        return measure(study)
    other = MEASURES[part.minus]
    if isinstance(measure, PairSimilarity) and isinstance(other, PairSimilarity):
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
    each = list(verdicts)
    if FAILS in each:
        return FAILS
    if all(v == HOLDS for v in each):
        return HOLDS
    return UNTESTED if all(v == UNTESTED for v in each) else OPEN


def judge(claim: Claim, study: Study) -> tuple[str, tuple[Evidence | TooFewSteps, ...]]:
    """Return the verdict on a claim and the evidence for it."""
    parts = tuple(judge_part(part, study) for part in claim.parts)
    verdict = _combine(part.verdict for part in parts)
    if claim.needs_steps and verdict != UNTESTED:
        drift = study.drift.frame()
        steps = int(drift.loc[drift["role"] == "reason", "step"].max()) if not drift.empty else 0
        if steps < claim.needs_steps:
            return UNTESTED, (TooFewSteps(steps, claim.needs_steps), *parts)
    return verdict, parts


def claims(study: Study, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Judge the claims on a study's numbers; computes only what the named claims need.

    Args:
        study: of :func:`realign.study.open_study`.
        names: for example ["C1"]; None is all.

    Returns:
        Frame: claim, rq, title, statement, criterion, verdict, evidence (a tuple of :class:`Evidence`, after
        :class:`TooFewSteps` where tuning was too short).

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
    rows = []
    for name in wanted:
        claim = known[name]
        verdict, evidence = judge(claim, study)
        rows.append(
            {"claim": name, "rq": claim.rq, "title": claim.title, "statement": claim.statement}
            | {"criterion": claim.criterion, "verdict": verdict, "evidence": evidence}
        )
    return pd.DataFrame(rows)
