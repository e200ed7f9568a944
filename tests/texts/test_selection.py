"""Texts chosen for an analysis: parallel messages, and classes that a probe can learn."""

from __future__ import annotations

import pytest

from realign.errors import RealignError
from realign.texts import TextSet
from realign.texts.selection import labelled, parallel_messages


def text_set(name: str, labels: list[str], groups: list[str] | None = None) -> TextSet:
    return TextSet(name, [f"{name} {i}" for i in range(len(labels))], labels, groups or [])


def test_rare_classes_are_left_out_and_rows_count_over_all_sets():
    first = text_set("first", [*"aabbc"], groups=[*"vwxyz"])
    second = text_set("second", [*"dede"])
    parts = labelled([first, second], fewest=2)
    assert (parts["first"].rows, parts["first"].labels) == ([0, 1, 2, 3], [*"aabb"])
    assert (parts["first"].groups, parts["second"].groups) == ([*"vwxy"], None)
    assert parts["second"].rows == [5, 6, 7, 8]


def test_a_set_with_one_class_or_none_has_nothing_to_probe():
    assert labelled([text_set("one", ["a"] * 20), text_set("none", [])]) == {}


def test_messages_are_translations_of_each_other_and_english_comes_first():
    messages = parallel_messages(("fr", "es"), 16)
    assert list(messages) == ["en", "fr", "es"]
    assert {len(texts) for texts in messages.values()} == {16}
    assert messages == parallel_messages(("fr", "es"), 16)


def test_more_messages_than_have_all_translations_is_one_sentence():
    with pytest.raises(RealignError, match="ask for fewer messages or languages"):
        parallel_messages(("fr", "es"), 10**6)
