"""What a page says in words, made from numbers alone: verdicts with their evidence, and what training achieved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pandas as pd

from realign import stats
from realign.display.format import Text, between, number
from realign.display.markdown import escape
from realign.findings import claims, scores
from realign.findings.claims import FAILS, HOLDS, OPEN, Evidence, TooFewSteps
from realign.findings.measures import Estimate

if TYPE_CHECKING:
    from realign.study import Study

_OUTCOME = {HOLDS: "met", FAILS: "missed", OPEN: "open"}


def verdict(study: Study, *names: str) -> Text:
    """Return the generated statement that closes a chapter, as Markdown.

    Args:
        study: of :func:`realign.study.open_study`.
        names: of the claims, for example "C1".
    """
    parts = []
    for row in claims.claims(study, names).itertuples():
        title, statement, criterion = map(escape, (row.title, row.statement, row.criterion))
        evidence = "\n".join(f"- {sentence}" for sentence in sentences(row.evidence, escape))
        parts.append(
            f"**{row.claim} ({title}): {row.verdict}.** {statement}\n\n"
            f"*Criterion, set in advance:* {criterion}\n\n{evidence}"
        )
    return Text("\n\n".join(parts))


def sentences(evidence: Iterable[Evidence | TooFewSteps], text: Callable[[str], str] = str) -> list[str]:
    """Write each piece of evidence: what was wanted, what was measured, and whether that meets it.

    Args:
        evidence: of a claim.
        text: how the words of the claims file are written, for example escaped.
    """
    return [_sentence(each, text) for each in evidence]


def _sentence(evidence: Evidence | TooFewSteps, text: Callable[[str], str]) -> str:
    if isinstance(evidence, TooFewSteps):
        return f"{evidence.steps} RLVR steps here, the claim needs {evidence.needed}"
    part = evidence.part
    says = text(part.says)
    if not evidence.estimates:
        return f"{says}: not measured"
    measured = ("difference " if part.minus else "") + "; ".join(map(_estimate, evidence.estimates))
    inside = part.test == "inside"
    wanted = f"inside ±{evidence.margin:g}" if inside else f"{part.test} {part.value:g}"
    return f"{says}: {measured}, wanted {wanted}: {_OUTCOME[evidence.verdict]}{_with_another_threshold(evidence)}"


def _with_another_threshold(evidence: Evidence) -> str:
    """Say for which margin or threshold all estimates would meet a part, and for which one would miss it."""
    test = evidence.part.test
    ends = [(e.low, e.high) for e in evidence.estimates]
    if not all(map(math.isfinite, itertools.chain(*ends))):
        return ""
    curves = [stats.verdict_curve(low, high, test).set_index("verdict") for low, high in ends]
    holds = [c.loc["holds"] for c in curves if "holds" in c.index]
    fails = [c.loc["fails"] for c in curves if "fails" in c.index]
    digits = _digits(*itertools.chain(*ends))
    if test == "above":
        met = f"below {number(min(h['stop'] for h in holds), digits)}"
        missed = f"from {number(min(f['start'] for f in fails), digits)} on"
    else:
        met = f"above {number(max(h['start'] for h in holds), digits)}"
        missed = f"up to {number(max(f['stop'] for f in fails), digits)}" if fails else "never"
    name = "margin" if test == "inside" else "threshold"
    return f" (with a {name} {met} it would be met, {missed} missed)"


def _digits(*values: float) -> int:
    """Digits after the point; tiny numbers keep those that tell them from zero."""
    return 3 if not 0 < max(map(abs, values)) < 0.01 else 5


def _estimate(estimate: Estimate) -> str:
    digits = _digits(estimate.low, estimate.high, estimate.value)
    if estimate.low == estimate.high:
        return number(estimate.value, digits)
    return between(estimate.value, estimate.low, estimate.high, digits)


def training_effect(table: pd.DataFrame) -> Text:
    """Say in two sentences what training achieved here and what it did not.

    Args:
        table: the frame of ``study.evaluate.scores()``.
    """
    gains, bm25 = scores.gains(table), scores.against_bm25(table)
    if gains.empty:
        return Text("No trained model has an untrained backbone to be compared with.")
    text = (
        f"Training lifts the mean of a suite in {int((gains['gain'] > 0).sum())} of {len(gains)} cases "
        "(role and suite)"
    )
    clear = gains["low"] > 0
    if gains["low"].isna().all():
        text += " (one seed: no interval)"
    else:
        text += f", in {int(clear.sum())} of them by more than the interval over seeds leaves open"
    if clear.any() and not clear.all():
        names = (f"{row.role} on {row.suite}" for row in gains[~clear].itertuples())
        text += f"; not so for {', '.join(names)}"
    return Text(f"{text}.{_hardest_for_bm25(bm25)}")


def _hardest_for_bm25(table: pd.DataFrame) -> str:
    """Say on how many of the tasks where BM25 scores lowest all trained roles beat it; '' without BM25."""
    if table.empty:
        return ""
    name = scores.BASELINES["bm25"]
    least = table.head(math.ceil(len(table) / 3))
    won = least[least.drop(columns=name).gt(least[name], axis=0).all(axis=1)]
    tasks = ", ".join(f"{task} ({score:.1f})" for task, score in won[name].items())
    return (
        f" Of the {len(least)} ranking tasks where shared words help least (the third on which BM25 scores "
        f"lowest), all trained roles beat BM25 on {len(won)}" + (f": {tasks}." if tasks else ".")
    )
