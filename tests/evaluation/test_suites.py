"""The laptop suites: deterministic, described, with their own instructions, and apart from training."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from realign import texts
from realign.errors import RealignError, UsageError
from realign.evaluation import bright, code, instructions, specs, suites
from realign.evaluation.specs import Corpus

LAPTOP = ("laptop-multilingual", "laptop-code", "laptop-bright")
# What needs no archive; tests/evaluation/tasks builds the others from small ones. Study sizes are the laptop's, longer.
ALL = [
    (suite, spec, n)
    for suite in suites.names()
    for spec, n in suites.specs(suite)
    if not spec.archives and not suite.startswith("study")
]
DIGESTS = """
import json
from realign.evaluation import suites
names = [name for name in suites.names() if not name.startswith("study")]
print(json.dumps([s.digest(n) for x in names for s, n in suites.specs(x) if not s.archives]))
"""


def test_data_are_the_same_in_another_process_with_another_hash_seed():
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    out = subprocess.run(
        [sys.executable, "-c", DIGESTS], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(out) == [spec.digest(n) for _, spec, n in ALL]


def test_names_and_keys_need_neither_mteb_nor_torch():
    code = (
        "import sys; from realign.evaluation import suites\n"
        "for name in [n for n in suites.names() if n not in suites.BENCHMARKS]:\n"
        "    suites.task_names(name), suites.sources(name), suites.task_instructions(name), suites.about(name)\n"
        "print([m for m in ('mteb', 'torch', 'transformers', 'reasoning_gym') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_no_text_of_a_suite_is_a_training_text():
    training: list[str] = []
    for name in ("docs", "code", "messages", "problems"):
        pairs = texts.pairs.load(name)
        training += [*pairs.queries, *pairs.positives]
    assert len(training) > 10_000
    texts.leakage.check(training, [text for _, spec, n in ALL for text in specs.texts(spec.data(n))])


def test_the_overlap_check_would_notice():
    known = suites.texts("laptop-code")[0]
    with pytest.raises(RealignError, match=r"1 evaluation text"):
        texts.leakage.check([known.upper()], suites.texts("laptop-code")[:3])


def test_enough_tasks_and_types():
    count = {name: len(suites.specs(name)) for name in LAPTOP}
    assert count["laptop-multilingual"] >= 8
    assert count["laptop-code"] >= 4
    assert count["laptop-bright"] >= 4
    assert {spec.type for spec, _ in suites.specs("laptop-multilingual")} == {
        "BitextMining", "Classification", "MultilabelClassification", "Clustering", "PairClassification",
        "Retrieval", "Reranking",
    }  # fmt: skip
    bitext = next(s for s, _ in suites.specs("laptop-multilingual") if s.name == "SphinxBitextMining")
    assert len(bitext.languages) >= 8


@pytest.mark.parametrize(("suite", "spec", "n"), ALL, ids=lambda x: getattr(x, "name", str(x)))
def test_data_are_complete_and_short(suite, spec, n):
    data = spec.data(n)
    every = specs.texts(data)
    assert every
    assert all(text.strip() for text in every)
    assert max(map(len, every)) <= (280 if "open" not in suite else 2000)
    if isinstance(data, Corpus):
        assert set(data.relevant) == set(data.queries)
        for query, grades in data.relevant.items():
            assert grades
            assert set(grades) <= set(data.documents)
            assert not set(grades) & set((data.excluded or {}).get(query, ()))
            assert set(grades) <= set((data.candidates or {}).get(query, data.documents))
        texts_once = list(data.documents.values())
        assert len(set(texts_once)) == len(texts_once), (
            "two documents are the same, so the gold is not unique"
        )
    else:
        for splits in data.subsets.values():
            for columns in splits.values():
                assert len({len(column) for column in columns.values()}) == 1
            if "train" in splits:
                assert not set(splits["train"]["text"]) & set(splits["test"]["text"])


def test_every_task_has_its_own_instruction_and_strict_refuses_others():
    for name in {suite.name for suite in suites.SUITES}:
        assert len(suites.task_instructions(f"laptop-{name}", strict=True)) == len(
            suites.specs(f"laptop-{name}")
        )
    table = instructions.load(strict=True)
    with pytest.raises(RealignError, match=r"NoSuchTask .* has no instruction"):
        table("NoSuchTask", "Retrieval")
    assert instructions.load()("NoSuchTask", "Retrieval") == table.types["Retrieval"]


def test_a_malformed_instruction_table_is_one_sentence(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text('[tasks]\nSTS12 = "ends with a space "\n')
    with pytest.raises(RealignError, match="STS12 must be a non-empty text"):
        instructions.load(path)


def test_a_changed_note_or_size_changes_the_sources(monkeypatch, tmp_path):
    before = suites.sources("laptop-bright")
    assert before != suites.sources("smoke-bright")
    copy = tmp_path / "techniques"
    copy.mkdir()
    for path in bright._files():
        (copy / path.name).write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(bright.paths, "data", lambda: tmp_path)
    assert suites.sources("laptop-bright")["techniques"] != before["techniques"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("laptop-cod", "did you mean 'laptop-code'"),
        ("tasks:STS1", "nearest: STS1"),
        ("tasks:", "names no task"),
        ("tasks: , ,", "names no task"),
        ("", "unknown suite ''"),
    ],
)
def test_an_unknown_suite_or_task_names_the_nearest(name, message):
    for call in (suites.load, suites.task_names, suites.task_instructions):
        with pytest.raises(UsageError, match=message):
            call(name)


def test_a_task_that_is_named_twice_is_one_task():
    assert suites.task_names("tasks:STS12,STS12, STS13") == ["STS12", "STS13"]


def test_a_new_suite_is_one_line_of_the_registry(monkeypatch):
    mine = suites.Suite("mine", code.SPECS[:1], files=lambda: {"notes": "abc"})
    monkeypatch.setattr(suites, "SUITES", (*suites.SUITES, mine))
    assert {"laptop-mine", "smoke-mine"} <= set(suites.names())
    assert suites.task_names("laptop-mine") == ["DocToCodeRetrieval"]
    assert suites.about("smoke-mine") == "1 tasks; data built from installed packages"
    assert suites.sources("smoke-mine")["notes"] == "abc"
    assert [t.metadata.name for t in suites.load("smoke-mine")] == ["DocToCodeRetrieval"]


def test_notes_are_many_short_and_know_their_problems():
    import reasoning_gym

    known = set(reasoning_gym.factory.DATASETS)
    notes = bright.notes()
    assert len(notes) >= 80
    assert all(120 <= len(note["text"]) <= 420 for note in notes.values())
    for name, note in notes.items():
        assert set(note["problems"]) | set(note["related"]) <= known, name
        assert not set(note["problems"]) & set(note["related"]), name
    excluded = bright.techniques("arithmetic", 32).excluded
    assert excluded is not None
    assert sum(map(len, excluded.values())) > 20


def test_every_kind_of_problem_with_a_function_has_one_that_is_not_in_training():
    import reasoning_gym

    table = bright.functions()
    known = {f"{f.module}.{f.name}" for f in texts.corpus.functions("train")}
    assert not known & set(table)
    assert {t for f in table.values() for t in (*f["problems"], *f["related"])} <= set(
        reasoning_gym.factory.DATASETS
    )
    data = bright.library_functions(30)
    assert len({q.rpartition("-")[0] for q in data.queries}) >= 20
    assert data.excluded is not None
    assert set(data.excluded["gcd-0"]) == {
        "sympy.core.numbers.lcm", "sympy.ntheory.factor_.divisors"
    }  # fmt: skip


def test_a_missing_library_function_is_named(monkeypatch):
    monkeypatch.setattr(bright.corpus, "functions", lambda split: [])
    bright.functions.cache_clear()
    with pytest.raises(RealignError, match=r"igcd_lehmer .* requirements.lock"):
        bright.functions()


def test_real_benchmarks_have_an_instruction_for_each_of_their_tasks():
    for name, tasks in {"MTEB(Multilingual, v2)": 131, "MTEB(Code, v1)": 12, "BRIGHT(v1.1)": 12}.items():
        assert len(suites.task_instructions(name, strict=True)) == tasks


def test_every_task_is_described_with_an_example():
    for name in LAPTOP:
        rows = suites.describe(name)
        assert [row["task"] for row in rows] == suites.task_names(name)
        assert all(value.strip() for row in rows for value in row.values())
