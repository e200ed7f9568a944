"""Configuration: what is valid loads, what is not is one sentence that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

import realign
from realign import config as cfg
from realign import paths
from realign.errors import RealignError, UsageError


@pytest.mark.parametrize("name", cfg.profile_names())
def test_every_shipped_profile_loads_and_names_a_known_family(name):
    profile = cfg.load_profile(name)
    families = cfg.load_families(paths.data() / "families.toml")
    assert profile.family in families
    assert profile.name == name
    assert "base" in profile.roles


def test_paper_profile_states_the_recipe_of_the_paper():
    recipe = cfg.load_profile("paper").recipe
    assert (recipe.temperature, recipe.batch_size, recipe.hard_negatives) == (0.02, 2048, 3)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.warmup_ratio) == (2e-5, 0.05, 0.03)
    assert (recipe.max_query_tokens, recipe.max_passage_tokens, recipe.epochs) == (512, 512, 1.0)
    assert recipe.attention == "bidirectional"
    assert recipe.lora is None
    assert len(recipe.data) == 11


def test_unknown_profile_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'laptop'"):
        cfg.load_profile("laptp")


def test_unknown_family_names_the_nearest():
    families = cfg.load_families(paths.data() / "families.toml")
    with pytest.raises(UsageError, match="did you mean 'smollm2-135m'"):
        cfg.find_family(families, "smollm-135m")


def test_unknown_role_names_the_nearest():
    family = cfg.Family(name="f", roles={"base": cfg.Backbone(source="random:0")})
    with pytest.raises(UsageError, match="unknown role of family f 'bas'; did you mean 'base'"):
        family.backbone("bas")


@pytest.mark.parametrize(
    ("source", "base"),
    [("nowhere:x", None), ("hub:", None), ("adapter:x", None), ("random:0", cfg.Backbone(source="random:1"))],
)
def test_source_that_makes_no_sense_is_refused(source, base):
    with pytest.raises(ValueError, match="source"):
        cfg.Backbone(source=source, base=base)


def test_wrong_type_is_one_sentence_with_place_and_value(tmp_path):
    text = (Path(realign.__file__).parent / "profiles" / "smoke.toml").read_text()
    (tmp_path / "bad.toml").write_text(
        text.replace("batch_size = 8\nlearning", 'batch_size = "many"\nlearning')
    )
    with pytest.raises(UsageError, match=r"recipe\.batch_size: .*'many'") as caught:
        cfg.load_profile(str(tmp_path / "bad.toml"))
    assert "\n" not in str(caught.value)


def test_misspelt_setting_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'temperature'"):
        cfg.parse(cfg.Recipe, {"data": ["docs"], "temprature": 0.1}, "recipe")


def test_toml_that_does_not_parse_is_one_sentence(tmp_path):
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(UsageError, match="not valid TOML"):
        cfg.load_profile(str(tmp_path / "bad.toml"))
    with pytest.raises(UsageError, match="no such file"):
        cfg.load_profile(str(tmp_path / "missing.toml"))


def test_a_user_adds_a_family_of_two_directories_in_a_few_lines(tmp_path):
    file = tmp_path / "families.toml"
    file.write_text('[mine.roles]\nbase.source = "path:/a"\nreason.source = "path:/b"\n')
    family = cfg.load_families(file)["mine"]
    assert family.backbone("reason").location == "/b"


def test_adapter_names_its_base_by_role(tmp_path):
    file = tmp_path / "families.toml"
    file.write_text('[mine.roles]\nbase.source = "path:/a"\nreason = {source = "adapter:b", base = "base"}\n')
    base = cfg.load_families(file)["mine"].backbone("reason").base
    assert base is not None
    assert base.source == "path:/a"
    file.write_text('[mine.roles]\nreason = {source = "adapter:b", base = "bse"}\n')
    with pytest.raises(UsageError, match="unknown role"):
        cfg.load_families(file)


def test_configurations_are_frozen_because_keys_are_made_from_them():
    profile = cfg.load_profile("smoke")
    with pytest.raises(ValueError, match="frozen"):
        profile.family = "other"


def test_outside_a_project_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("REALIGN_ROOT", str(tmp_path))
    with pytest.raises(RealignError, match="no such file"):
        cfg.load_families(paths.data() / "families.toml")


def test_a_toml_file_can_say_that_all_weights_are_trained():
    settings = {"data": ["docs"], "lora": False}
    assert cfg.parse(cfg.Recipe, settings, "row") == cfg.Recipe(data=("docs",), lora=None)
    assert cfg.parse(cfg.Recipe, {**settings, "lora": {"rank": 8}}, "row").lora.rank == 8
    with pytest.raises(UsageError, match="lora"):
        cfg.parse(cfg.Recipe, {**settings, "lora": True}, "row")


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return folder / f"{next(iter(files))}.toml"


def test_a_profile_extends_another_table_by_table(tmp_path):
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", middle='extends = "laptop"\nmargin = 3.0\n[hrsa]\nn_texts = 60\n')
    mine = write(tmp_path, mine='extends = "below/middle.toml"\n[hrsa]\nk = [7]\n[recipe]\nlora = false\n')
    laptop, changed = cfg.load_profile("laptop"), cfg.load_profile(str(mine))
    assert (changed.name, changed.margin, changed.suites) == ("mine", 3.0, laptop.suites)
    assert changed.hrsa == laptop.hrsa.model_copy(update={"n_texts": 60, "k": (7,)})
    assert changed.recipe == laptop.recipe.model_copy(update={"lora": None})


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"a": 'extends = "b.toml"', "b": 'extends = "a.toml"'},
            r"in a circle: .*a\.toml -> .*b\.toml -> .*a",
        ),
        ({"a": 'extends = "a.toml"'}, "in a circle"),
        ({"a": 'extends = "laptp"'}, r"a\.toml extends 'laptp'; did you mean 'laptop'"),
        ({"a": 'extends = "none.toml"'}, r"no such file: .*none\.toml"),
        ({"a": "extends = 3"}, "extends must be the name of a profile or a TOML file, got 3"),
        ({"a": 'extends = "laptop"\nmargn = 1.0'}, "did you mean 'margin'"),
    ],
)
def test_a_profile_that_cannot_be_extended_is_one_sentence(tmp_path, files, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        cfg.load_profile(str(write(tmp_path, **files)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("seeds = []", "seeds"),
        ("seeds = [0, -1]", r"seeds\.1"),
        ("seeds = [4294967296]", r"seeds\.0"),
        ("seeds = [1, 1]", "a value stands twice"),
        ('roles = ["base", "base"]', "a value stands twice"),
    ],
)
def test_seeds_and_roles_of_a_profile_are_checked(tmp_path, change, sentence):
    with pytest.raises(UsageError, match=sentence):
        cfg.load_profile(str(write(tmp_path, a=f'extends = "smoke"\n{change}')))


def test_a_family_or_role_that_cannot_be_a_folder_is_refused(tmp_path):
    for text, kind in (
        ('["../x".roles]\nbase.source = "random:0"', "family"),
        ('[x.roles]\n"a/b".source = "random:0"', "role"),
    ):
        with pytest.raises(UsageError, match=f"cannot be the name of a {kind}"):
            cfg.load_families(write(tmp_path, families=text))
