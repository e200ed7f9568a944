from __future__ import annotations

import io
import re
from collections.abc import Callable

import book_frames
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from realign.display import figures
from realign.display.figures.style import ROLES, STYLE
from realign.hrsa import demonstration

STUDY = book_frames.study()
BEFORE, AFTER = STUDY.compare.reports("backbone"), STUDY.compare.reports("embedding")
GROUPS = {"backbones": BEFORE, "after CL": AFTER}
CEILINGS = {
    "backbones": STUDY.compare.ceilings("backbone"),
    "after CL": STUDY.compare.ceilings("embedding"),
}
DEMONSTRATION = demonstration.demonstration()
DRAW: dict[str, Callable[[], Figure]] = {
    "forest": lambda: figures.forest(STUDY.evaluate.scores(), STUDY.evaluate.items(), 1.0),
    "score_dots": lambda: figures.score_dots(STUDY.evaluate.scores()),
    "training_curves": lambda: figures.training_curves(STUDY.training_log.frame()),
    "training_details": lambda: figures.training_details(STUDY.training_log.frame()),
    "tuning_curves": lambda: figures.tuning_curves(STUDY.tuning_log.frame()),
    "layer_heatmaps": lambda: figures.layer_heatmaps(GROUPS, "cka", ceilings=CEILINGS),
    "layer_heatmaps correlation": lambda: figures.layer_heatmaps({"": BEFORE}, "correlation"),
    "by_layer": lambda: figures.by_layer(GROUPS, "cka", ceilings=CEILINGS),
    "neighbours": lambda: figures.neighbours(GROUPS, ceilings=CEILINGS),
    "correlation_histograms": lambda: figures.correlation_histograms(GROUPS, ceilings=CEILINGS),
    "rotations": lambda: figures.rotations(GROUPS, ceilings=CEILINGS),
    "probes": lambda: figures.probes(GROUPS, ceilings=CEILINGS),
    "sinks": lambda: figures.sinks({"": BEFORE}),
    "before_after": lambda: figures.before_after(BEFORE, AFTER, list(CEILINGS.values())),
    "attention_modes": lambda: figures.attention_modes(
        STUDY.drift.modes(), ceilings={"bidirectional": CEILINGS["backbones"]}
    ),
    "languages": lambda: figures.languages(STUDY.languages.frame(), CEILINGS["backbones"]),
    "metrics_seen": lambda: figures.metrics_seen(DEMONSTRATION),
    "models_map": lambda: figures.models_map(STUDY.map.frame(), CEILINGS["backbones"]),
    "behaviour_and_drift": lambda: figures.behaviour_and_drift(STUDY.policy.frame(), STUDY.drift.frame()),
    "weight_updates": lambda: figures.weight_updates(STUDY.updates.frame(), STUDY.updates.agreement()),
    "trajectories": lambda: figures.trajectories(STUDY.landscape.frame("points")),
    "landscape_measures": lambda: figures.landscape_measures(STUDY.landscape.frame()),
    "drift_by_domain": lambda: figures.drift_by_domain(STUDY.domains.frame()),
    "recovery": lambda: figures.recovery(BEFORE, AFTER, CEILINGS["after CL"]),
    "rotated_back": lambda: figures.rotated_back(GROUPS),
    "drift_per_behaviour": lambda: figures.drift_per_behaviour(STUDY.policy.frame(), STUDY.drift.frame()),
}


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with figures.style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def texts(figure: Figure) -> set[str]:
    return {t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text()}  # type: ignore[attr-defined]


def test_every_public_figure_is_drawn_here() -> None:
    assert {name.split()[0] for name in DRAW} == set(figures.__all__) - {"setup", "style"}


@pytest.mark.parametrize("name", DRAW)
def test_axes_say_what_they_show(name: str) -> None:
    figure = DRAW[name]()
    panels = [axes for axes in figure.axes if axes.axison]
    assert panels
    for axes in panels:
        assert axes.get_title(loc="left") or axes.get_xlabel() or axes.get_ylabel(), name


@pytest.mark.parametrize("name", ["forest", "rotations"])
def test_same_numbers_give_the_same_bytes(name: str) -> None:
    assert svg(DRAW[name]()) == svg(DRAW[name]())


def test_callers_settings_are_left_alone_and_do_not_leak_in() -> None:
    with mpl.rc_context({"figure.facecolor": "red", "font.size": 30}):
        before = dict(mpl.rcParams)
        figure = DRAW["forest"]()
        assert dict(mpl.rcParams) == before
    assert mpl.colors.to_hex(figure.get_facecolor()) == STYLE["figure.facecolor"]  # type: ignore[attr-defined]


