"""One task's evaluation: equal to plain mteb, repeatable, itemised, and never silent about a failure."""

from __future__ import annotations

import errno
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from realign.errors import RealignError, UsageError
from realign.evaluation import instructions, run, suites
from realign.models.embedder import Embedder

TABLE = instructions.load()


@pytest.fixture(scope="module")
def plain(tiny: Embedder) -> Any:
    """The least encoder that mteb accepts: no reuse, batches as mteb makes them."""
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType

    class Plain(AbsEncoder):
        mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "test/plain", "revision": "1"})

        def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):  # type: ignore[no-untyped-def]
            instruction = TABLE(task_metadata.name, task_metadata.type)
            if prompt_type == PromptType.document:
                instruction = None
            return np.concatenate([tiny.encode(batch["text"], instruction) for batch in inputs])

    return Plain()


@pytest.fixture
def encoder(tiny: Embedder) -> Any:
    from realign.evaluation.encoder import TaskEncoder

    return TaskEncoder(tiny, TABLE, name="test/tiny", revision="1")


def smoke_tasks() -> list[Any]:
    """One smoke task of every type (two with restricted rankings)."""
    by_name = {t.metadata.name: t for s in ("multilingual", "code") for t in suites.load(f"smoke-{s}")}
    names = (
        "CLDRBitextMining", "CLDRKindClassification", "CLDROfficialLanguages", "LibraryDocsClustering",
        "SphinxTranslationPairs", "CLDRCurrencyRetrieval", "LibraryDocsReranking", "CrossLibraryCodeRetrieval",
    )  # fmt: skip
    return [by_name[name] for name in names]


def mock_tasks() -> list[Any]:
    """mteb's own mock tasks: the types of the real benchmarks that the laptop suites do not have."""
    from mteb.mocks import mock_tasks as mocks

    return [mocks.MockSTSTask(), mocks.MockInstructionReranking(), mocks.MockMultilingualRetrievalTask(),
            mocks.MockMultilingualClassificationTask()]  # fmt: skip


def test_scores_equal_a_plain_mteb_run_on_every_task_type(encoder, plain):
    import mteb

    seen = set()
    for ours, theirs in zip([*smoke_tasks(), *mock_tasks()], [*smoke_tasks(), *mock_tasks()], strict=True):
        result = run.evaluate_task(encoder, ours)
        assert not result.failed, result.manifest["traceback"]
        expected = mteb.evaluate(plain, theirs, cache=None, co2_tracker=False, show_progress_bar=False)
        splits = expected.task_results[0].scores
        wanted = {
            (row["hf_subset"] if len(splits) == 1 else f"{split}/{row['hf_subset']}"): 100 * row["main_score"]
            for split, rows in splits.items()
            for row in rows
        }
        got = dict(zip(result.scores["subset"], result.scores["score"], strict=True))
        assert got == pytest.approx(wanted, abs=1e-4), ours.metadata.name  # 1e-6 of the whole scale
        seen.add(ours.metadata.type)
    assert seen >= {"BitextMining", "Classification", "MultilabelClassification", "Clustering", "PairClassification",
                    "Retrieval", "Reranking", "STS", "InstructionReranking"}  # fmt: skip


def test_a_result_does_not_depend_on_what_ran_before(encoder):
    task = next(t for t in suites.load("smoke-multilingual") if t.metadata.type == "MultilabelClassification")
    first = run.evaluate_task(encoder, task)
    again = run.evaluate_task(encoder, task)
    pd.testing.assert_frame_equal(first.scores, again.scores)
    pd.testing.assert_frame_equal(first.items, again.items)
    assert again.manifest["tokens"] == 0, "every text was known already"
    assert first.manifest["instructions"] == {"query": ["Tell the official languages of the place"]}


def test_texts_that_two_tasks_share_are_read_once(encoder):
    by_name = {t.metadata.name: t for t in suites.load("smoke-multilingual")}
    first, second = (
        run.evaluate_task(encoder, by_name[name]).manifest
        for name in ("SphinxBitextMining", "SphinxTranslationPairs")
    )
    assert first["texts"] > 0
    assert second["texts"] == second["tokens"] == 0
    assert not second["failed"]


@pytest.mark.parametrize(
    "name",
    ["CLDRCurrencyRetrieval", "LibraryDocsReranking", "CrossLibraryCodeRetrieval", "CLDRKindClassification"],
)
def test_items_average_to_the_score(encoder, name):
    task = next(t for t in smoke_tasks() if t.metadata.name == name)
    result = run.evaluate_task(encoder, task)
    # mteb rounds the scores of rankings to five digits
    assert 100 * result.items["value"].mean() == pytest.approx(result.scores["score"].item(), abs=2e-3)
    assert result.items["item"].is_unique


