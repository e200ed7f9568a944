"""Similarity of models in numbers: what HRSA reports say by pair, by layer and against one another.

Everything iterates :data:`realign.hrsa.METRICS`, so a metric that is registered there appears here. An id
names the rows of a metric as in reports: 'cka', 'cka:no_sinks', 'knn@10'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from realign import hrsa
from realign.hrsa import METRICS, Report, replicates
from realign.hrsa.metrics import ESTIMATORS, middle
from realign.hrsa.report import CALIBRATED
from realign.hrsa.rows import metric_id, split_id

Pair = tuple[str, str]
"""Roles of the two models of a report."""
Reports = Mapping[Pair, Report]
Ceilings = Mapping[str, Mapping[str, Report]]
"""Noise ceilings by what they belong to (backbones, embedding models, an attention mode), then by name."""
COMPANIONS = ("diagonal_energy", "probe_transfer")
"""Companions of another metric that are shown beside it."""
NO_PROBE = (
    "no linear probe: it needs two classes of ten texts in a text set; ask for more n_texts, or other texts"
)


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

    An estimator that a metric does not define has the other one's numbers; one that was not computed has no rows, and
    what is measured at the last layer alone has no mean. Probes have rows for each text set, in ``variant``; layers
    where a rotation is not determined are left out of its means.

    Args:
        reports: by the name that the column ``models`` gets.

    Returns:
        Frame with models, metric, variant, estimator, at ('mean', 'last'), value, low, high, calibrated, calibrated_low
        and calibrated_high (0: unrelated texts, 1: a replicate; NaN without a floor and a ceiling), flag (of a text set
        on which a probe tells nothing: 'saturated' or 'chance'), undetermined (how many layers are left out).
    """
    columns = ["models", "metric", "variant", "estimator", "at", "value", "low", "high", *CALIBRATED, "flag"]
    records = []
    for name, report in reports.items():
        for metric in _shown(report):
            measured = set(report.table.loc[report.table["metric"] == metric, "estimator"])
            for estimator in ESTIMATORS:
                if estimator in METRICS[metric].estimators and estimator not in measured:
                    continue
                for variant, flag in text_sets(report, metric).items():
                    rows = report.by_layer(metric, estimator, variant=variant)
                    for at in ("mean", "last") if len(rows) > 1 else ("last",):
                        of: dict[str, object] = {
                            "models": name,
                            "metric": metric,
                            "variant": variant or "",
                            "flag": flag,
                        }
                        of |= {
                            "estimator": estimator,
                            "at": at,
                            "undetermined": int((~rows["determined"]).sum()),
                        }
                        records.append(
                            of | dict(replicates.overall(report, metric, at, estimator, variant=variant))
                        )
    return pd.DataFrame(records, columns=[*columns, "undetermined"])


def text_sets(report: Report, metric: str) -> dict[str | None, str]:
    """Text sets that a metric keeps apart, with their flags; {None: ''} for one that is of all texts."""
    if METRICS[metric].level != "function" or "probe_sets" not in report.details:
        return {None: ""}
    sets = report.detail("probe_sets")
    return dict(zip(sets["text_set"], sets["flag"], strict=True))


def _shown(report: Report) -> list[str]:
    """Metrics that were measured, without companions of another one that say little for themselves."""
    described = {m.compute for m in METRICS.values() if m.sees}
    return [
        m.name
        for m in METRICS.values()
        if m.name in report.metrics and (m.sees or m.name in COMPANIONS or m.compute not in described)
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
    chosen = {first.reference_id(m, v) for m in _shown(first) for v in text_sets(first, m)}
    chosen |= {name for name in first.influence if split_id(name)[0] in ("cka", "knn")}
    order = list(METRICS)
    rows = []
    for metric in sorted(chosen, key=lambda one: (order.index(split_id(one)[0]), one)):
        if metric in first.influence and metric in second.influence:
            gap = hrsa.difference(first, second, metric)
            rows.append((metric, gap.value, gap.low, gap.high, gap.p))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "p"])


def probes(reports: Reports, estimator: str = "reference") -> pd.DataFrame:
    """Linear probes fitted on one model (source) and read on the other (target).

    Returns:
        Frame with a, b (the pair), source, target, and the columns of the report's probes (0-1): text_set,
        direction, scaler, accuracy, low, high, majority, and macro_f1 and weighted_f1 with their intervals, and flag
        (as in :func:`similarity`);
        empty where no report has probes (:data:`NO_PROBE` says why).
    """
    frames = []
    name = "probe" if estimator == "reference" else "probe_paper"
    for (a, b), report in reports.items():
        if name not in report.details:
            continue
        frame = report.detail(name).assign(flag="")
        if "probe_sets" in report.details:
            frame["flag"] = frame["text_set"].map(report.detail("probe_sets").set_index("text_set")["flag"])
        ends = frame["direction"].str.split("->", expand=True).replace({"a": a, "b": b})
        frames.append(frame.assign(a=a, b=b, source=ends[0], target=ends[1]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def map_distance(report: Report) -> dict[str, float]:
    """Distance of a report's two models as on the map of models: mean angle of debiased CKA over the study's layers.

    Returns:
        value, low and high in radians; all tokens, as on the map.
    """
    frame = report.by_layer("cka", "reference", variant="")
    angle = np.arccos(frame[["value", "low", "high"]].clip(-1, 1)).mean()
    return {"value": angle["value"], "low": angle["high"], "high": angle["low"]}
