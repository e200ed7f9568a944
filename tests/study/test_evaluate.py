"""Scores in the store: what a key holds, what a kill or a failure leaves, and which models are taken."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from realign import cli
from realign.config import Backbone
from realign.errors import RealignError, UsageError
from realign.evaluation import run, suites, yardstick
from realign.models import sources
from realign.study import Study, open_study
from realign.study.export import export_model
from realign.study.stages import evaluate as scoring


@pytest.fixture
def study(own_store: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> Study:
    monkeypatch.setenv("REALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "scoring-cache"))
    return changed(open_study("smoke"))


def changed(study: Study, **fields: Any) -> Study:
    profile = study.profile.model_copy(update={"suites": ("smoke",), **fields})
    return Study(profile, study.store)


def key(study: Study, reference: str = "base", task: str = "CLDRCurrencyRetrieval", **options: Any) -> str:
    return study.evaluate.node("smoke", task, study.evaluate.subjects.named(reference, **options)).request.key


def spy(monkeypatch: Any, before: Any = lambda name: None) -> list[str]:
    """Record which tasks are really evaluated; ``before`` may raise."""
    done: list[str] = []
    plain = run.evaluate_task

    def evaluate_task(encoder: Any, task: Any, **options: Any) -> Any:
        before(task.metadata.name)
        done.append(task.metadata.name)
        return plain(encoder, task, **options)

    monkeypatch.setattr(run, "evaluate_task", evaluate_task)
    return done


def test_a_changed_prompt_model_or_setting_never_meets_an_old_score(study, monkeypatch):
    recipe = study.profile.recipe
    keys = {
        "as it is": key(study),
        "task": key(study, task="CLDRKindClassification"),
        "model": key(changed(study, family="tiny-qwen3")),
        "dtype policy": key(changed(study, dtype="bfloat16")),
        "attention": key(changed(study, recipe=recipe.model_copy(update={"attention": "causal"}))),
        "longest text": key(changed(study, recipe=recipe.model_copy(update={"max_passage_tokens": 9}))),
    }
    fresh = changed(study)
    fresh.evaluate._instructions = lambda suite: {"CLDRCurrencyRetrieval": "Another instruction"}
    keys["prompt"] = key(fresh)
    for name, other in (
        ("mteb", {"mteb": "9.9"}),
        ("builder", {"builder": "99"}),
        ("size", {"sizes": "x=1"}),
    ):
        before = suites.sources("smoke", "CLDRCurrencyRetrieval")
        monkeypatch.setattr(scoring, "data_sources", lambda *_, o=other, b=before: {**b, **o})
        keys[name] = key(study)
    assert len(set(keys.values())) == len(keys), keys


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_that_is_asked_for_is_the_one_of_products(own_store, dtype):
    encoder = open_study("smoke", dtype=dtype).evaluate.subjects.named("base").load()
    assert encoder.model.dtype == getattr(torch, dtype)


def test_a_task_without_an_instruction_is_an_error_at_the_papers_scale_only(own_store, monkeypatch):
    assert open_study("paper").evaluate.subjects.strict
    assert not open_study("laptop").evaluate.subjects.strict
    paper = open_study("paper")
    monkeypatch.setattr(suites, "task_instructions", lambda name, *, strict: {"asked": str(strict)})
    assert paper.evaluate._instructions("MTEB(Code, v1)") == {"asked": "True"}


def test_the_size_of_one_task_is_not_in_the_keys_of_others():
    one, two = (suites.sources("laptop-code", s.name) for s, _ in suites.specs("laptop-code")[1:3])
    assert one["sizes"] != two["sizes"]
    assert one["builder"] == two["builder"]


def test_after_a_kill_a_run_resumes_at_the_task_it_hit(study, monkeypatch):
    def kill(name: str) -> None:
        if name == "CLDRCurrencyRetrieval":
            raise KeyboardInterrupt

    with monkeypatch.context() as first:
        assert_done = spy(first, kill)
        with pytest.raises(KeyboardInterrupt):
            study.evaluate.score("base", "smoke")
        assert assert_done == ["CLDRKindClassification"]
    again = spy(monkeypatch)
    frame = changed(study).evaluate.score("base", "smoke")
    assert again == ["CLDRCurrencyRetrieval"]
    assert frame["score"].notna().all()


def test_a_failed_task_is_kept_shown_and_tried_again(study, monkeypatch, capsys):
    from mteb.abstasks.classification import AbsTaskClassification

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("sys.argv", ["realign", "evaluate", "base", "-P", "smoke", "-s", "smoke"])
    with monkeypatch.context() as broken:
        broken.setattr(AbsTaskClassification, "evaluate", fail)
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert "OSError: the disk is gone" in shown.out
    assert "1 tasks failed" in shown.err
    mean = next(line for line in shown.out.splitlines() if line.split()[:1] == ["smoke"])
    assert mean.split()[1:] == ["-", "-", "2", "1"], "the suite's mean is withheld"
    kept = [a for a in study.store.listing() if a.manifest["used"].get("failed")]
    assert [a.manifest["used"]["task"] for a in kept] == ["CLDRKindClassification"]
    done = spy(monkeypatch)
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert done == ["CLDRKindClassification"]
    assert "-" not in capsys.readouterr().out.split()


def test_means_over_the_rest_are_given_when_asked_for(study, monkeypatch, capsys):
    rows = [("a", "X", 10.0, ""), ("b", "Y", math.nan, "it broke")]
    frame = pd.DataFrame(rows, columns=["task", "type", "score", "error"])
    frame = frame.assign(suite="smoke", metric="m", subset="")
    monkeypatch.setattr(scoring.Evaluate, "score", lambda *_, **__: frame)
    monkeypatch.setattr(
        "sys.argv", ["realign", "evaluate", "base", "-P", "smoke", "-s", "smoke", "--partial"]
    )
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.splitlines()[-2].split() == ["smoke", "10.00", "10.00", "2", "1"]


def test_an_exported_model_opens_and_its_card_has_its_scores(study, monkeypatch, tmp_path):
    from sentence_transformers import SentenceTransformer

    from realign.training.model import SCORES, scored

    rows = [("a", "X", 12.345, ""), ("b", "Y", math.nan, "it broke")]
    frame = pd.DataFrame(rows, columns=["task", "type", "score", "error"])
    frame = frame.assign(suite="smoke", metric="ndcg_at_10", subset="")
    monkeypatch.setattr(scoring.Evaluate, "score", lambda *_, **__: frame)
    recipe = study.profile.recipe.model_copy(update={"data": ("messages",), "queries": 8})
    mine = changed(study, recipe=recipe)
    place = tmp_path / "model"
    export_model(mine, "base:0", place)
    assert SentenceTransformer(str(place), device="cpu").encode(["x"]).shape == (1, 64)
    card = (place / "README.md").read_text()
    assert "| smoke | a | ndcg_at_10 | 12.35 |" in card.splitlines()
    assert "| smoke | b | ndcg_at_10 | failed |" in card.splitlines()
    assert "| smoke | mean of 2 tasks |  | failed |" in card.splitlines()
    assert "Not measured yet" not in card
    stored = mine.graph.run(mine.train.node("base", 0)).path / "model" / "README.md"
    assert "Not measured yet" in stored.read_text()  # and its digest still holds
    tasks = run.task_means(frame.assign(score=[50.0, 60.0]))
    again = scored(card, tasks, run.suite_means(tasks), {})
    assert again.count(SCORES) == 1
    assert "| smoke | mean of 2 tasks |  | 55.00 |" in again
    assert "12.35" not in again
    with pytest.raises(UsageError, match="is not empty"):
        export_model(mine, "base:0", place)


def test_scores_items_and_what_was_read_are_tidy_and_fit_together(study):
    bare = study.evaluate
    wanted = [(n, labels) for n, labels in bare._wanted() if labels["model"] in ("bm25", "random")]
    bare._wanted = lambda: iter(wanted)
    scores, items, reading = bare.scores(), bare.items(), bare.reading()
    assert set(scores["model"]) == {"bm25", "random"}
    assert set(scores.loc[scores["model"] == "bm25", "type"]) == {"Retrieval"}
    mine = items.query("task == 'CLDRCurrencyRetrieval'").groupby("model")["value"].mean() * 100
    theirs = scores.query("task == 'CLDRCurrencyRetrieval'").set_index("model")["score"]
    pd.testing.assert_series_equal(mine, theirs, check_names=False, atol=2e-3)
    assert (reading["texts"] > 0).all()
    assert (reading["seconds"] > 0).all()
    assert len(reading) == len(wanted)


def test_an_mteb_encoder_object_is_scored_and_nothing_is_stored(study, own_store):
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta

    class Letters(AbsEncoder):
        mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "test/letters", "revision": "1"})

        def encode(self, inputs: Any, **options: Any) -> np.ndarray:
            texts = [text.lower() for batch in inputs for text in batch["text"]]
            return np.array([[t.count(c) + 1e-3 for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts])

    frame = study.evaluate.score(Letters(), "smoke")
    assert frame["score"].between(0, 100).all()
    assert not own_store.exists()


def test_a_directory_is_scored_in_its_own_way_and_keyed_by_its_content(study, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    sources.materialize(Backbone(source="random:0/llama"), tmp_path / "plain", cache=tmp_path / "cache")
    transformer = Transformer(str(tmp_path / "plain"), max_seq_length=16)
    width = transformer.get_embedding_dimension()
    SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode="cls")]).save(
        str(tmp_path / "other")
    )
    before = key(study, str(tmp_path / "other"))
    assert key(study, f"path:{tmp_path / 'other'}") == before
    assert key(study, str(tmp_path / "other"), instructed=False) != before
    frame = study.evaluate.score(str(tmp_path / "other"), "smoke")
    assert frame["score"].notna().all(), frame["error"].tolist()
    shutil.copytree(tmp_path / "other", tmp_path / "changed")
    weights = next((tmp_path / "changed").rglob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert key(study, str(tmp_path / "changed")) != before, "one changed bit in a weight is another model"
    shutil.copytree(tmp_path / "other", tmp_path / "copy")
    (tmp_path / "copy" / "1_Pooling" / "config.json").write_text("{}")
    assert key(study, str(tmp_path / "copy")) != before, "another pooling is another model"


def test_a_missing_directory_or_hub_says_so(study):
    with pytest.raises(RealignError, match="no model directory"):
        study.evaluate.score("path:/no/such/place", "smoke")
    with pytest.raises(RealignError, match="cannot get hub:nobody/nothing from the hub"):
        study.evaluate.score("hub:nobody/nothing", "smoke")


def test_remote_code_is_off_unless_asked_for(study, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sources, "snapshot", lambda backbone, *, code: asked.append(code) or tmp_path / "snapshot"
    )
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").write_text("{}")

    def load(folder: Path, *, trust_remote_code: bool, device: str) -> None:
        asked.append(trust_remote_code)
        raise RealignError("enough")

    monkeypatch.setattr("realign.evaluation.encoder.load_outside", load)
    for options in ({}, {"trust_remote_code": True}):
        with pytest.raises(RealignError, match="enough"):
            study.evaluate.score("hub:some/model", "smoke", **options)
    assert asked == [False, False, True, True]


def test_the_yardstick_is_asked_for_only_where_it_is_installed(study, monkeypatch, tmp_path):
    monkeypatch.setattr(yardstick, "directory", lambda: None)
    assert not [n for n in study.evaluate.nodes() if n.request.slug.startswith(yardstick.PACKAGE)]
    with pytest.raises(RealignError, match="not installed"):
        yardstick.verified()
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(yardstick, "directory", lambda: tmp_path)
    assert len([n for n in study.evaluate.nodes() if n.request.slug.startswith(yardstick.PACKAGE)]) == 2
    with pytest.raises(RealignError, match="is not the model of"):
        yardstick.verified()
