"""Similarity of models in numbers: what HRSA reports say by pair, by layer and against one another.

Everything iterates :data:`realign.hrsa.METRICS`, so a metric that is registered there appears here. An id
names the rows of a metric as in reports: 'cka', 'cka:no_sinks', 'knn@10'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from realign import hrsa
from realign.hrsa import METRICS, Report
from realign.hrsa.metrics import ESTIMATORS, middle
from realign.hrsa.rows import metric_id, split_id

Pair = tuple[str, str]
"""Roles of the two models of a report."""
Reports = Mapping[Pair, Report]
Ceilings = Mapping[str, Mapping[str, Report]]
"""Noise ceilings by what they belong to (backbones, embedding models, an attention mode), then by name."""
MAP_LAYERS = 6  # as many as the map of models uses
NO_PROBE = "no linear probe: it needs two classes of ten texts in a text set; ask for more n_texts, or other texts"


def by_layer_ids(ids: Iterable[str]) -> list[str]:
    """Choose one id for each headline metric with a value at every layer: all tokens, the middle k."""
    known = [split_id(one) for one in dict.fromkeys(ids)]
    ks = {name: [k for base, variant, k in known if (base, variant) == (name, "")] for name in headline()}
    return [metric_id(name, k=middle(mine)) for name, mine in ks.items() if mine]


def headline() -> list[str]:
    """Names of the metrics that stand for their level and have a value at every layer."""
    return [m.name for m in METRICS.values() if m.headline and m.level != "function"]


def similarity(reports: Mapping[str, Report]) -> pd.DataFrame:
    """Every metric of every report, both estimators, as the mean over layers and at the last layer.

    An estimator that a metric does not define has the other one's numbers; one that was not computed has
    no rows, and what is measured at the last layer alone has no mean. Layers share their texts, so the interval of
    a mean is the mean of the intervals.

    Args:
        reports: by the name that the column ``models`` gets.

    Returns:
        Frame with models, metric, estimator, at ('mean', 'last'), value, low, high.
    """
    frames = []
    for name, report in reports.items():
        for metric in _shown(report):
            measured = set(report.table.loc[report.table["metric"] == metric, "estimator"])
            for estimator in ESTIMATORS:
                if estimator in METRICS[metric].estimators and estimator not in measured:
                    continue
                layers = report.by_layer(metric, estimator)[["value", "low", "high"]]
                numbers = {"mean": layers.mean()} if len(layers) > 1 else {}
                rows = pd.DataFrame(numbers | {"last": layers.iloc[-1]}).T.rename_axis("at").reset_index()
                frames.append(rows.assign(models=name, metric=metric, estimator=estimator))
    columns = ["models", "metric", "estimator", "at", "value", "low", "high"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _shown(report: Report) -> list[str]:
    """Metrics that were measured; without influences of its own, a companion of another metric is left out."""
    influential = {split_id(one)[0] for one in report.influence}
    described = {m.compute for m in METRICS.values() if m.sees}
    return [
        m.name
        for m in METRICS.values()
        if m.name in report.metrics and (m.sees or m.name in influential or m.compute not in described)
    ]


def differences(first: Report, second: Report) -> pd.DataFrame:
    """Similarity of the first pair minus that of the second, mean over layers, texts paired.

    Above 0: the first pair is more alike. The interval is of the difference itself, so what both pairs
    share in a text cancels; p is two-sided.

    Returns:
        Frame with metric (id), value, low, high (95%), p; every id that both reports have influences of.

    Raises:
        ValueError: the two reports have read different tokens.
    """
    ids = [metric for metric in first.influence if metric in second.influence]
    order = list(METRICS)
    rows = []
    for metric in sorted(ids, key=lambda one: order.index(split_id(one)[0])):
        gap = hrsa.difference(first, second, metric)
        rows.append((metric, gap.value, gap.low, gap.high, gap.p))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "p"])


def probes(reports: Reports, estimator: str = "reference") -> pd.DataFrame:
    """Linear probes fitted on one model (source) and read on the other (target).

    Returns:
        Frame with a, b (the pair), source, target, and the columns of the report's probes (0-1): text_set,
        direction, scaler, accuracy, low, high, majority, and macro_f1 and weighted_f1 with their intervals;
        empty where no report has probes (:data:`NO_PROBE` says why).
    """
    frames = []
    name = "probe" if estimator == "reference" else "probe_paper"
    for (a, b), report in reports.items():
        if name not in report.details:
            continue
        frame = report.detail(name)
        ends = frame["direction"].str.split("->", expand=True).replace({"a": a, "b": b})
        frames.append(frame.assign(a=a, b=b, source=ends[0], target=ends[1]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def map_distance(report: Report) -> dict[str, float]:
    """Distance of a report's two models as on the map of models: mean angle of debiased CKA over six layers.

    Returns:
        value, low and high in radians; all tokens, as on the map.
    """
    frame = report.by_layer("cka", "reference", variant="")
    chosen = frame.iloc[np.linspace(0, len(frame) - 1, MAP_LAYERS).round().astype(int)]
    angle = np.arccos(chosen[["value", "low", "high"]].clip(-1, 1)).mean()
    return {"value": angle["value"], "low": angle["high"], "high": angle["low"]}
