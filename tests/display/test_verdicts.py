"""What pages say in words: every sentence rests on the numbers that it states."""

from __future__ import annotations

import html

import pytest
from book_frames import study

from realign.display import verdicts
from realign.findings import claims
from realign.findings.claims import OPEN, UNTESTED, Evidence, Part, TooFewSteps
from realign.findings.measures import Estimate


def test_verdict_states_the_numbers_it_rests_on() -> None:
    text = str(verdicts.verdict(study(), "C2"))
    assert text.startswith("**C2 (")
    assert "holds" in text
    assert "0.970 [0.960, 0.980], wanted above 0.95: met" in text


def test_markup_in_the_claims_file_reaches_a_chapter_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claims.load()["C2"]
    marked = claim.model_copy(update={"title": "<script>x</script>", "criterion": "[a](b) *c*"})
    monkeypatch.setattr(claims, "load", lambda path=None: {"C2": marked})
    text = str(verdicts.verdict(study(), "C2"))
    assert "<script>" not in text
    assert "[a](b)" not in text
    assert "<script>x</script>" in html.unescape(text)


def test_evidence_says_what_was_wanted_what_was_measured_and_whether_it_is_met() -> None:
    inside = Part(measure="m", test="inside", says="alike")
    suites = (Estimate(0.5, -0.2, 1.2), Estimate(0.001, 0.001, 0.001))
    minus = Part(measure="m", minus="n", test="below", value=-0.01, says="lower")
    assert verdicts.sentences(
        [
            TooFewSteps(36, 200),
            Evidence(inside, suites, 1.0, OPEN),
            Evidence(minus, suites[:1], 0.0, OPEN),
            Evidence(minus, (), 0.0, UNTESTED),
        ]
    ) == [
        "36 RLVR steps here, the claim needs 200",
        "alike: 0.500 [-0.200, 1.200]; 0.00100, wanted inside ±1: open "
        "(with a margin above 1.200 it would be met, up to 0.001 missed)",
        "lower: difference 0.500 [-0.200, 1.200], wanted below -0.01: open "
        "(with a threshold above 1.200 it would be met, up to -0.200 missed)",
        "lower: not measured",
    ]
