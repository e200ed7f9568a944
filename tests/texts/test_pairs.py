"""Claims about training sets: one form, true negatives, hub sets by their table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realign.errors import RealignError, UsageError
from realign.texts import hub, pairs
from realign.texts.splits import normalise


@pytest.mark.parametrize("name", ["messages", "problems"])
def test_no_negative_equals_a_positive_of_its_query(name: str) -> None:
    loaded = pairs.load(name, hard_negatives=3)
    answers: dict[str, set[str]] = {}
    for query, positive in zip(loaded.queries, loaded.positives, strict=True):
        answers.setdefault(normalise(query), set()).add(normalise(positive))
    for query, negatives in zip(loaded.queries, loaded.negatives, strict=True):
        keys = [normalise(n) for n in negatives]
        assert len(set(keys)) == len(keys) <= 3
        assert not answers[normalise(query)] & set(keys)
    assert sum(map(len, loaded.negatives)) > 2.5 * len(loaded)


def test_messages_go_both_ways() -> None:
    loaded = pairs.load("messages")
    english = sum(q.isascii() for q in loaded.queries) / len(loaded)
    assert 0.2 < english < 0.9
    assert loaded.negatives == [[] for _ in loaded.queries]


def test_siblings_share_the_group_and_prefer_shared_words() -> None:
    queries = ["open a file", "open a door", "sing a song", "open a file slowly"]
    answers = ["p0", "p1", "p2", "p3"]
    negatives = pairs.siblings(queries, answers, ["x", "x", "x", "y"], 1)
    assert negatives == [["p1"], ["p0"], ["p0"], []]


def test_the_positive_of_the_same_query_elsewhere_is_no_negative() -> None:
    negatives = pairs.siblings(["same", "same", "other"], ["a", "b", "c"], ["g"] * 3, 3)
    assert negatives == [["c"], ["c"], ["a", "b"]]


def test_a_draw_depends_on_the_seed_and_keeps_rows_together() -> None:
    loaded = pairs.load("problems", hard_negatives=1)
    one, other = loaded.take(20, 0), loaded.take(20, 1)
    assert one.queries != other.queries
    row = loaded.queries.index(one.queries[3])
    assert (one.positives[3], one.negatives[3]) == (loaded.positives[row], loaded.negatives[row])


def test_every_hub_set_of_the_paper_is_in_the_table() -> None:
    table = pairs.hub_sets()
    english = {"allnli", "fever", "hotpotqa", "msmarco", "nq", "quora", "squad", "triviaqa"}
    assert set(table) == english | {"dureader", "mrtydi", "t2ranking"}
    assert sum(entry["size"] for entry in table.values()) == 1_662_145
    for entry in table.values():
        assert {"path", "split", "revision", "query", "positive", "negatives", "instruction"} <= set(entry)


def test_local_files_of_the_same_schema_load_like_a_hub_set(tmp_path, monkeypatch) -> None:
    rows = [
        {"query": "q1", "pos": ["p1", "p1b"], "neg": ["n1", "P1", "n2", "n3"]},
        {"query": " ", "pos": ["p2"], "neg": []},
        {"query": "q3", "pos": ["p3"], "neg": []},
    ]
    (tmp_path / "part.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entry = {
        "path": str(tmp_path),
        "split": "train",
        "query": "query",
        "positive": "pos",
        "negatives": ["neg"],
    }
    monkeypatch.setattr(pairs, "hub_sets", lambda: {"local": {**entry, "instruction": "Find it"}})
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    loaded = pairs.load("hub:local", hard_negatives=2)
    assert loaded.queries == ["q1", "q3"]
    assert loaded.positives == ["p1", "p3"]
    assert loaded.negatives == [["n1", "n2"], []]
    assert loaded.instruction == "Find it"


def test_beir_sets_are_joined_by_their_judgements() -> None:
    rows = hub.beir_rows(
        [{"_id": 1, "text": "claim"}],
        [{"_id": "d", "title": "T", "text": "body"}, {"_id": "e", "title": "", "text": "no"}],
        [{"query-id": 1, "corpus-id": "d", "score": 1}, {"query-id": 1, "corpus-id": "e", "score": 0}],
    )
    assert rows == [{"query": "claim", "positive": "T body"}]


def test_a_missing_column_or_an_unreachable_set_is_one_clear_sentence(tmp_path) -> None:
    with pytest.raises(RealignError, match=r"no column 'anchor' .it has query."):
        pairs.from_rows("x", {"query": "anchor", "positive": "query"}, [{"query": "a"}], 0)
    with pytest.raises(RealignError, match="needs the Hugging Face hub"):
        hub.open_dataset(str(tmp_path / "nothing"), "train")
    with pytest.raises(UsageError, match="unknown training set 'hub:alnli'"):
        pairs.load("hub:alnli")


def test_a_set_written_to_a_file_is_read_as_it_was_and_damage_is_one_sentence(tmp_path) -> None:
    one = pairs.PairSet("mined", "Find it", ["q é", "r"], ["p\n2", "s"], [["n1", "n2"], []])
    pairs.write(one, tmp_path / "mined.jsonl")
    assert pairs.load(f"file:{tmp_path}/mined.jsonl", hard_negatives=2) == one
    assert pairs.load(f"file:{tmp_path}/mined.jsonl", hard_negatives=1).negatives == [["n1"], []]
    (tmp_path / "bad.jsonl").write_text('{"query": "q"')
    with pytest.raises(RealignError, match=r"bad\.jsonl cannot be read"):
        pairs.load(f"file:{tmp_path}/bad.jsonl")
    (tmp_path / "mixed.jsonl").write_text('{"instruction": "a"}\n{"instruction": "b"}\n')
    with pytest.raises(RealignError, match="all with the same instruction"):
        pairs.load(f"file:{tmp_path}/mixed.jsonl")
    with pytest.raises(RealignError, match="cannot be read"):
        pairs.load("file:/no/such/file.jsonl")


TEXT = st.text(min_size=1).filter(str.strip)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, st.lists(TEXT, max_size=3)), min_size=1, max_size=4),
    instruction=st.text(),
)
def test_any_unicode_text_that_is_written_is_read(
    rows: list[tuple[str, str, list[str]]], instruction: str, tmp_path: Path
) -> None:
    answers: dict[str, set[str]] = {}
    for query, positive, _ in rows:
        answers.setdefault(normalise(query), set()).add(normalise(positive))
    queries, positives, negatives = map(list, zip(*rows, strict=True))
    kept = [
        [n for n in row if normalise(n) not in answers[normalise(q)]]
        for q, row in zip(queries, negatives, strict=True)
    ]
    one = pairs.PairSet("any", instruction, queries, positives, kept)
    pairs.write(one, tmp_path / "any.jsonl")
    assert pairs.read(tmp_path / "any.jsonl", 3) == one


def test_a_positive_of_the_same_query_in_another_row_is_no_negative(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "positive": "Ann", "negatives": ["Ann Smith", "Bob"]},
        {"query": "Q ", "positive": "ann  smith", "negatives": ["ANN"]},
        {"query": "r", "positive": "Cy", "negatives": ["Ann Smith"]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert pairs.read(tmp_path / "a.jsonl", 1).negatives == [["Bob"], [], ["Ann Smith"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": 3, "positive": "p", "negatives": []}', "row 2: 'query' holds int where a text is needed"),
        ('{"query": "q", "positive": {"a": 1}, "negatives": []}', "row 2: 'positive' holds dict"),
        ('{"query": "q", "positive": "p", "negatives": [null]}', "row 2: 'negatives' holds null"),
        ('{"query": "q", "positive": "p", "negatives": 7}', "row 2: 'negatives' holds int"),
        ('{"query": "\\ud800", "positive": "p", "negatives": []}', "row 2: 'query' holds half a character"),
        ('{"query": "q", "positive": "p", "instruction": ["x"]}', "the same instruction, a text"),
        ("[1]", "every line must be a row"),
        ('{"query": "q"', "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_bad_row_of_a_users_file_is_one_sentence(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"query": "q", "positive": "p", "negatives": []}\n' + line, encoding="utf-8")
    with pytest.raises(RealignError, match=message.replace("[", r"\[")) as caught:
        pairs.read(file, 1)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    file = tmp_path / "bom.jsonl"
    file.write_text('{"query": "q", "positive": "p", "negatives": []}\r\n', encoding="utf-8-sig")
    assert pairs.read(file, 1).queries == ["q"]


def test_text_that_is_no_unicode_is_not_written(tmp_path: Path) -> None:
    one = pairs.PairSet("x", "", ["q"], ["p\udc00"], [[]])
    with pytest.raises(RealignError, match="'positive' holds half a character"):
        pairs.write(one, tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def folder_of(tmp_path, entry: dict, rows: list[dict]) -> str:
    """A local folder that stands for a repository of the hub: the entry's configuration, files and columns."""
    home = tmp_path / "repository"
    pattern = entry.get("files", "train.jsonl").replace("**/", "deep/").replace("*", "_part")
    place = home / pattern
    place.parent.mkdir(parents=True)
    place.write_text("\n".join(map(json.dumps, rows)))
    if "config" in entry:
        (home / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {entry['config']}\n  data_files:\n  - split: {entry['split']}\n"
            f"    path: {pattern}\n---\n"
        )
    return str(home)


