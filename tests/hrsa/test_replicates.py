"""Means over replicates know texts, seeds and runs; calibrated numbers are 0 for unrelated texts and 1 for replicates."""

from dataclasses import replace
from itertools import combinations, permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ortho_group

from realign import hrsa
from realign.hrsa import replicates
from realign.hrsa.geometry import sink_rows
from realign.hrsa.metrics import METRICS
from realign.hrsa.rows import COLUMNS

LAYERS, TEXTS, EACH, WIDTH = 3, 80, 5, 10
SETTINGS = SimpleNamespace(cka_tokens=TEXTS * EACH, knn_tokens=TEXTS * EACH, k=(5,), resamples=20, seed=0)
LABELS = np.arange(TEXTS) % 2


def model(noise, seed, change=lambda x: x):
    """A model that shares its states with every other, but for noise of its own."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(TEXTS), EACH)
    shared = rng.normal(size=(LAYERS, len(ids), WIDTH)) + rng.normal(size=(TEXTS, WIDTH))[ids]
    shared += 1.5 * LABELS[ids][:, None] * np.eye(WIDTH)[0]
    own = noise * np.random.default_rng(seed).normal(size=shared.shape)
    states = change(shared + own).astype(np.float32)
    pooled = states.reshape(LAYERS, TEXTS, EACH, WIDTH).mean(2)
    keys = np.arange(TEXTS, dtype=np.uint64)
    return hrsa.Activations(states, ids, np.arange(len(ids)), np.tile(np.arange(EACH), TEXTS), pooled, keys)


def compared(a, b, **options):
    probe = {"labels": hrsa.Probe(a.pooled[-1], b.pooled[-1], LABELS)}
    return hrsa.compare_activations(a, b, SETTINGS, probes=probe, detail="summary", **options)


@pytest.fixture(scope="module")
def ends():
    base = model(0.3, 1)
    plain = tuple(name for name in METRICS if METRICS[name].level != "function")
    floor = hrsa.compare_activations(
        base, replicates.repaired(model(0.3, 2), 5), SETTINGS, metrics=plain, detail="summary"
    )
    return base, floor, compared(base, model(0.3, 3))


MEASURED = [m.name for m in METRICS.values() if "reference" in m.estimators]


@pytest.mark.parametrize("metric", MEASURED)
def test_a_replicate_is_1_unrelated_texts_are_0_and_a_model_further_off_lies_between(ends, metric):
    base, floor, ceiling = ends
    readout = METRICS[metric].level == "function"
    made = {"replicate": compared(base, model(0.3, 4)), "further": compared(base, model(1.0, 6))}
    if not readout:  # whose floor is known: the most frequent class
        made["unrelated"] = compared(base, replicates.repaired(model(0.3, 7), 8))
    share = {
        name: replicates.overall(replicates.calibrate(r, floor, ceiling), metric, "mean")
        for name, r in made.items()
    }
    near = {name: row["calibrated"] for name, row in share.items()}
    assert near["replicate"] == pytest.approx(1, abs=0.4 if readout else 0.15)
    if not readout:
        assert near["further"] < near["replicate"]
        assert near["unrelated"] == pytest.approx(0, abs=0.15)
        assert near["unrelated"] < near["further"]
        for row in share.values():
            assert row["calibrated_low"] <= row["calibrated"] <= row["calibrated_high"]


TURN = ortho_group.rvs(WIDTH, random_state=0).astype(np.float32)
CHANGES = {
    "orthogonal": lambda x: x @ TURN,
    "axis permutation": lambda x: x[..., ::-1],
    "isotropic scaling": lambda x: 4 * x,
    "translation": lambda x: x + np.linspace(-1, 1, WIDTH),
}


@pytest.mark.parametrize("change", CHANGES)
def test_calibrated_numbers_keep_the_declared_invariances(ends, change):
    base, floor, ceiling = ends
    plain = replicates.calibrate(compared(base, model(1.0, 6)), floor, ceiling)
    changed = replicates.calibrate(compared(base, model(1.0, 6, CHANGES[change])), floor, ceiling)
    for metric in MEASURED:
        if change in METRICS[metric].invariances:
            pair = [replicates.overall(report, metric, "last")["calibrated"] for report in (plain, changed)]
            assert pair[0] == pytest.approx(pair[1], abs=2e-3), metric


def test_a_ceiling_that_is_not_told_apart_from_the_floor_calibrates_nothing(ends):
    base, floor, _ = ends
    same = replicates.calibrate(compared(base, model(1.0, 6)), floor, floor)
    numbers = replicates.overall(same, "cka", "mean")
    assert np.isfinite(numbers["value"])
    assert numbers[["calibrated", "calibrated_low", "calibrated_high"]].isna().all()


def synthetic(value, texts, sample="same"):
    """A report of one metric at one layer: a value, and influences of its texts."""
    row = ["cka", "reference", "", 0, 0, value, value - 0.01, value + 0.01, np.nan, np.nan]
    table = pd.DataFrame([row], columns=COLUMNS)
    return hrsa.Report(
        table, influence={"cka": texts[None].astype(np.float32)}, meta={"layers": 1, "sample": sample}
    )


def draw(rng, seeds, crossed=True, runs=1, size=(0.02, 0.02, 0.01, 0.01)):
    """Similarities of pairs: seeds, runs, pairs and texts vary; the true mean is 0.5."""
    by_seed, by_run, by_pair, by_text = size
    of_seed, of_run = by_seed * rng.normal(size=(2, seeds)), by_run * rng.normal(size=runs) * (runs > 1)
    texts = by_text * np.sqrt(200) * rng.normal(size=200)
    reports, levels = [], []
    for run in range(runs):
        for i, j in permutations(range(seeds), 2) if crossed else combinations(range(seeds), 2):
            value = 0.5 + of_seed[0, i] + of_seed[int(crossed), j] + of_run[run] + by_pair * rng.normal()
            reports.append(synthetic(value + texts.mean(), (texts - texts.mean()) / 200))
            levels.append({"seed": {str(i), str(j)}, "run": {str(run)}})
    return reports, levels


@pytest.mark.parametrize(
    ("seeds", "crossed", "runs"), [(3, True, 1), (3, False, 1), (5, True, 3), (8, True, 1)]
)
def test_intervals_of_means_over_pairs_cover_for_other_seeds_runs_and_texts(seeds, crossed, runs):
    rng = np.random.default_rng(seeds)
    hits, studies = 0, 120
    for _ in range(studies):
        row = replicates.mean(*draw(rng, seeds, crossed, runs)).table.iloc[0]
        hits += row["low"] <= 0.5 <= row["high"]
    # 92-96% in 3,000 studies each; a fault of 120 is 2.4 points
    assert 0.87 < hits / studies < 1, hits / studies


def test_two_seeds_leave_the_interval_open_and_one_run_is_said_and_not_counted():
    rng = np.random.default_rng(0)
    two = replicates.mean(*draw(rng, 2))
    assert two.meta["levels"] == {"seed": ["0", "1"], "run": ["0"]}
    assert two.table[["low", "high"]].isna().all().all()
    many = replicates.mean(*draw(rng, 3))
    assert np.isfinite(many.table[["low", "high"]]).all().all()
    assert set(many.units["cka"]) == {"seed"}


def test_what_two_means_share_in_seeds_and_texts_cancels_in_their_difference():
    rng = np.random.default_rng(0)
    reports, levels = draw(rng, 4)
    lower = [replace(r, table=r.table.assign(value=r.table["value"] - 0.05)) for r in reports]
    first, second = replicates.mean(reports, levels), replicates.mean(lower, levels)
    gap = hrsa.difference(first, second, "cka")
    assert gap.value == pytest.approx(0.05)
    assert gap.high - gap.low < 1e-6
    assert first.table["high"].iloc[0] - first.table["low"].iloc[0] > 0.02


def test_metrics_of_some_pairs_only_are_averaged_over_those():
    rng = np.random.default_rng(0)
    reports, levels = draw(rng, 4)
    for report, level in zip(reports, levels, strict=True):
        if "3" not in level["seed"]:
            extra = report.table.assign(metric="r2", value=0.9, low=0.88, high=0.92)
            report.table = pd.concat([report.table, extra], ignore_index=True)
    row = replicates.mean(reports, levels).table.query("metric == 'r2'").iloc[0]
    assert row["value"] == pytest.approx(0.9)
    # without influences the error of texts is that of the averaged interval
    assert row["high"] - row["low"] == pytest.approx(0.04, rel=0.05)


def test_layers_of_low_rank_are_marked_and_left_out_of_the_means_of_rotations():
    rng = np.random.default_rng(0)
    a, b = model(0.0, 1), model(0.5, 2)
    few = rng.normal(size=(6, WIDTH)).astype(np.float32)[rng.integers(0, 6, TEXTS * EACH)]
    a, b = (replace(m, states=np.concatenate([few[None], m.states[1:]])) for m in (a, b))
    report = compared(a, b)
    assert report.by_layer("inverse_row_entropy")["determined"].tolist() == [False, True, True]
    assert report.by_layer("cka")["determined"].all()
    rows = report.by_layer("r2")["value"]
    assert replicates.overall(report, "r2", "mean")["value"] == pytest.approx(rows[1:].mean())
    line = report.summary().query("metric == 'r2' and at == 'mean'")
    assert line["value"].item() == pytest.approx(rows[1:].mean())
    whole = report.by_layer("cka")["value"]
    assert replicates.overall(report, "cka", "mean")["value"] == pytest.approx(whole.mean())


def test_pairs_ceilings_and_floors_hold_the_same_layers_whatever_the_detail():
    settings = SimpleNamespace(**vars(SETTINGS), layers=2)
    a, b = model(0.0, 1), model(0.5, 2)
    for detail in ("full", "summary"):
        report = hrsa.compare_activations(
            a, b, settings, metrics=["cka", "knn", "r2", "correlation"], detail=detail
        )
        own = report.table[~report.table["variant"].isin(["text", "centred", "standardised"])]
        assert {tuple(sorted(set(rows["layer"]))) for _, rows in own.groupby(["metric", "estimator"])} == {
            (0, 2)
        } | ({(2,)} if detail == "full" else set())


def test_sinks_of_a_study_are_those_that_are_given():
    a, b, start = model(0.0, 1), model(0.5, 2), model(0.0, 1)
    b.states[:, ::50] *= 60  # sinks that the sibling alone has
    start.states[:, 3::100] *= 60
    mask = sink_rows(start)
    assert mask.sum() == 4
    assert hrsa.compare_activations(a, b, SETTINGS, metrics=["cka"], sinks=mask).meta["sinks"] == 4
    assert hrsa.compare_activations(a, b, SETTINGS, metrics=["cka"]).meta["sinks"] == 8


def test_a_saturated_text_set_is_flagged_and_not_the_one_that_is_read():
    a, b = model(0.2, 1), model(0.2, 2)
    hard = np.random.default_rng(1).permutation(LABELS)
    side = (a.pooled[-1] @ np.ones(WIDTH) > np.median(a.pooled[-1] @ np.ones(WIDTH))).astype(int)
    noisy = np.where(np.random.default_rng(2).random(TEXTS) < 0.08, 1 - side, side)
    easy = (5 * np.eye(WIDTH)[LABELS] + 0.01 * a.pooled[-1]).astype(np.float32)
    probes = {
        "saturated": hrsa.Probe(easy, easy, LABELS),
        "chance": hrsa.Probe(a.pooled[-1], b.pooled[-1], hard),
        "good": hrsa.Probe(a.pooled[-1], b.pooled[-1], noisy),
    }
    report = hrsa.compare_activations(
        a, b, SETTINGS, probes=probes, metrics=["probe_transfer"], detail="summary"
    )
    flags = report.detail("probe_sets").set_index("text_set")["flag"].to_dict()
    assert flags == {"saturated": "saturated", "chance": "chance", "good": ""}
    assert report.reference_id("probe_transfer") == "probe_transfer:good"
    assert [name for name in report.summary()["metric"] if name.startswith("probe_transfer")] == [
        "probe_transfer:good"
    ]
    far = hrsa.compare_activations(
        a, model(2.0, 3), SETTINGS, probes=probes | {"good": hrsa.Probe(a.pooled[-1], model(2.0, 3).pooled[-1], noisy)},
        metrics=["probe_transfer"], detail="summary",
    )  # fmt: skip
    gap = hrsa.difference(report, far, "probe_accuracy:good")
    apart = np.hypot(
        *((r.by_layer("probe_accuracy", variant="good").eval("high - low").iloc[0]) for r in (report, far))
    )
    assert gap.high - gap.low < apart  # the same texts are right and wrong in both
