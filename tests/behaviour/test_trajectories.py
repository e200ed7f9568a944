"""A tuned model on the map of its base: a model is where it is, and another one is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from realign.behaviour import trajectories
from realign.config import Backbone, MechanismSettings
from realign.models import loading

SETTINGS = MechanismSettings(prompts=4, max_new_tokens=4, components=3, regions=3, resamples=20)


@pytest.fixture(scope="module")
def world() -> SimpleNamespace:
    models = [
        loading.load_lm(Backbone(source=f"random:{seed}/llama"), dtype=torch.float32) for seed in (0, 1)
    ]
    (base, tokenizer), (other, _) = models
    prompts = {"docs": [f"Returns item {i} of" for i in range(4)]}
    material = trajectories.Material([f"a text of which no model wrote line {i}" for i in range(6)], prompts)
    return SimpleNamespace(
        model=base, other=other, on_map=trajectories.base_on_map(base, tokenizer, material, SETTINGS)
    )


def measured(world: SimpleNamespace, model: Any) -> Any:
    frame, points = trajectories.compare(world.on_map, model, SETTINGS, name="tuned")
    assert set(points["role"]) == {"fixed texts", "base", "tuned"}
    assert (frame["low"] <= frame["high"]).all()
    return frame.set_index("measure")


def test_the_base_reads_its_own_texts_as_itself(world):
    frame = measured(world, world.model)
    for measure in ("landscape shift", "next-token top-1 agreement", "next-token divergence (bits)"):
        assert frame.loc[measure, "value"] == pytest.approx(frame.loc[measure, "null"], abs=1e-5)


def test_another_model_reads_them_otherwise(world):
    frame = measured(world, world.other)
    assert frame.loc["landscape shift", "low"] > 0
    assert frame.loc["next-token divergence (bits)", "value"] > 0