def test_pair_items_say_which_pairs_are_right_at_the_threshold_that_mteb_chose(encoder, plain):
    import mteb

    ours, theirs = (
        next(t for t in smoke_tasks() if t.metadata.name == "SphinxTranslationPairs") for _ in range(2)
    )
    items = run.evaluate_task(encoder, ours).items
    assert set(items["measure"]) == {"accuracy"}
    assert set(items["value"]) == {0.0, 1.0}
    expected = mteb.evaluate(plain, theirs, cache=None, co2_tracker=False, show_progress_bar=False)
    wanted = {row["hf_subset"]: row["cosine_accuracy"] for row in expected.task_results[0].scores["test"]}
    assert items.groupby("subset")["value"].mean().to_dict() == pytest.approx(wanted)


def test_excluded_documents_are_not_ranked(encoder):
    from realign.evaluation.baselines import RandomVectors
    from realign.evaluation.encoder import TaskEncoder

    # queries are documents of the same corpus: without the exclusion every query would find itself first
    task = next(t for t in suites.load("smoke-code") if t.metadata.name == "CrossLibraryCodeRetrieval")
    same = TaskEncoder(RandomVectors(), lambda name, kind: None)
    assert run.evaluate_task(same, task).scores["score"].item() < 60
    task.load_data()
    ranked = task.dataset["default"]["test"]["top_ranked"]
    assert all(query[1:] not in ids for query, ids in ranked.items())


def test_a_failed_task_keeps_its_row_and_withholds_the_mean(encoder):
    broken, healthy = suites.load("smoke")

    def load_data(*args: Any, **kwargs: Any) -> None:
        raise OSError("the disk is gone\nsecond line")

    broken.load_data = load_data
    results = run.evaluate_tasks(encoder, [broken, healthy], suite="smoke")
    assert [r.failed for r in results] == [True, False]
    row = results[0].scores.iloc[0]
    assert row["task"] == broken.metadata.name
    assert math.isnan(row["score"])
    assert row["error"] == "OSError: the disk is gone"
    assert "load_data" in results[0].manifest["traceback"]
    means = run.task_means(pd.concat([r.scores for r in results]))
    assert len(means) == 2
    whole = run.suite_means(means).iloc[0]
    assert math.isnan(whole["mean_task"])
    assert math.isnan(whole["mean_type"])
    assert (whole["tasks"], whole["failed"]) == (2, 1)
    part = run.suite_means(means, partial=True).iloc[0]
    assert part["mean_task"] == pytest.approx(means["score"].max())


def test_means_over_tasks_and_over_types():
    frame = pd.DataFrame(
        [
            ("a", "X", "s", "m", 10.0),
            ("a", "X", "t", "m", 30.0),
            ("b", "X", "", "m", 40.0),
            ("c", "Y", "", "m", 90.0),
        ],
        columns=["task", "type", "subset", "metric", "score"],
    ).assign(suite="z", error="")
    means = run.task_means(frame)
    assert means["score"].tolist() == [20.0, 40.0, 90.0]
    suite = run.suite_means(means).iloc[0]
    assert suite["mean_task"] == pytest.approx(50.0)
    assert suite["mean_type"] == pytest.approx((30 + 90) / 2)


def test_empty_texts_are_counted_and_become_zero_vectors(encoder):
    class Inputs(list):
        pass

    from types import SimpleNamespace

    before = encoder.stats.empty
    about = SimpleNamespace(name="CLDRBitextMining", type="BitextMining")
    vectors = encoder.encode(
        Inputs([{"text": ["a", ""]}]), task_metadata=about, hf_split="test", hf_subset="x"
    )
    assert encoder.stats.empty == before + 1
    assert not vectors[1].any()
    assert vectors[0].any()


def test_a_manifest_says_what_was_asked_and_read(tiny):
    from realign.evaluation.encoder import TaskEncoder

    longest = 64
    short = TaskEncoder(Embedder(tiny.model, tiny.tokenizer, max_tokens=longest), TABLE)
    task = next(t for t in suites.load("smoke-code") if t.metadata.name == "DocToCodeRetrieval")
    manifest = run.evaluate_task(short, task).manifest
    corpus, queries = (task_texts(task, part) for part in ("corpus", "queries"))
    instruction = TABLE("DocToCodeRetrieval", "Retrieval")
    lengths = [len(text.encode()) for text in corpus]  # this tokeniser has one token for each byte
    lengths += [len(f"Instruct: {instruction}\nQuery:{text}".encode()) for text in queries]
    assert manifest["instructions"]["query"] == [instruction]
    assert manifest["texts"] == len(lengths)
    assert manifest["tokens"] == sum(min(n, longest) for n in lengths)
    assert manifest["truncated_share"] == sum(n > longest for n in lengths) / len(lengths) > 0
    assert manifest["empty"] == 0
    assert 0 < manifest["encode_seconds"] < manifest["seconds"]


def task_texts(task: Any, part: str) -> list[str]:
    """Different texts of a retrieval task, which was unloaded after its evaluation."""
    task.load_data()
    return sorted({row["text"] for row in task.dataset["default"]["test"][part]})


