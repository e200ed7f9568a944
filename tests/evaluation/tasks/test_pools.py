"""Pools: queries with all that answers them, near copies out of the ranking, small sizes inside large ones."""

from __future__ import annotations

from realign.evaluation.specs import Corpus
from realign.evaluation.tasks.pools import Row, pool


def long(name: str) -> str:
    """A text of twelve words, none of which another name shares."""
    return " ".join(f"{name}{i}" for i in range(12))


def texts(data: Corpus, query: str, side: dict) -> set[str]:
    """Texts of the relevant or excluded documents of a query."""
    name = next(name for name, text in data.queries.items() if text == query)
    return {data.documents[d] for d in side.get(name, ())}


def test_documents_fill_up_from_the_other_rows_and_the_others():
    rows = [Row(f"query {i}", (long(f"r{i}x"),)) for i in range(10)]
    data = pool(rows, [long(f"o{i}x") for i in range(50)], n=4, documents=20)
    assert (len(data.queries), len(data.documents)) == (4, 20)
    for query, grades in data.relevant.items():
        number = data.queries[query].removeprefix("query ")
        assert [data.documents[d] for d in grades] == [long(f"r{number}x")]
    assert len(pool(rows, [long("o")], n=4).documents) == 11


def test_a_smaller_size_asks_the_first_queries_of_a_larger_one():
    rows = [Row(f"query {i}", (long(f"r{i}x"),)) for i in range(30)]
    small, large = pool(rows, n=5, documents=9), pool(rows[::-1], n=12, documents=25)
    assert list(small.queries.values()) == list(large.queries.values())[:5]


def test_rows_with_one_query_are_one_query_and_equal_texts_one_document():
    data = pool([Row("Which?", ("An answer",)), Row("which? ", ("an  answer", "another"))], n=9)
    assert list(data.queries.values()) == ["Which?"]
    assert sorted(data.documents.values()) == ["An answer", "another"]
    assert len(data.relevant["q0"]) == 2


def test_the_query_itself_and_near_copies_of_it_answer_nothing():
    story = long("s")
    copy = story.replace("s11", "other")
    data = pool([Row(story, (long("r"), copy, story)), Row("short", (copy,))], n=9)
    assert texts(data, story, data.relevant) == {long("r")}
    assert texts(data, story, data.excluded) == {copy, story}
    assert texts(data, "short", data.relevant) == {copy}


def test_a_query_that_only_copies_answer_is_not_asked():
    story = long("s")
    assert not pool([Row(story, (f"{story} more",))], n=9).queries
    assert not pool([Row("a b", ("A b",))], n=9).queries
    assert not pool([Row("nothing", ())], n=9).queries


def test_near_copies_of_a_relevant_document_are_not_judged():
    right = long("r")
    copy = right.replace("r0", "other")
    data = pool([Row("one", (right,)), Row("two", (copy,))], [right.replace("r11", "third"), long("o")], n=9)
    assert sorted(data.documents.values()) == sorted([right, copy, long("o")])
    assert texts(data, "one", data.excluded) == {copy}
    assert texts(data, "two", data.excluded) == {right}


def test_what_is_relevant_is_never_excluded():
    data = pool([Row("one", ("a", "b"), ("b", "c")), Row("two", ("c",))], n=9)
    assert texts(data, "one", data.relevant) == {"a", "b"}
    assert texts(data, "one", data.excluded) == {"c"}
