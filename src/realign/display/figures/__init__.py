"""Every figure of the book: one function each, frames in, a matplotlib Figure out.

One look for all: a light card that reads the same on a light and on a dark page, Okabe-Ito colours for
roles, cividis for heat maps (rasterised inside the SVG), intervals drawn wherever there are any, and the
noise ceiling (the same model in another precision or batch, the same recipe under another seed) as a grey
band. Figures are made without pyplot, so a
notebook shows each once and nothing is kept in memory; the SVG of the same numbers is the same bytes.
"""

from realign.display.figures.dimensions import correlation_histograms, probes, rotated_back, rotations, sinks
from realign.display.figures.overview import metrics_seen, models_map
from realign.display.figures.scores import (
    forest,
    score_dots,
    training_curves,
    training_details,
    tuning_curves,
)
from realign.display.figures.similarity import (
    attention_modes,
    before_after,
    by_layer,
    languages,
    layer_heatmaps,
    neighbours,
    recovery,
)
from realign.display.figures.style import setup, style
from realign.display.figures.tuning import (
    behaviour_and_drift,
    drift_by_domain,
    drift_per_behaviour,
    landscape_measures,
    trajectories,
    weight_updates,
)

__all__ = [
    "attention_modes",
    "before_after",
    "behaviour_and_drift",
    "by_layer",
    "correlation_histograms",
    "drift_by_domain",
    "drift_per_behaviour",
    "forest",
    "landscape_measures",
    "languages",
    "layer_heatmaps",
    "metrics_seen",
    "models_map",
    "neighbours",
    "probes",
    "recovery",
    "rotated_back",
    "rotations",
    "score_dots",
    "setup",
    "sinks",
    "style",
    "training_curves",
    "training_details",
    "trajectories",
    "tuning_curves",
    "weight_updates",
]