def luminance(colour: str) -> float:
    channels = np.array(mpl.colors.to_rgb(colour))  # type: ignore[attr-defined]
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("colour", [STYLE["text.color"], *ROLES.values()])
def test_text_and_lines_stand_out_from_the_card(colour: str) -> None:
    contrast = (luminance(STYLE["figure.facecolor"]) + 0.05) / (luminance(colour) + 0.05)
    assert contrast >= (4.5 if colour == STYLE["text.color"] else 3.0)


def test_layer_axis_names_its_ends() -> None:
    labels = {t.replace("-\n", "").replace("\n", " ") for t in texts(DRAW["by_layer"]())}
    assert {"embeddings", "final norm"} <= labels


def test_every_column_has_the_ceiling_of_its_own_kind() -> None:
    figure = figures.by_layer(GROUPS, "cka", ceilings=CEILINGS, estimators=["reference"])
    labels = [[str(line.get_label()) for line in axes.lines] for axes in figure.axes]
    assert [name for name in labels[0] if "ceiling" in name] == [
        "noise ceiling (another precision and batch size)"
    ]
    assert [name for name in labels[1] if "ceiling" in name] == ["noise ceiling (another seed)"]


COMPARING = (
    "layer_heatmaps",
    "by_layer",
    "neighbours",
    "correlation_histograms",
    "rotations",
    "probes",
)


@pytest.mark.parametrize("name", [*COMPARING, "before_after", "attention_modes", "languages", "models_map"])
def test_figures_that_compare_models_show_the_noise_ceiling(name: str) -> None:
    figure = DRAW[name]()
    legends = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert any("ceiling" in text for text in texts(figure) | legends)


def test_a_bar_on_the_map_is_as_long_as_the_distance_of_its_ceiling() -> None:
    axes = DRAW["models_map"]().axes[0]
    bars = [line for line in axes.lines if line.get_linewidth() == 3]
    # The same report at every layer: the mean angle is the angle of one layer.
    assert [np.ptp(bar.get_xdata()) for bar in bars] == pytest.approx([np.arccos(0.995)])


def test_forest_marks_lie_at_the_deltas_and_bars_at_their_intervals() -> None:
    scores = book_frames.scores(reason=0.5, noise=0.0, by_seed=0.0)
    axes = figures.forest(scores, book_frames.items(), 1.0).axes[0]
    reason = [line for line in axes.lines if line.get_label() == "reason − base"]
    assert len(reason) == 6  # two suites of two tasks, and their means
    for line in reason:
        np.testing.assert_allclose(line.get_xdata(), 0.5, atol=1e-9)


def test_forest_leaves_marks_of_a_single_seed_open() -> None:
    axes = figures.forest(book_frames.scores(seeds=1), book_frames.items(), 1.0).axes[0]
    marks = [line for line in axes.lines if str(line.get_label()).endswith("− base")]
    assert marks
    assert {line.get_markerfacecolor() for line in marks} == {STYLE["figure.facecolor"]}
    assert not [line for line in axes.lines if len(line.get_xdata()) == 2 and line not in marks][1:]


def test_heat_map_shows_the_matrix_the_right_way_round() -> None:
    report = book_frames.report(0.9)
    report.details["grid"] = pd.DataFrame(
        {"metric": "correlation", "estimator": "reference", "layer_a": a, "layer_b": b}
        | {"value": v, "low": v, "high": v + 0.002 * a}
        for a in range(3)
        for b in range(4)
        for v in [0.1 * a + 0.01 * b]
    )
    figure = figures.layer_heatmaps({"": {("base", "reason"): report}}, "correlation")
    image = np.asarray(figure.axes[0].images[0].get_array())
    assert image.shape == (3, 4)
    assert image[2, 1] == pytest.approx(0.21)
    assert figure.axes[0].get_xlabel().splitlines()[0] == "layer of reason"
    assert figure.axes[0].get_xlabel().splitlines()[-1] == "cells ± 0.001 (at most 0.002)"
    assert figure.axes[0].get_ylabel() == "layer of base"


def test_heat_maps_of_layers_have_no_holes() -> None:
    for axes in DRAW["layer_heatmaps"]().axes:
        for image in axes.images:
            assert np.isfinite(np.ma.filled(image.get_array(), np.nan)).all()


def test_differences_of_nothing_are_not_blown_up() -> None:
    same = {("base", "reason"): book_frames.report(0.99)}
    figure = figures.by_layer({"": same}, "correlation", estimators=["reference"])
    low, high = figure.axes[0].get_ylim()
    assert high - low >= 0.02


