from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import book_frames
import numpy as np
import pandas as pd
import pytest
from book_frames import report, study

from realign import config, paths
from realign.display import verdicts
from realign.errors import UsageError
from realign.findings import claims
from realign.findings.measures import MEASURES, Estimate
from realign.hrsa import Report


def verdict(name: str, **changes: Any) -> str:
    return str(claims.claims(study(**changes), [name])["verdict"].iloc[0])


def pairs(reason: float, sft: float = 0.7) -> dict[tuple[str, str], Report]:
    return {("base", "reason"): report(reason), ("base", "sft"): report(sft)}


def kinds(backbone: dict[Any, Any], embedding: dict[Any, Any]) -> dict[str, Any]:
    return {"reports": {"backbone": backbone, "embedding": embedding}.__getitem__}


def test_every_claim_of_the_paper_is_judged_once() -> None:
    frame = claims.claims(study())
    assert frame["claim"].tolist() == [f"C{i}" for i in range(1, 8)]
    assert set(frame["verdict"]) <= {"holds", "does not hold", "inconclusive", "not tested here"}
    assert all(len(line) > 20 for evidence in frame["evidence"] for line in verdicts.sentences(evidence))


@pytest.mark.parametrize(
    ("shift", "noise", "expected"),
    [
        (1.8, 0.02, "does not hold"),
        (-1.8, 0.02, "does not hold"),
        (0.9, 1.5, "inconclusive"),
    ],
)
def test_null_effect_needs_the_whole_interval_inside_the_margin(
    shift: float, noise: float, expected: str
) -> None:
    scores = book_frames.scores(reason=shift, noise=noise, by_seed=0.0)
    assert verdict("C1", scores=lambda: scores) == expected


def test_null_effect_is_not_claimed_from_one_seed() -> None:
    assert verdict("C1", scores=lambda: book_frames.scores(seeds=1)) == "inconclusive"


def shifted(role: str, size: float) -> pd.DataFrame:
    """Scores of an unmoved reason and sft but for one arm, whose tasks shift apart by ``size``."""
    scores = book_frames.scores(reason=0.0, sft=0.0, noise=0.01, by_seed=0.0)
    sign = np.where(scores["task"].str.endswith("0"), 1.0, -1.0)
    scores["score"] += size * sign * ((scores["model"] == "emb") & (scores["role"] == role))
    return scores


def test_null_effect_holds_when_the_tasks_of_sft_shift_apart_and_fails_when_those_of_reason_do() -> None:
    # opposite shifts of two tasks: the means of the suites stay where they are
    assert verdict("C1", scores=lambda: shifted("sft", 0.8)) == "holds"
    assert verdict("C1", scores=lambda: shifted("reason", 0.8)) == "does not hold"


def test_failed_task_leaves_the_null_effect_open() -> None:
    scores = book_frames.scores()
    scores.loc[(scores["role"] == "reason") & (scores["seed"] == 0), "score"] = np.nan
    assert verdict("C1", scores=lambda: scores) == "inconclusive"


@pytest.mark.parametrize(
    ("similarity", "expected"), [(0.97, "holds"), (0.905, "does not hold"), (0.5, "does not hold")]
)
def test_global_preservation_needs_geometry_and_readout(similarity: float, expected: str) -> None:
    # At 0.905 the interval of CKA straddles 0.90, but the probe transfer is clearly below 0.95.
    assert verdict("C2", **kinds(pairs(similarity), pairs(0.9))) == expected


def test_straddling_interval_is_inconclusive() -> None:
    close = report(0.955)  # CKA passes; transfer 0.955 +- 0.01 straddles 0.95
    assert verdict("C2", **kinds({("base", "reason"): close}, {})) == "inconclusive"


def local(similarity: float, neighbours: float) -> dict[tuple[str, str], Report]:
    return {("base", "reason"): report(similarity, neighbours), ("base", "sft"): report(0.9)}


def test_local_reorganisation_is_below_global_change_and_irreversible_below_two_seeds_of_base() -> None:
    assert verdict("C3", **kinds(local(0.97, 0.6), local(0.97, 0.9))) == "holds"
    assert verdict("C3", **kinds(local(0.6, 0.97), local(0.97, 0.9))) == "does not hold"
    # after contrastive learning, as alike as two seeds of base (1 on the calibrated scale)
    assert verdict("C3", **kinds(local(0.97, 0.6), local(0.97, 1.0))) == "inconclusive"
    assert verdict("C3", **kinds(local(0.97, 0.6), local(0.97, 1.05))) == "does not hold"


def along(change: float, noise: float = 0.001) -> pd.DataFrame:
    """Last-layer similarities that change by ``change`` for each doubling of the steps."""
    return pd.DataFrame(
        {"role": "reason", "step": step, "metric": metric, "at": "last", "value": 0.99 + change * doublings}
        | {"low": 0.99 + change * doublings - noise, "high": 0.99 + change * doublings + noise}
        for doublings, step in enumerate((25, 50, 100, 200))
        for metric in ("correlation", "diagonal_energy", "inverse_row_entropy", "cka")
    )


@pytest.mark.parametrize(
    ("change", "noise", "expected"),
    [
        (-0.01, 0.001, "holds"),
        (-0.01, 0.1, "inconclusive"),
        (0.0, 0.001, "inconclusive"),
        (0.01, 0.001, "does not hold"),
    ],
)
def test_the_basis_drifts_when_it_falls_along_the_run(change: float, noise: float, expected: str) -> None:
    drifted = kinds(pairs(0.9), pairs(0.9))
    assert verdict("C4", **drifted, drift=along(change, noise)) == expected


