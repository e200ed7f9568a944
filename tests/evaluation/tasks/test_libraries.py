"""Functions of libraries: apart from training, without their names, and the same function in two libraries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from realign.evaluation.tasks import libraries
from realign.texts import copies, corpus
from realign.texts.corpus import Function
from realign.texts.splits import side


def function(name: str, package: str = "numpy", **changes: str) -> Function:
    """A function whose words no other name shares."""
    lines = "\n".join(f"    {name}{i}x = {name}{i}y" for i in range(20))
    one = Function(
        name=name,
        package=package,
        module=f"{package}.core",
        summary=" ".join(f"{name}{i}" for i in range(12)),
        description="",
        parameters="",
        source=f"def {name}(x):\n{lines}\n    return {name}(x)",
    )
    return replace(one, **changes)


@pytest.fixture
def installed(monkeypatch):
    """Replace what is installed by functions of the evaluation side, of training, and of further libraries."""
    sides: dict[object, list[Function]] = {"eval": [], "train": [], "further": []}

    def functions(split, packages=corpus.FUNCTION_PACKAGES):
        return sides["further" if packages == libraries.FURTHER_PACKAGES else split]

    monkeypatch.setattr(libraries.corpus, "functions", functions)
    for cached in (libraries.chosen, libraries.relatives):
        cached.cache_clear()
    yield sides
    for cached in (libraries.chosen, libraries.relatives):
        cached.cache_clear()


def test_near_copies_of_training_functions_and_of_one_another_are_left_out(installed):
    plain, copied, documented, again = (function(name) for name in ("plain", "copied", "documented", "again"))
    installed["eval"] += [plain, copied, documented, again]
    installed["eval"].append(function("twin", source=plain.source.replace("plain7x", "other")))
    installed["train"] += [
        function("train", source=copied.source.replace("copied7x", "other")),
        function("other", summary=f"{documented.summary} more"),
    ]
    names = {f.name for f in libraries.chosen(20)}
    assert "again" in names
    assert len(names & {"plain", "twin"}) == 1
    assert not names & {"copied", "documented"}


def test_one_function_for_each_name_and_none_without_a_body_or_documentation(installed):
    installed["eval"] += [function("f"), function("f", "scipy"), function("g", source="def g(): pass")]
    installed["eval"].append(function("h", summary="Too short a text"))
    assert [f.name for f in libraries.chosen(20)] == ["f"]


def test_a_name_is_hidden_in_the_source_and_only_whole_words_are_names():
    f = function("add", source="def add(x):\n    return add(x) + add_up(x) + x.add")
    assert libraries.masked(f) == "def function(x):\n    return function(x) + add_up(x) + x.function"


def test_both_directions_ask_of_different_functions_among_the_same(installed):
    installed["eval"] += [function(f"name{chr(97 + i)}") for i in range(9)]
    there, back = libraries.doc_to_code(3), libraries.code_to_doc(3)
    assert (len(there.queries), len(there.documents)) == (3, 9)
    assert not set(there.queries.values()) & {back.documents[f"d{i}"] for i in range(3)}
    assert {there.documents[f"d{i}"] for i in range(6, 9)} == set(back.queries.values())


SUMMARY = "Compute the square root of every number"


def test_the_same_function_in_other_libraries_is_the_answer_and_its_own_source_is_excluded(installed):
    one = function("f", summary=SUMMARY)
    two = function("f", "scipy", summary=f"{SUMMARY}.", source=function("g").source)
    other = function("f", "torch", summary="Draw a picture", source=function("h").source)
    third = function("f", "mpmath", summary=SUMMARY, source=function("k").source)
    installed["eval"] += [one, two, other, function("z")]
    installed["further"].append(third)
    data = libraries.code_to_code(9)
    by_text = {text: query for query, text in data.queries.items()}
    query = by_text[libraries.masked(one)]
    assert {data.documents[d] for d in data.relevant[query]} == {libraries.masked(f) for f in (two, third)}
    assert data.excluded is not None
    assert {data.documents[d] for d in data.excluded[query]} == {libraries.masked(f) for f in (one, other)}
    assert libraries.masked(other) not in by_text
    assert libraries.masked(function("z")) in data.documents.values()


def test_copies_and_other_documentation_do_not_agree():
    one = function("f", summary=SUMMARY)
    assert libraries.agree(one, function("f", "scipy", summary=SUMMARY, source=function("g").source))
    assert not libraries.agree(one, replace(one, package="scipy"))
    assert not libraries.agree(one, function("f", summary=SUMMARY, source=function("g").source))
    assert not libraries.agree(one, function("f", "scipy", source=function("g").source))


def test_evaluated_functions_of_installed_libraries_are_not_in_training():
    chosen = libraries.chosen(3 * 30)
    related = [f for group in libraries.relatives() for f in group]
    assert len(chosen) == 90
    assert len(related) > 150
    assert {side("function", f.name) for f in (*chosen, *related)} == {"eval"}
    training = [libraries.masked(f) for f in corpus.functions("train")]
    assert len(training) > 10_000
    evaluated = [*chosen, *related]
    assert copies.apart(evaluated, libraries.masked, training) == evaluated
