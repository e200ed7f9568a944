"""Claims about the offline texts: same on every run, disjoint splits, nothing imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from realign import texts
from realign.errors import RealignError, UsageError
from realign.texts import corpus, leakage, splits

NUMPYDOC = '''
class Tool:
    @property
    def width(self, scale=1):
        """Return the width of the tool in millimetres.

        The width is measured at the widest place, see :func:`~tools.measure`,
        and ``scale`` multiplies it.

        Parameters
        ----------
        scale : float
            Factor of the result.

        Examples
        --------
        >>> Tool().width()
        """
        base = 3
        return base * scale

def undocumented(x):
    return x
'''
GOOGLE = '''
def join(parts, glue):
    """Join all parts into one string. Nothing is escaped here.

    Args:
        parts: what to join.

    Returns:
        The string.
    """
    # a comment stays
    return glue.join(parts)
'''


@pytest.fixture(scope="module", autouse=True)
def small_corpus():
    # two packages instead of fifteen: the parser is the same and the tests stay quick
    patch = pytest.MonkeyPatch()
    patch.setattr(corpus, "FUNCTION_PACKAGES", ("seaborn", "datasets"))
    patch.setitem(texts.OFFLINE, "docs", ("seaborn", "datasets"))
    patch.setitem(texts.OFFLINE, "code", ("seaborn", "datasets"))
    patch.delenv("REALIGN_CACHE", raising=False)
    corpus._functions.cache_clear()
    yield
    patch.undo()
    corpus._functions.cache_clear()


def test_docstring_parts_are_separated_and_markup_removed() -> None:
    (parsed,) = corpus.parse_source(NUMPYDOC.encode(), "tools", "tools.core")
    assert parsed.summary == "Return the width of the tool in millimetres."
    assert parsed.description == (
        "The width is measured at the widest place, see tools.measure, and scale multiplies it."
    )
    assert parsed.parameters == "scale : float Factor of the result."
    assert parsed.source == "def width(self, scale=1):\n    base = 3\n    return base * scale"


def test_google_docstring_keeps_sections_out_of_the_description() -> None:
    (parsed,) = corpus.parse_source(GOOGLE.encode(), "tools", "tools.text")
    assert (parsed.summary, parsed.description) == (
        "Join all parts into one string.",
        "Nothing is escaped here.",
    )
    assert parsed.parameters == "parts: what to join."
    assert "# a comment stays" in parsed.source
    assert '"""' not in parsed.source


def test_a_file_that_does_not_parse_gives_nothing() -> None:
    assert corpus.parse_source(b'def broken(:\n    """A docstring of enough words."""', "p", "m") == []


def test_no_bare_name_is_on_both_sides_of_the_split() -> None:
    train, held_out = corpus.functions("train"), corpus.functions("eval")
    assert not {f.name for f in train} & {f.name for f in held_out}
    share = len(held_out) / (len(train) + len(held_out))
    assert 0.15 < share < 0.35
    assert len(train) + len(held_out) == len(corpus.functions())


@pytest.mark.parametrize("name", ["docs", "code", "messages", "problems"])
def test_train_and_eval_texts_are_disjoint(name: str) -> None:
    train = texts.load(name, None, split="train").texts
    held_out = texts.load(name, None, split="eval").texts
    assert train
    assert held_out
    assert leakage.shared(train, held_out) == []


def test_word_problems_of_one_story_are_on_one_side() -> None:
    train, held_out = (
        {p.template for p in texts.problems(side, ("gsm_symbolic",))} for side in ("train", "eval")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_no_translation_of_a_message_is_on_the_other_side() -> None:
    train = {t for m in corpus.catalogues("train") for t in (m.text, *m.translations.values())}
    held_out = {t for m in corpus.catalogues("eval") for t in (m.text, *m.translations.values())}
    assert not train & held_out
    assert len({lang for m in corpus.catalogues() for lang in m.translations}) >= 15


def test_worked_answers_end_with_the_right_result() -> None:
    by_task = {p.task: p for p in texts.problems()}
    assert len(by_task) == 13
    for number in (p for p in texts.problems(None, ("gcd",))):
        a, b, *_ = (int(x) for x in number.text.split(":")[1].replace(".", "").split(","))
        result = int(number.answer.rsplit(" ", 1)[1].rstrip("."))
        assert a % result == 0
        assert b % result == 0


def test_a_sample_is_reproducible_balanced_and_depends_on_the_seed() -> None:
    one, again = texts.load("docs", 40, seed=1), texts.load("docs", 40, seed=1)
    other = texts.load("docs", 40, seed=2)
    assert texts.digest(one.texts) == texts.digest(again.texts) != texts.digest(other.texts)
    assert {one.labels.count(label) for label in set(one.labels)} == {20}


def test_a_sample_survives_the_loss_of_one_item() -> None:
    items = [f"item {i}" for i in range(100)]
    whole = splits.sample(items, 20, str, 0)
    without = splits.sample([i for i in items if i != whole[7]], 20, str, 0)
    assert set(whole) - set(without) == {whole[7]}


def test_the_corpus_is_cached_and_a_damaged_cache_is_rebuilt(tmp_path) -> None:
    first = corpus._functions.__wrapped__(str(tmp_path), corpus.FUNCTION_PACKAGES)
    (file,) = tmp_path.glob("functions-*.jsonl")
    assert corpus._functions.__wrapped__(str(tmp_path), corpus.FUNCTION_PACKAGES) == first
    file.write_text("damaged")
    assert corpus._functions.__wrapped__(str(tmp_path), corpus.FUNCTION_PACKAGES) == first


def test_no_library_is_imported_to_read_it(tmp_path) -> None:
    code = (
        "import sys; from realign.texts import corpus; corpus.FUNCTION_PACKAGES=('seaborn',);"
        "assert corpus.functions(); print('seaborn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_sources_name_versions_without_build_tags() -> None:
    assert texts.sources("messages")["Sphinx"].count(".") == 2
    assert "+" not in "".join(corpus.versions(("torch",)).values())


def test_bad_requests_are_one_clear_sentence() -> None:
    with pytest.raises(UsageError, match="did you mean 'docs'"):
        texts.load("doc", 3)
    with pytest.raises(RealignError, match="fewer than 1000000"):
        texts.load("problems", 1_000_000)
    with pytest.raises(UsageError, match="evaluation only"):
        texts.load("hub:math-500", 3, split="train")


def test_overlap_is_refused_with_the_count_and_the_first_example() -> None:
    leakage.check(["a", "b"], ["c"])
    with pytest.raises(RealignError, match=r"2 evaluation text\(s\).*'B  x'"):
        leakage.check(["a", "b X", "c"], ["B  x", "C", "d"])


def test_a_training_text_with_a_word_changed_is_a_near_copy_and_another_text_is_not() -> None:
    text = "find the number of ways in which twelve people can sit around one round table in the hall of this house"
    changed = text.replace("house", "barn")
    assert leakage.near([text], [changed, changed, text.upper(), "find the number of primes below twelve"]) == [
        changed, text.upper()
    ]  # fmt: skip
    assert leakage.near([text], [text.replace("twelve", "nine").replace("round table", "bench")]) == []
