"""Own verified samples: drawn once, the same after a kill, different, right, and as many as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from realign import hardware, tuning
from realign.behaviour import mixture
from realign.behaviour import problems as problem_sets
from realign.config import Backbone, LoRA, OnPolicySFTSettings
from realign.errors import RealignError, UsageError
from realign.tuning import adapters, rejection

TINY = Backbone(source="random:0/llama")
SETTINGS = OnPolicySFTSettings(
    task=mixture.MIXTURE,
    task_options={"gcd": {"min_value": 2, "max_value": 30}, "lcm": {"min_value": 2, "max_value": 20}},
    style="working",
    max_new_tokens=4,
    steps=3,
    batch_size=4,
    validate_every=0,
    checkpoint_every=1,
    save_steps=(2,),
    attempts=4,
    keep=2,
    seed=5,
    lora=LoRA(rank=2),
)
COUNT = SETTINGS.steps * SETTINGS.batch_size


@pytest.fixture(autouse=True)
def lenient(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model is never right: here a completion is when its text has an even length, whatever ended it."""
    monkeypatch.setenv("REALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(problem_sets, "score", lambda problem, text: float(len(text) % 2 == 0))
    real = rejection.generation.sample

    def ending(model: Any, tokenizer: Any, *args: Any, **options: Any) -> Any:
        samples = real(model, tokenizer, *args, **options)
        for row in samples.tokens:
            row[-1] = tokenizer.eos_token_id
        return samples

    monkeypatch.setattr(rejection.generation, "sample", ending)


def drawn(file: Path, settings: OnPolicySFTSettings = SETTINGS, count: int = COUNT) -> list[tuple[str, str]]:
    model, tokenizer = adapters.load_policy(TINY, settings, hardware.resolve("cpu", "float32"), None)
    problems = adapters.training_problems(settings, tokenizer, count)
    return rejection.draw(model, tokenizer, problems, settings, count, file)


def test_samples_are_different_right_as_many_as_asked_for_and_follow_the_seed(tmp_path: Path) -> None:
    pairs = drawn(tmp_path / "samples.jsonl")
    assert len(pairs) == len(set(pairs)) == COUNT
    assert all(len(completion) % 2 == 0 for _, completion in pairs)
    assert drawn(tmp_path / "again.jsonl") == pairs
    assert drawn(tmp_path / "other.jsonl", SETTINGS.model_copy(update={"seed": 6})) != pairs


def test_a_draw_that_was_killed_goes_on_and_a_finished_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "samples.jsonl"
    pairs, whole = drawn(file), file.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) > 1
    file.write_bytes(lines[0] + lines[1][: len(lines[1]) // 2])
    assert drawn(file) == pairs
    assert file.read_bytes() == whole
    monkeypatch.setattr(rejection.generation, "sample", None)  # would fail if anything were drawn
    assert drawn(file) == pairs


def test_too_few_right_completions_say_how_many_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem_sets, "score", lambda problem, text: 0.0)
    with pytest.raises(RealignError, match="only 0 different right completions of 12"):
        drawn(tmp_path / "samples.jsonl")


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="drawn by one process"):
        drawn(tmp_path / "samples.jsonl")


def test_a_run_learns_from_its_samples_and_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = hardware.resolve("cpu", "float32")
    saved = tuning.run(TINY, SETTINGS, tmp_path / "whole", compute=compute)
    assert saved == {2: tmp_path / "whole" / "step-2", 3: tmp_path / "whole" / "final"}
    card = (saved[3] / "README.md").read_text()
    assert "12 different completions that the base itself drew" in card
    calls = []

    def dies(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        calls.append(state.global_step)
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning.sft.runs.Recorder, "on_log", dies)
        with pytest.raises(KeyboardInterrupt):
            tuning.run(TINY, SETTINGS, tmp_path / "cut", compute=compute)
    tuning.run(TINY, SETTINGS, tmp_path / "cut", compute=compute)
    one, two = (load_file(tmp_path / f / "final" / "adapter_model.safetensors") for f in ("whole", "cut"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert list(pd.read_csv(tmp_path / "whole" / "log.csv").step) == [1, 2, 3]
