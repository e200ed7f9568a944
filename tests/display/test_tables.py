from __future__ import annotations

import math
from types import SimpleNamespace

import book_frames
import pandas as pd

from realign.config import Backbone, Family, RLVRSettings, SFTSettings
from realign.display import tables
from realign.display.format import show


def test_drift_table_keeps_every_checkpoint_in_order() -> None:
    frame = tables.drift(book_frames.study().drift.frame()).frame
    assert frame[["role", "step"]].values.tolist() == [
        ["reason", 4],
        ["reason", 16],
        ["reason", 36],
        ["sft", 36],
    ]
    assert "linear CKA, mean over layers" in frame


def test_probe_table_names_both_models() -> None:
    table = tables.probes(book_frames.study().compare.reports("backbone")).frame
    assert {"base → reason", "reason → base", "base → sft", "sft → sft"} <= set(table["probe"])
    row = table[(table["probe"] == "base → reason") & (table["scaler"] == "source")].iloc[0]
    assert row["accuracy %"] == "87.3 [86.8, 87.8]"


def test_shown_frames_have_no_row_numbers_and_dashes_for_what_is_missing() -> None:
    frame = pd.DataFrame({"a|b": ["x|y"], "c": [math.nan]})
    html = show(frame)._repr_html_()
    assert "<th></th>" not in html
    assert "NaN" not in html


def test_tables_of_the_mechanism_hold_the_numbers_they_are_given() -> None:
    study = book_frames.study()
    updates = tables.updates(study.updates.frame()).frame
    assert updates["update / weight"].tolist() == ["0.1000 [0.1000, 0.1000]", "0.2000 [0.2000, 0.2000]"]
    landscape = tables.landscape(study.landscape.frame()).frame
    assert len(landscape) == 12
    assert set(landscape["sft"]) == {"0.200 [0.195, 0.205]", "0.100 [0.095, 0.105]"}
    assert set(landscape["base against itself"]) == {"0.000"}


def test_the_table_of_siblings_tells_tuned_here_from_tuned_by_others() -> None:
    family = Family(
        name="f",
        roles={"base": Backbone(source="random:0/llama"), "reason": Backbone(source="hub:some/reasoner")},
        tuning={"coin": RLVRSettings(reward="random", steps=7, seed=3, style="working")},
    )
    models = SimpleNamespace(
        family=family,
        check_siblings=lambda: None,
        followed=["reason", "sft", "coin"],
        tuned_by_others=lambda role: role == "reason",
        tuning=lambda role: {"sft": SFTSettings(steps=5, batch_size=4), **family.tuning}[role],
    )
    table = tables.siblings(models).frame.set_index("role")
    assert table.loc["reason", "method"] == "tuned by others: hub:some/reasoner"
    assert table.loc["reason", "steps"] == "–"
    assert table.loc["sft", ["method", "reward", "steps", "problems a step"]].tolist() == ["SFT", "–", 5, 4]
    assert table.loc["coin", ["reward", "steps", "seed"]].tolist() == ["a coin", 7, 3]
    assert table.loc["coin", "a completion is"] == "working, then answer"


def test_equivalence_is_shown_only_inside_the_margin_and_never_from_one_seed() -> None:
    near = tables.equivalence(
        book_frames.scores(sft=-2.0, by_seed=0.0), book_frames.items(), margin=1.0
    ).frame
    answers = near.set_index(["suite", "arm"])["equivalent"]
    assert (answers.xs("reason", level="arm") == "within ±1").all()
    assert (answers.xs("sft", level="arm") == "not shown").all()
    assert set(near["suite"]) == {"all", "laptop-code", "laptop-multilingual"}
    single = tables.equivalence(book_frames.scores(seeds=1), book_frames.items(), margin=1.0).frame
    assert set(single["equivalent"]) == {"open: one seed"}


def test_what_was_read_is_that_of_the_first_trained_base() -> None:
    shown = tables.reading(book_frames.reading()).frame
    assert shown["task"].tolist() == ["A", "B"]
    assert shown["cut off %"].tolist() == ["25", "0"]
    assert shown["seconds"].tolist() == ["2.0", "2.0"]
