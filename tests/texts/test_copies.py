"""Near copies are told from texts that only look alike."""

from __future__ import annotations

import subprocess
import sys

from realign.texts import copies

TEXT = "the quick brown fox jumps over the lazy dog and runs into the deep dark wood at night"
COPY = "The quick brown fox jumps over the lazy dog and runs into the deep dark wood at noon."
OTHER = "the quick brown fox sleeps under a lazy dog and runs out of the deep blue sea at night"


def test_a_changed_word_makes_a_near_copy_and_a_rewritten_sentence_does_not():
    known = copies.Copies([OTHER, TEXT])
    assert known.of(COPY) == [1]
    assert known.of(TEXT) == [1]
    assert known.of("something else entirely") == []


def test_short_texts_are_copies_only_when_their_words_agree():
    known = copies.Copies(["x = 1", "yes", ""])
    assert known.of("x  =  1") == [0]
    assert known.of("YES") == [1]
    assert known.of("no") == []


def test_the_first_of_several_copies_is_kept():
    assert copies.distinct([TEXT, OTHER, COPY], str) == [TEXT, OTHER]


def test_copies_of_known_texts_are_dropped_and_order_is_kept():
    assert copies.apart([COPY, OTHER, "more"], str, ["nothing", TEXT]) == [OTHER, "more"]


def test_what_is_a_copy_does_not_depend_on_the_hash_seed():
    program = f"from realign.texts import copies; print(copies.Copies([{OTHER!r}, {TEXT!r}]).of({COPY!r}))"
    answers = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers == ["[1]\n", "[1]\n"]
