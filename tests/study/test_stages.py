"""Stages: each declared once, and everything that a study knows of them derived from that."""

from __future__ import annotations

import pytest

from realign.study import PUBLISHED, STAGES, Stage, open_study

# A stage whose version goes up here loses its published results: publish them again in the same change.
VERSIONS = {
    "backbone": 1,
    "tune": 1,
    "tuning-log": 1,
    "policy": 2,
    "train": 1,
    "training-log": 1,
    "evaluate": 2,
    "read": 1,
    "compare": 6,
    "drift": 6,
    "languages": 4,
    "map": 2,
    "updates": 1,
    "landscape": 1,
    "domains": 4,
}


def subclasses(stage: type[Stage]) -> set[type[Stage]]:
    return {stage}.union(*(subclasses(each) for each in stage.__subclasses__()))


def test_every_stage_has_a_name_of_its_own_and_is_an_attribute_of_a_study():
    assert {stage.name: stage.version for stage in STAGES} == VERSIONS
    assert len(STAGES) == len(VERSIONS)
    study = open_study("smoke")
    for stage in STAGES:
        assert isinstance(getattr(study, stage.name.replace("-", "_")), stage)
    assert set(STAGES) == {stage for stage in subclasses(Stage) if "name" in vars(stage)}


def test_a_study_wants_published_results_only_and_some_of_every_published_stage():
    for profile in ("smoke", "laptop"):
        study = open_study(profile)
        wanted = {node.request.stage for node in study.nodes()}
        here = {"tuning-log"} if profile == "smoke" else set()  # the laptop family is tuned already
        assert wanted | {"tuning-log"} == set(PUBLISHED)
        assert here <= wanted


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.published], ids=lambda s: s.name)
def test_published_results_are_small(stage):
    from realign import paths

    for folder in (paths.data() / "results" / stage.name).glob("*"):
        assert sum(file.stat().st_size for file in folder.glob("*")) < 2**21, folder
        assert not [*folder.rglob("*.safetensors")]
