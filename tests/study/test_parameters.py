"""Parameters: what one door refuses, all refuse, in one sentence: Python (and papermill), command line, TOML."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from realign.book import chapters
from realign.cli.app import parse_value
from realign.config import MAX_SEED, Profile, find_family, load_families, load_profile, parse
from realign.errors import RealignError, UsageError
from realign.study import open_study

TOP = ("family", "roles", "seeds", "controls", "dtype")

WRONG = [
    ("seeds", 0),
    ("seeds", ""),
    ("seeds", {}),
    ("family", []),
    ("n_texts", ""),
    ("n_texts", []),
    ("seeds", 3),
    ("seeds", "012"),
    ("seeds", "none"),
    ("seeds", {"a": 1}),
    ("seeds", [-1]),
    ("seeds", [2**32]),
    ("seeds", [2**64]),
    ("seeds", [10**400]),
    ("seeds", [0, 0]),
    ("seeds", [0.5]),
    ("seeds", [1.0]),
    ("seeds", ["0"]),
    ("seeds", [True]),
    ("seeds", [[0]]),
    ("k", 5),
    ("k", 0),
    ("k", "5"),
    ("k", [0]),
    ("k", [-5]),
    ("k", [5, 5]),
    ("k", [10**6]),
    ("k", [math.inf]),
    ("k", {"1": 2}),
    ("n_texts", -1),
    ("n_texts", 3),
    ("n_texts", "100"),
    ("n_texts", 50.0),
    ("n_texts", True),
    ("n_texts", False),
    ("n_texts", [50]),
    ("n_texts", math.nan),
    ("roles", "base"),
    ("roles", ["reason"]),
    ("roles", ["base", "base"]),
    ("roles", ["base", "../x"]),
    ("roles", [0]),
    ("controls", "sft"),
    ("controls", ["sfft"]),
    ("texts", "docs"),
    ("texts", ["dosc"]),
    ("texts", ["docs", "docs"]),
    ("texts", [""]),
    ("texts", 0),
    ("attention", "sideways"),
    ("attention", 1),
    ("dtype", "float16"),
    ("dtype", 32),
    ("family", "smollm"),
    ("family", "../x"),
    ("family", 1),
    ("family", ["tiny-llama"]),
]
IDS = [f"{name}={value!r:.30}" for name, value in WRONG]


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 1000
    return text


@pytest.mark.parametrize(("name", "value"), WRONG, ids=IDS)
def test_what_is_wrong_is_refused_in_python_and_papermill(own_store, name, value):
    with pytest.raises(UsageError) as caught:
        open_study("smoke", **{name: value})
    one_sentence(caught.value)


@pytest.mark.parametrize(("name", "value"), WRONG, ids=IDS)
def test_what_is_wrong_is_refused_on_the_command_line(own_store, name, value):
    if value == "100":
        pytest.skip("typed digits are a number")
    chapter = chapters.find("rq2")
    with pytest.raises(UsageError) as caught:
        open_study(**chapter.complete({"profile": "smoke", name: parse_value(str(value))}))
    one_sentence(caught.value)


@pytest.mark.parametrize(("name", "value"), WRONG, ids=IDS)
def test_what_is_wrong_is_refused_in_a_toml_file(own_store, tmp_path, name, value):
    if name == "roles" and value == ["base", "../x"]:
        pytest.skip("roles of a profile that the family lacks are left out")
    text = f"{name} = {toml(value)}\n"
    (tmp_path / "mine.toml").write_text('extends = "smoke"\n' + ("" if name in TOP else "[hrsa]\n") + text)
    with pytest.raises(UsageError) as caught:
        open_study(str(tmp_path / "mine.toml"))
    one_sentence(caught.value)


def toml(value: object) -> str:
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(each)}' for key, each in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize(
    "name", [None, 0, 3, [], {}, True, "", "a\0b.toml", "~nobody-here/x.toml", "x" * 300 + ".toml"]
)
def test_a_profile_that_cannot_be_is_one_sentence(own_store, name):
    with pytest.raises(RealignError) as caught:
        open_study(name)
    one_sentence(caught.value)


def test_a_profile_that_is_a_folder_or_a_link_in_a_circle_is_one_sentence(own_store, tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    for name in ("folder", "loop"):
        with pytest.raises(RealignError) as caught:
            open_study(str(tmp_path / f"{name}.toml"))
        one_sentence(caught.value)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["family", "roles", "seeds", "texts", "n_texts", "k", "attention", "controls", "dtype"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(NAMES, JUNK)
@example("seeds", ["\ud800"])
@example("family", "\ud800")
@example("seeds", object())
@example("k", [object()])
@example("k", {(1,): 2})
def test_any_value_of_any_parameter_is_taken_or_refused_in_one_sentence(own_store, name, value):
    try:
        study = open_study("smoke", **{name: value})
    except UsageError as error:
        one_sentence(error)
        return
    after = (study.profile if name in TOP else study.profile.hrsa).model_dump()[name]
    empty = not value and not isinstance(value, bool)
    assert empty or after == (tuple(value) if isinstance(value, list) else value)


def test_nesting_that_no_parser_takes_is_one_sentence(own_store, tmp_path):
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UsageError, match="nested too deeply"):
        open_study("smoke", k=deep)
    for text in ("[" * 100_000, "[" * 200 + "]" * 200):
        (tmp_path / "deep.toml").write_text(f'extends = "smoke"\nseeds = {text}')
        with pytest.raises(UsageError) as caught:
            open_study(str(tmp_path / "deep.toml"))
        one_sentence(caught.value)
    assert isinstance(parse_value("[" * 9999), str)


def test_arrays_ranges_and_numpy_numbers_count_as_what_they_hold(own_store):
    profile = open_study("smoke", seeds=np.arange(2), k=range(5, 7), n_texts=np.int64(60)).profile
    assert (profile.seeds, profile.hrsa.k, profile.hrsa.n_texts) == ((0, 1), (5, 6), 60)
    assert open_study("smoke", seeds=np.array([], dtype=int), k=()).profile == open_study("smoke").profile


@pytest.mark.parametrize("name", ["smoke", "laptop", "paper"])
def test_strictness_changes_no_profile(name):
    profile = load_profile(name)
    assert parse(Profile, profile.model_dump(), name) == profile
    assert parse(Profile, profile.model_dump(mode="json"), name) == profile


@pytest.mark.parametrize(
    "change",
    [
        "suites = []",
        "margin = inf",
        "margin = nan",
        "margin = -1",
        "device = 'gpu'",
        "device = 'cuda:²'",
        "name = '../x'",
        "name = ''",
        "name = 'a/b'",
        "seeds = 1979-05-27",
        "recipe = 3",
        "recipe.data = []",
        "recipe.epochs = inf",
        "recipe.save_steps = [0]",
        "recipe.matryoshka = [0]",
        "recipe.lora = {rank = 2.0}",
        "hrsa.k = []",
        "hrsa.texts = []",
        "hrsa.seed = -1",
        f"hrsa.seed = {MAX_SEED + 1}",
        "hrsa.languages = []",
        "mechanism.domains = []",
        "mechanism.domains = ['dosc']",
        "mechanism.seed = -1",
        "policy.seed = 18446744073709551616",
        "policy.task_options.max_terms = inf",
        "policy.problems = " + "9" * 5000,
    ],
)
def test_every_setting_of_a_profile_is_checked(own_store, tmp_path, change):
    (tmp_path / "mine.toml").write_text(f'extends = "smoke"\n{change}\n')
    with pytest.raises(UsageError) as caught:
        open_study(str(tmp_path / "mine.toml"))
    one_sentence(caught.value)


def test_a_byte_order_mark_is_no_setting(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b'\xef\xbb\xbfextends = "smoke"\r\nseeds = [7]\r\n')
    assert open_study(str(tmp_path / "mine.toml")).profile.seeds == (7,)


REGISTRIES = [
    "mine = 3",
    "[mine]\nroles = 3",
    "[mine]\nroles = []",
    "[mine]\nroles.base = 3",
    '[mine]\nroles.base = "random:0"',
    "[mine]\nroles.base.source = 3",
    '[mine]\nroles.base.source = ""',
    '[mine]\nroles.base.source = "path:a\\u0000b"',
    '[mine]\nroles.base.source = "random:0"\ncheckpoints = 3',
    '[mine]\nroles.base.source = "random:0"\ncheckpoints.base = 3',
    '[mine]\nroles.base.source = "random:0"\ncheckpoints.base.x.source = "random:1"',
    '[mine]\nroles.base.source = "random:0"\ncheckpoints.base.²="random:1"',
    '[mine]\nroles.base.source = "random:0"\ncheckpoints."../x".1.source = "random:1"',
    '[mine]\nroles.base.source = "random:0"\ntuning = 3',
    '[mine]\nroles.base.source = "random:0"\nmixtures = 3',
    '[mine]\nroles.base.source = "random:0"\ntuning.sft = { method = "sft", task_options = "lost" }',
    '[mine]\nroles.base.source = "random:0"\ntuning.reason = 3',
    '[mine]\nroles.base.source = "random:0"\ntuning."a/b".method = "sft"',
    '[mine]\nroles.base.source = "random:0"\ntuning.reason.method = "dpo"',
    '[mine]\nroles.base = {source = "adapter:x", base = 3}',
    '[mine]\nroles.base = {source = "adapter:x", base = "base"}',
    '[mine]\nroles.base.source = "random:0"\npublished = 3',
    '[mine]\nroles.base.source = "random:0"\nnote = 3',
    '["../x".roles]\nbase.source = "random:0"',
    "[[mine]]\nroles.base.source = 'random:0'",
]


@pytest.mark.parametrize("text", REGISTRIES)
def test_a_registry_of_the_wrong_shape_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "families.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        find_family(load_families(tmp_path / "families.toml"), "mine")
    one_sentence(caught.value)
