"""Whatever the data are, a number of a report lies in the range of its metric, and so does its interval."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realign import hrsa
from realign.hrsa.intervals import SCALES
from realign.hrsa.metrics import METRICS
from realign.hrsa.rows import split_id

TEXTS, EACH, WIDTH, LAYERS = 24, 4, 6, 2
SETTINGS = SimpleNamespace(cka_tokens=TEXTS * EACH, knn_tokens=TEXTS * EACH, k=(2, 5), resamples=40, seed=0)
LABELS = np.arange(TEXTS) % 2
TEXT_OF = np.repeat(np.arange(TEXTS), EACH)


def normal(rng, shape):
    return rng.normal(size=shape)


def cauchy(rng, shape):
    return rng.standard_cauchy(size=shape)


def one_heavy_text(rng, shape):
    values = rng.normal(size=shape)
    values[:, rng.integers(TEXTS) == TEXT_OF] *= 20
    return values


def massive_dimension(rng, shape):
    values = rng.normal(size=shape)
    values[..., 0] = 1e4 * (values[..., 0] + 3)
    return values


def few_distinct(rng, shape):
    return rng.normal(size=(shape[0], 9, shape[2]))[:, rng.integers(9, size=shape[1])]


KINDS = [normal, cauchy, one_heavy_text, massive_dimension, few_distinct]
RELATIONS = {
    "same": lambda x, y: x,
    "nearly the same": lambda x, y: x + 1e-4 * y,
    "close": lambda x, y: x + 0.3 * y,
    "opposite": lambda x, y: -x,
    "unrelated": lambda x, y: y,
}


def model(states):
    values = states.astype(np.float32)
    rows = np.arange(TEXTS * EACH)
    pooled = values.reshape(LAYERS, TEXTS, EACH, WIDTH).mean(2)
    keys = np.arange(TEXTS, dtype=np.uint64)
    return hrsa.Activations(values, TEXT_OF, rows, rows % EACH, pooled, keys)


def ordered(frame, value, low, high, lowest, highest):
    known = frame.dropna(subset=[low, high])
    steps = [np.full(len(known), lowest), known[low], known[value], known[high], np.full(len(known), highest)]
    assert (np.diff(np.array(steps, dtype=float), axis=0) >= 0).all(), known.to_string()
    assert np.isfinite(known[[low, high]].to_numpy(float)).all()


def in_range(report):
    for (metric, estimator), rows in report.table.groupby(["metric", "estimator"]):
        ends = SCALES[METRICS[metric].scale_of(estimator)][:2]
        ordered(rows, "value", "low", "high", *ends)
        assert not rows[rows["value"].notna()]["low"].isna().any()
    for (metric, estimator), rows in report.detail("grid").groupby(["metric", "estimator"]):
        ordered(rows, "value", "low", "high", *SCALES[METRICS[metric].scale_of(estimator)][:2])
    for metric, rows in report.summary().groupby("metric"):
        ordered(rows, "value", "low", "high", *SCALES[METRICS[split_id(metric)[0]].scale][:2])
    ordered(report.detail("knn_labels"), "corrected", "low", "high", -np.inf, 1)
    for name in ("top_dimension_share", "top_rows_share"):
        ordered(report.detail("energy"), name, f"{name}_low", f"{name}_high", 0, 1)
    for name in ("probe", "probe_paper"):
        ordered(report.detail(name), "accuracy", "low", "high", 0, 1)
        for f1 in ("macro_f1", "weighted_f1"):
            ordered(report.detail(name), f1, f"{f1}_low", f"{f1}_high", 0, 1)


@pytest.mark.parametrize("relation", RELATIONS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS))
def test_every_number_of_a_report_and_its_interval_lie_in_the_range_of_the_metric(relation, seed, kind):
    rng = np.random.default_rng(seed)
    x, y = (kind(rng, (LAYERS, TEXTS * EACH, WIDTH)) for _ in range(2))
    a, b = model(x), model(RELATIONS[relation](x, y))
    probe = hrsa.Probe(a.pooled[-1], b.pooled[-1], LABELS)
    report = hrsa.compare_activations(a, b, SETTINGS, labels=LABELS, probes={"texts": probe})
    in_range(report)
    other = hrsa.compare_activations(a, model(y), SETTINGS, metrics=["cka", "knn", "correlation", "r2"])
    for name in other.influence:
        gap = hrsa.difference(report, other, name)
        assert gap.low <= gap.value <= gap.high or np.isnan(gap.value)