def test_a_slope_is_the_change_for_each_doubling_with_the_error_of_independent_points() -> None:
    (slope,) = MEASURES["slope of last-layer correlation along reason"](study(drift=along(-0.02, 0.003)))
    assert slope.value == pytest.approx(-0.02)
    weights = np.array([-1.5, -0.5, 0.5, 1.5]) / 5
    assert slope.high - slope.value == pytest.approx(0.003 * np.linalg.norm(weights))
    assert slope.value - slope.low == pytest.approx(slope.high - slope.value)


def test_prolonged_training_is_not_tested_by_a_short_run() -> None:
    short = along(-0.01)
    assert (
        verdict("C4", **kinds(pairs(0.9), pairs(0.9)), drift=short[short["step"] < 200]) == "not tested here"
    )


def test_a_ratio_keeps_relative_errors() -> None:
    ratio = Estimate(2.0, 1.8, 2.2).over(Estimate(4.0, 3.9, 4.1))
    assert ratio.value == 0.5
    assert ratio.high / 0.5 == pytest.approx(np.exp(np.hypot(np.log(1.1), np.log(4 / 3.9))))
    assert np.isnan(Estimate(1.0, 0.0, 2.0).over(Estimate(1.0, 0.5, 2.0)).value)


@pytest.mark.parametrize(
    ("sft", "expected"), [(0.7, "holds"), (0.97, "inconclusive"), (0.99, "does not hold")]
)
def test_restructuring_compares_the_two_siblings(sft: float, expected: str) -> None:
    change = kinds(pairs(0.92 if sft == 0.99 else 0.97, sft), pairs(0.9))
    assert verdict("C5", **change) == expected


def test_realignment_wants_aligned_but_locally_different_models() -> None:
    aligned = {("base", "reason"): report(0.97, 0.6), ("base", "sft"): report(0.9, 0.6)}
    assert verdict("C6", **kinds(pairs(0.8), aligned)) == "holds"
    assert verdict("C6", **kinds(pairs(0.97), aligned)) == "does not hold"  # it was aligned before
    assert verdict("C6", **kinds(pairs(0.8), pairs(1.05))) == "does not hold"


def test_missing_sibling_is_not_tested() -> None:
    only = {("base", "reason"): report(0.97)}
    assert verdict("C5", **kinds(only, only)) == "not tested here"


def test_mechanism_needs_behaviour_to_move() -> None:
    assert verdict("C7") == "holds"
    still = study().policy.frame()
    for column in [c for c in still if c.startswith("accuracy")]:
        still[column] = 0.14
    assert verdict("C7", policy=still) == "does not hold"


def test_paired_difference_uses_the_texts_that_both_reports_share() -> None:
    # Each interval is wide (texts differ much), the difference is sure: all texts agree on it.
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.02, (book_frames.LAYERS, 40))
    common -= common.mean(axis=1, keepdims=True)

    def wide(similarity: float) -> Report:
        made = report(similarity, width=0.3)
        made.meta["influence_layers"] = {"cka:no_sinks": list(range(book_frames.LAYERS))}
        made.influence = {"cka:no_sinks": common.astype(np.float32)}
        return made

    both = {("base", "reason"): wide(0.95), ("base", "sft"): wide(0.90)}
    part = claims.load()["C5"].parts[0]
    evidence = claims.judge_part(part, study(**kinds(both, both)))
    assert evidence.verdict == "holds", evidence
    for made in both.values():
        made.influence = {}
    assert claims.judge_part(part, study(**kinds(both, both))).verdict == "inconclusive"


def test_unknown_claim_and_unknown_measure_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown claim 'C9'.*did you mean"):
        claims.claims(study(), ["C9"])
    path = tmp_path / "claims.toml"
    text = '[C1]\nrq = "RQ1"\ntitle = "t"\nstatement = "s"\ncriterion = "c"\n'
    path.write_text(text + '[[C1.parts]]\nmeasure = "luck"\ntest = "above"\nsays = "x"\n')
    with pytest.raises(UsageError, match=r"unknown measure in claims\.toml: C1 'luck'"):
        claims.load(path)


def test_amendments_say_what_changed_and_begin_where_the_rules_were_before(tmp_path: Path) -> None:
    changes = claims.amendments()
    assert changes
    assert all(len(c.before) == 64 and c.what and c.why and c.known and c.claims for c in changes)
    text = (paths.data() / "claims.toml").read_text().replace('claims = ["C1"]', 'claims = ["C9"]', 1)
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(UsageError, match=r"unknown claim in an amendment of claims\.toml 'C9'"):
        claims.amendments(tmp_path / "claims.toml")


def test_published_results_were_made_under_the_rules_or_under_those_that_an_amendment_replaced() -> None:
    """The freeze: a rule that changes after a result was made needs an amendment."""
    allowed = {config.rules_digest(), *(change.before for change in claims.amendments())}
    manifests = [json.loads(f.read_text()) for f in (paths.data() / "results").glob("*/*/manifest.json")]
    assert manifests
    assert {m["rules"] for m in manifests if m.get("rules")} <= allowed


def test_the_digest_of_the_rules_changes_with_a_rule_and_not_with_an_amendment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (paths.data() / "claims.toml").read_text()
    monkeypatch.setattr(paths, "data", lambda: tmp_path)
    digests = []
    for changed in (
        text,
        text.replace("date = 2026-11-25", "date = 2026-11-26"),
        text.replace("0.95", "0.9"),
    ):
        (tmp_path / "claims.toml").write_text(changed)
        digests.append(config.rules_digest())
    assert digests[0] == digests[1] != digests[2]