def test_wide_rotation_keeps_a_thin_diagonal_visible_on_a_small_image() -> None:
    report = book_frames.report(0.9)
    report.rotation = np.eye(1000, dtype=np.float16)
    figure = figures.rotations({"": {("base", "reason"): report}})
    image = np.asarray(figure.axes[0].images[0].get_array())
    assert max(image.shape) <= 320
    assert (np.diag(image) == 1).all()
    assert len(svg(figure)) < 600_000


def test_the_map_joins_models_kept_in_training_from_the_backbone_to_the_first_seed() -> None:
    places = STUDY.map.frame()
    later = places[places["kind"] == "embedding"].assign(number=1, x=9.0)
    kept = [("reason", "kept", step, 0.3 + step, 0.5, 0.01, 0.02) for step in (8, 2)]
    places = pd.concat([places, later, pd.DataFrame(kept, columns=places.columns)], ignore_index=True)
    axes = figures.models_map(places).axes[0]
    (path,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    own = places[places["role"] == "reason"].set_index(["kind", "number"])["x"]
    wanted = [own["backbone", 36], 2.3, 8.3, own["embedding", 0]]
    np.testing.assert_allclose(path.get_xdata(), wanted)
    assert {"CL 2", "CL 8"} <= texts(axes.figure)
    before = figures.models_map(STUDY.map.frame()).axes[0]
    assert all(line.get_linestyle() != "--" for line in before.lines)


def test_a_role_with_a_dash_in_its_name_is_a_backbone_and_only_a_trained_one_is_dashed() -> None:
    frame = STUDY.languages.frame()
    frame["role"] = frame["role"].replace({"sft": "reason-seed1"})
    axes = figures.languages(frame).axes[0]
    looks = {line.get_label(): (line.get_linestyle(), line.get_color()) for line in axes.lines}
    assert looks == {
        "base": ("-", ROLES["base"]),
        "reason": ("-", ROLES["reason"]),
        "reason-seed1": ("-", ROLES["reason-seed1"]),
        "base-Emb": ("--", ROLES["base"]),
    }


def test_missing_logs_are_said_and_not_drawn() -> None:
    figure = figures.tuning_curves(pd.DataFrame(columns=["role", "step"]))
    assert any("without a tuning log" in text for text in texts(figure))


def test_svg_of_a_chapter_is_small_and_its_heat_maps_are_pixels() -> None:
    text = svg(DRAW["layer_heatmaps"]())
    assert len(text) < 1_000_000
    assert len(re.findall(r"<image", text)) >= 8


def test_marks_of_the_landscape_lie_at_their_values_and_chance_at_its_own() -> None:
    axes = figures.landscape_measures(STUDY.landscape.frame()).axes[0]
    bars = {c.get_label(): c.lines[0] for c in axes.containers}
    np.testing.assert_allclose(bars["reason"].get_xdata(orig=False), [0.1, 0.1])
    np.testing.assert_allclose(bars["sft"].get_xdata(orig=False), [0.2, 0.2])
    grey = [line for line in axes.lines if line.get_label() == "base against itself"]
    assert {float(x) for line in grey for x in line.get_xdata()} == {0.0}


def test_overlap_of_updates_is_drawn_relative_to_chance() -> None:
    axes = figures.weight_updates(STUDY.updates.frame(), STUDY.updates.agreement()).axes[3]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["reason"].get_ydata(), 0.1 / 0.05)
    np.testing.assert_allclose(lines["reason and sft"].get_ydata(), 0.3 / 0.01)


def test_figures_lead_with_the_calibrated_number() -> None:
    figure = figures.by_layer(GROUPS, "cka", ceilings=CEILINGS, estimators=["reference"])
    axes = figure.axes[0]
    assert "calibrated" in axes.get_ylabel()
    lines = {str(line.get_label()): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["base – reason"], 0.97 / 0.995)
    assert set(lines["noise ceiling (another precision and batch size)"]) == {1}
    assert set(lines["unrelated texts"]) == {0}
    paper = figures.by_layer(GROUPS, "cka", ceilings=CEILINGS, estimators=["paper"]).axes[0]
    np.testing.assert_allclose(paper.lines[0].get_ydata(), 0.97)


def test_layers_where_the_rotation_is_not_determined_are_crosses_beside_the_line() -> None:
    report = book_frames.report(0.9)
    report.details["rotation_rank"] = pd.DataFrame({"layer": range(7), "rank": [5, *[24] * 6], "width": 24})
    axes = figures.by_layer({"": {("base", "reason"): report}}, "r2", estimators=["reference"]).axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines["base – reason"].get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert list(lines["rotation not determined"].get_xdata()) == [0]
