"""Names of models: one grammar, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realign.config import MAX_SEED
from realign.config.naming import ModelName, check_seed, parse
from realign.errors import UsageError
from realign.study import open_study

ROLES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True).filter(
    lambda role: role not in ("path", "hub")
)
NUMBERS = st.none() | st.integers(0, MAX_SEED)
SOURCES = st.from_regex(
    r"(hub:[A-Za-z0-9]+/[A-Za-z0-9.]+(@[a-f0-9]+)?|path:/[a-z0-9]+(/[a-z0-9]+)*)", fullmatch=True
)


@given(st.builds(ModelName, ROLES, NUMBERS, NUMBERS) | st.builds(ModelName, source=SOURCES))
def test_what_is_written_is_read_again(name):
    assert parse(str(name), roles=[name.role]) == name


@given(st.text(max_size=20) | st.text("ab:@/~.0\0", max_size=8) | st.text(max_size=5).map("path:{}".format))
def test_any_text_is_a_name_or_a_usage_error(text):
    try:
        name = parse(text, roles=["base"])
    except UsageError:
        return
    assert parse(str(name), roles=["base"]) == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base:x", "a whole number must follow ':'"),
        ("base:", "a whole number must follow ':'"),
        ("base:-3", "a whole number must follow ':'"),
        ("base:\u0663", "a whole number must follow ':'"),  # a digit to str.isdigit, and to int
        ("base@\u00b2", "a whole number must follow '@'"),  # a digit to str.isdigit, and not to int
        ("base:0@", "a whole number must follow '@'"),
        ("base@1:2", "a whole number must follow '@'"),
        (f"base:{2**32}", "the number after ':' must not be above 4294967295"),
        ("base:" + "9" * 5000, "the number after ':' must not be above 4294967295"),
        ("", "use ROLE"),
        (":0", "use ROLE"),
        ("path:", "a directory must follow ':'"),
        ("hub:", "a name must follow ':'"),
    ],
)
def test_every_mistake_has_its_sentence(text, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse(text)


def test_a_directory_is_a_path_unless_its_name_is_a_role(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "reason"):
        (tmp_path / name).mkdir()
    assert parse("mine", ["reason"]).directory == tmp_path / "mine"
    assert parse("path:mine", ["reason"]) == parse("mine", ["reason"])
    assert parse("reason", ["reason"]) == ModelName("reason")
    assert parse("path:reason", ["reason"]).directory == tmp_path / "reason"
    assert parse("other", ["reason"]) == ModelName("other")


@pytest.mark.parametrize("seed", [-1, 2**32, True, 0.5, "1"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(UsageError, match="a whole number from 0 to 4294967295 is needed"):
        check_seed(seed)


def test_readers_subjects_and_export_read_the_same_names(own_store):
    study = open_study("laptop")
    assert study.models.reader("reason@50").slug == "reason-step50"
    assert study.models.reader("reason:1").slug == "reason-emb-seed1"
    named = study.evaluate.subjects.named
    assert named("reason@50").slug == "smollm2-135m-reason-step50"
    assert named("reason:1").identity == {"train": study.train.node("reason", 1).request.key}
    for mistake in ("reason:1@3", "raeson", "raeson:0", "reason@3", "reason:\u0663"):
        for door in (study.models.reader, named):
            with pytest.raises(UsageError):
                door(mistake)
    for mistake in ("reason", "reason@50", "hub:some/model", str(Path.cwd())):
        with pytest.raises(UsageError, match="must be ROLE:SEED"):
            study.models.trained_name(mistake)