@pytest.mark.parametrize("name", [n for n, e in pairs.hub_sets().items() if e.get("layout") != "beir"])
def test_each_hub_set_of_the_table_loads_from_files_of_its_schema(name: str, tmp_path, monkeypatch) -> None:
    entry = pairs.hub_sets()[name]
    listed = "files" in entry  # these sets keep lists of texts
    rows = [
        {entry["query"]: f"q{i}", entry["positive"]: [f"p{i}"] if listed else f"p{i}"}
        | {column: [f"n{i}", "m"] if listed else f"n{i}" for column in entry["negatives"]}
        for i in range(3)
    ]
    local = {**entry, "path": folder_of(tmp_path, entry, rows)}
    monkeypatch.setattr(pairs, "hub_sets", lambda: {name: local})
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    loaded = pairs.load(f"hub:{name}", hard_negatives=1)
    assert (loaded.queries, loaded.positives) == (["q0", "q1", "q2"], ["p0", "p1", "p2"])
    assert loaded.negatives == ([["n0"], ["n1"], ["n2"]] if entry["negatives"] else [[], [], []])
    assert loaded.instruction == entry["instruction"]


def test_fever_is_joined_from_the_files_of_a_beir_repository(tmp_path, monkeypatch) -> None:
    home = tmp_path / "fever"
    parts = {
        "queries": [{"_id": "1", "title": "", "text": "claim"}],
        "corpus": [{"_id": "d", "title": "T", "text": "body"}],
    }
    home.mkdir()
    for part, rows in parts.items():
        (home / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    configs = "".join(
        f"- config_name: {part}\n  data_files:\n  - split: {part}\n    path: {part}.jsonl\n" for part in parts
    )
    (home / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    (tmp_path / "fever-qrels").mkdir()
    (tmp_path / "fever-qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n1\td\t1\n")
    entry = {**pairs.hub_sets()["fever"], "path": str(home)}
    monkeypatch.setattr(pairs, "hub_sets", lambda: {"fever": entry})
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    loaded = pairs.load("hub:fever", hard_negatives=3)
    assert (loaded.queries, loaded.positives, loaded.negatives) == (["claim"], ["T body"], [[]])