def test_strict_instructions_fail_the_task_not_the_run(tiny):
    from realign.evaluation.encoder import TaskEncoder

    empty = instructions.Instructions({}, {"Classification": "x"}, strict=True)
    result = run.evaluate_task(TaskEncoder(tiny, empty), suites.load("smoke")[0])
    assert result.failed
    assert "has no instruction" in result.scores["error"].item()


def test_outside_models_open_or_say_why_not(tmp_path):
    from realign.evaluation.encoder import load_outside

    with pytest.raises(RealignError, match="no model directory"):
        load_outside(tmp_path / "nothing")
    with pytest.raises(RealignError, match="cannot load the embedding model 'someone/nothing'"):
        load_outside("someone/nothing")
    with pytest.raises(UsageError, match="cannot evaluate a int"):
        load_outside(3)


def test_nothing_is_written_to_mtebs_cache(encoder):
    import mteb

    folder = Path(mteb.ResultCache().cache_path)
    before = set(folder.rglob("*")) if folder.exists() else set()
    assert not run.evaluate_task(encoder, suites.load("smoke")[1]).failed
    assert (set(folder.rglob("*")) if folder.exists() else set()) == before


class Broken:
    """An outside model whose vectors are not numbers where a text has the letter e."""

    def __init__(self, value: float) -> None:
        from realign.models.embedder import Stats

        self.stats = Stats()
        self.value = value

    def encode(self, texts: Any, instruction: str | None = None) -> np.ndarray:
        vectors = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
        vectors[["e" in text for text in texts], 3] = self.value
        return vectors


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1])
def test_vectors_that_are_not_numbers_fail_the_task_with_their_count(index, value):
    from realign.evaluation.encoder import TaskEncoder

    task = suites.load("smoke")[index]
    result = run.evaluate_task(TaskEncoder(Broken(value)), task)
    assert result.failed
    assert np.isnan(result.scores["score"].item())
    match = re.fullmatch(
        rf"(\d+) of (\d+) vectors of task {task.metadata.name} hold NaN or infinite values",
        result.scores["error"].item(),
    )
    assert match is not None
    assert 0 < int(match[1]) <= int(match[2])


@pytest.mark.parametrize("index", [0, 1])
def test_vectors_of_an_mteb_encoder_are_checked_too(plain, index, monkeypatch):
    from realign.evaluation.encoder import load_outside

    task = suites.load("smoke")[index]
    whole = run.evaluate_task(load_outside(plain), task)
    assert not whole.failed
    pd.testing.assert_frame_equal(whole.scores, run.evaluate_task(plain, task).scores)

    def encode(inputs: Any, **options: Any) -> torch.Tensor:
        vectors = torch.as_tensor(type(plain).encode(plain, inputs, **options))
        vectors[0, 0] = torch.nan
        return vectors

    monkeypatch.setattr(plain, "encode", encode, raising=False)
    result = run.evaluate_task(load_outside(plain), task)
    assert re.match(r"1 of \d+ vectors of task \w+ hold NaN", result.scores["error"].item())


def failing(error: Exception) -> Any:
    task = suites.load("smoke")[1]

    def load_data(*args: Any, **kwargs: Any) -> None:
        raise error

    task.load_data = load_data
    return task


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        ConnectionError("Couldn't reach 'mteb/scifact' on the Hub"),
        TimeoutError("timed out"),
        caused(ValueError("the task broke"), OSError(errno.ENOSPC, "No space left on device")),
        caused(RuntimeError("loading failed"), MemoryError()),
    ],
    ids=lambda e: f"{type(e).__name__}{getattr(e, 'errno', None) or ''}",
)
def test_a_failure_of_the_machine_is_no_result(encoder, error):
    with pytest.raises(
        RealignError, match=r"could not be evaluated here .* run the same command again"
    ) as raised:
        run.evaluate_task(encoder, failing(error))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_by_the_user_is_no_result(encoder, stop):
    with pytest.raises(stop):
        run.evaluate_task(encoder, failing(stop()))


def test_a_full_disk_under_mteb_is_no_result_and_the_task_can_be_scored_afterwards(encoder, monkeypatch):
    task = suites.load("smoke")[1]
    with monkeypatch.context() as full:
        full.setattr(
            "mteb.abstasks.retrieval.AbsTaskRetrieval._save_task_predictions",
            lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
        )
        with pytest.raises(RealignError, match="No space left on device"):
            run.evaluate_task(encoder, task)
    assert not run.evaluate_task(encoder, task).failed


def test_a_stored_traceback_has_no_absolute_path(encoder, tmp_path):
    place = tmp_path / "My Models" / "weights.bin"
    error = ValueError(f"cannot read '{place}', {tmp_path}/config.json; see https://example.org/a/b")
    manifest = run.evaluate_task(encoder, failing(error)).manifest
    assert (
        manifest["failed"]
        == "ValueError: cannot read 'weights.bin', config.json; see https://example.org/a/b"
    )
    assert 'File "realign/evaluation/run.py", line' in manifest["traceback"]
    for root in (str(tmp_path), sys.prefix, str(Path(__file__).parent), str(Path.home()) + "/"):
        assert root not in manifest["traceback"]
