"""Tuning: short runs on tiny models write adapters that load, move the model and repeat."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from realign import hardware
from realign.behaviour import problems
from realign.config import Backbone, DType, LoRA, PolicySettings, RLVRSettings, SFTSettings
from realign.errors import RealignError, UsageError
from realign.models import loading
from realign.tuning import adapters, processes, rlvr, runs, sft
from realign.tuning.optimiser import MasterAdamW

TINY = Backbone(source="random:0/llama")
COMMON = {
    "steps": 3,
    "max_new_tokens": 3,
    "save_steps": (2,),
    "validate_every": 2,
    "validation_problems": 4,
    "checkpoint_every": 2,
    "lora": LoRA(rank=2),
}
RLVR = RLVRSettings(prompts=2, completions=4, reward="random", **COMMON)
SFT = SFTSettings(batch_size=4, **COMMON)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("tuned")
    compute = hardware.resolve("cpu", "float32")
    few = PolicySettings(problems=4, samples=1, max_new_tokens=2)
    return {
        "rlvr": (rlvr.run(TINY, RLVR, out / "rlvr", compute=compute, evaluation=few), out / "rlvr"),
        "sft": (sft.run(TINY, SFT, out / "sft", compute=compute, evaluation=few), out / "sft"),
    }


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_a_run_writes_adapters_that_load_and_moved(made: dict[str, Any], method: str) -> None:
    saved, out = made[method]
    assert saved == {2: out / "step-2", 3: out / "final"}
    base = loading.load_lm(TINY)[0].state_dict()
    moved = {}
    for step, folder in saved.items():
        assert {p.name for p in folder.iterdir()} == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        assert all(
            t.dtype == torch.bfloat16 for t in load_file(folder / "adapter_model.safetensors").values()
        )
        tuned = loading.load_lm(Backbone(source=f"adapter:{folder}", base=TINY))[0].state_dict()
        moved[step] = sum(float((tuned[k] - base[k]).abs().sum()) for k in base)
    assert 0 < moved[2] < moved[3]


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_the_log_has_one_row_a_step_with_the_promised_columns(made: dict[str, Any], method: str) -> None:
    with (made[method][1] / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows] == [1, 2, 3]
    promised = {
        "rlvr": {"reward", "entropy", "kl", "completion_length"},
        "sft": {"loss", "token_accuracy"},
    }[method]
    assert promised <= rows[0].keys()
    assert all(value != "" for row in rows for value in row.values())


def test_the_logged_kl_is_zero_before_the_first_update_and_grows(made: dict[str, Any]) -> None:
    rows = pd.read_csv(made["rlvr"][1] / "log.csv")
    assert rows.kl[0] == pytest.approx(0, abs=1e-6)  # the warm-up's first step has rate 0
    assert rows.kl[2] > 1e-6


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_a_run_is_measured_on_validation_problems_from_step_0_on(made: dict[str, Any], method: str) -> None:
    rows = pd.read_csv(made[method][1] / "validation.csv")
    assert list(rows.step) == [0, 2]
    assert list(rows.n) == [4, 4]
    assert rows.kl[0] == pytest.approx(0, abs=1e-6)
    assert rows.kl[1] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_a_killed_run_goes_on_and_ends_bit_identical(
    method: str, dtype: DType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, settings = {"rlvr": (rlvr, RLVR), "sft": (sft, SFT)}[method]
    # One step more than the state that is resumed from would not tell a run that no longer learns.
    settings = settings.model_copy(update={"steps": 4, "learning_rate": 1e-2})
    compute = hardware.resolve("cpu", dtype)
    whole = tmp_path / "whole"
    runner.run(TINY, settings, whole, compute=compute)
    cut = tmp_path / "cut"
    real = runs.Recorder.on_log
    hits = []

    def dies(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        hits.append(state.global_step)
        if state.global_step == 3:
            raise KeyboardInterrupt
        real(self, args, state, control, **kwargs)

    monkeypatch.setattr(runs.Recorder, "on_log", dies)
    with pytest.raises(KeyboardInterrupt):
        runner.run(TINY, settings, cut, compute=compute)
    other = settings.model_copy(update={"seed": 5})
    with pytest.raises(UsageError, match="unfinished run with other settings"):
        runner.run(TINY, other, cut, compute=compute)
    monkeypatch.setattr(runs.Recorder, "on_log", real)
    runner.run(TINY, settings, cut, compute=compute)
    for step in ("step-2", "final"):
        one, two = (load_file(f / step / "adapter_model.safetensors") for f in (cut, whole))
        assert all(torch.equal(one[k], two[k]) for k in one)
    columns = ["step", "loss", "grad_norm"]
    again, once = (pd.read_csv(f / "log.csv")[columns] for f in (cut, whole))
    pd.testing.assert_frame_equal(again, once)
    assert not (cut / "state").exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By method: a finished run, and one that was killed in step 3 with checkpoints of steps 1 and 2."""
    runs_by_method = {}
    for method, (runner, settings) in {"rlvr": (rlvr, RLVR), "sft": (sft, SFT)}.items():
        out = tmp_path_factory.mktemp(method)
        settings = settings.model_copy(update=STOPPED)
        runner.run(TINY, settings, out / "whole", compute=hardware.resolve("cpu", "float32"))
        with pytest.MonkeyPatch.context() as patch:
            real = runs.Recorder.on_log

            def dies(self: Any, args: Any, state: Any, control: Any, real: Any = real, **kwargs: Any) -> None:
                if state.global_step == 3:
                    raise KeyboardInterrupt
                real(self, args, state, control, **kwargs)

            patch.setattr(runs.Recorder, "on_log", dies)
            with pytest.raises(KeyboardInterrupt):
                runner.run(TINY, settings, out / "cut", compute=hardware.resolve("cpu", "float32"))
        runs_by_method[method] = out / "whole", out / "cut"
    return runs_by_method


STOPPED = {"steps": 4, "learning_rate": 1e-2, "checkpoint_every": 1, "validate_every": 0}
DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "changed": lambda file: file.write_bytes(bytes(b ^ 1 for b in file.read_bytes())),
}


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_a_checkpoint_that_is_not_whole_is_skipped(
    stopped: dict[str, tuple[Path, Path]], method: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shutil.copytree(stopped[method][1] / "state", state)
    names = sorted(f.name for f in (state / "checkpoint-2").iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "contents.json"} <= set(names)
    assert runs.last_checkpoint(state) == str(state / "checkpoint-2")
    for name in names:
        for damage in DAMAGES.values():
            file = state / "checkpoint-2" / name
            whole = file.read_bytes()
            damage(file)
            assert runs.last_checkpoint(state) == str(state / "checkpoint-1"), name
            file.write_bytes(whole)
    shutil.rmtree(state / "checkpoint-1")
    (state / "checkpoint-2" / "contents.json").unlink()
    assert runs.last_checkpoint(state) is None


@pytest.mark.parametrize("damaged", [(), (2,), (1, 2)])
@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_a_run_with_damaged_checkpoints_ends_with_the_same_bits(
    stopped: dict[str, tuple[Path, Path]], method: str, damaged: tuple[int, ...], tmp_path: Path
) -> None:
    whole, cut = stopped[method]
    out = tmp_path / "again"
    shutil.copytree(cut, out)
    for step in damaged:
        (out / "state" / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"")
    if damaged:  # a kill leaves half a row, or nothing, of the table as well
        log = out / "log.csv"
        log.write_text("" if len(damaged) > 1 else log.read_text()[:-5])
    runner, settings = {"rlvr": (rlvr, RLVR), "sft": (sft, SFT)}[method]
    settings = settings.model_copy(update=STOPPED)
    saved = runner.run(TINY, settings, out, compute=hardware.resolve("cpu", "float32"))
    assert saved == {2: out / "step-2", 4: out / "final"}
    for step in ("step-2", "final"):
        one, two = (load_file(f / step / "adapter_model.safetensors") for f in (out, whole))
        assert all(torch.equal(one[k], two[k]) for k in one)
    logs = [pd.read_csv(f / "log.csv")[["step", "loss", "grad_norm"]] for f in (out, whole)]
    pd.testing.assert_frame_equal(*logs)


def test_a_run_killed_after_its_last_checkpoint_still_names_its_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SFT.model_copy(update={"steps": 2, "validate_every": 0})
    compute = hardware.resolve("cpu", "float32")

    def dies(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            sft.run(TINY, settings, tmp_path, compute=compute)
    assert sft.run(TINY, settings, tmp_path, compute=compute) == {2: tmp_path / "final"}


@pytest.mark.parametrize("place", ["optimizer.pt", "contents.json", "adapter_model.safetensors"])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_space(
    place: str, stopped: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SFT.model_copy(update=STOPPED)
    compute = hardware.resolve("cpu", "float32")
    with monkeypatch.context() as patch:
        if place == "contents.json":
            patch.setattr(runs, "_write", _full(runs._write, lambda file, *_: file.name == place))
        elif place == "optimizer.pt":
            patch.setattr(torch, "save", _full(torch.save, lambda _, file, *__: str(file).endswith(place)))
        else:
            patch.setattr(runs.adapters, "save_adapter", _full(adapters.save_adapter, lambda *_: True))
        with pytest.raises(RealignError, match=r"the disk that holds .* is full: free some space"):
            sft.run(TINY, settings, tmp_path, compute=compute)
    saved = sft.run(TINY, settings, tmp_path, compute=compute)
    one, two = (load_file(f / "adapter_model.safetensors") for f in (saved[4], stopped["sft"][0] / "final"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def _full(write: Any, where: Any) -> Any:
    """Let a function write as before, and fail where the disk is said to be full, from its second call on."""
    calls = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if where(*args):
            calls.append(args)
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*args, **kwargs)

    return wrapped


def test_answers_that_are_cut_off_are_counted_and_refused(tmp_path: Path) -> None:
    long = {"min_terms": 120, "max_terms": 150, "min_digits": 4, "max_digits": 4}
    with pytest.raises(
        RealignError, match=r"12 of 12 training examples of chain_sum have prompts of 512 tokens"
    ):
        sft.run(TINY, SFT.model_copy(update={"task_options": long}), tmp_path)


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_tuning_shows_its_own_progress_and_nothing_else(
    method: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runner, settings = {"rlvr": (rlvr, RLVR), "sft": (sft, SFT)}[method]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner.run(
            TINY,
            settings.model_copy(update={"steps": 1}),
            tmp_path,
            compute=hardware.resolve("cpu", "float32"),
        )
    lines = re.split(r"[\r\n]+", capfd.readouterr().err)
    assert [line for line in lines if line.strip() and not line.startswith((method, "policy"))] == []
    assert caught == []


def test_a_table_that_an_older_version_began_gains_the_new_columns(tmp_path: Path) -> None:
    recorder = runs.Recorder(tmp_path, TINY, RLVR, {})
    pd.DataFrame({"step": [1, 2], "loss": [0.5, 0.25]}).to_csv(tmp_path / "log.csv", index=False)
    for step in (3, 4):
        recorder._append("log.csv", {"step": step, "kl": 0.1, "loss": 0.125})
    table = pd.read_csv(tmp_path / "log.csv")
    assert table["step"].tolist() == [1, 2, 3, 4]
    assert table["loss"].tolist() == [0.5, 0.25, 0.125, 0.125]
    assert table["kl"].isna().tolist() == [True, True, False, False]


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_nothing_in_an_adapter_names_a_place_on_this_machine(made: dict[str, Any], method: str) -> None:
    for folder in made[method][0].values():
        card = (folder / "README.md").read_text()
        assert "random:0/llama" in card
        assert "greedy accuracy" in card
        for text in (card, (folder / "adapter_config.json").read_text()):
            assert str(Path.home()) not in text
            assert "/tmp" not in text


def test_the_same_seed_gives_the_same_adapter(made: dict[str, Any], tmp_path: Path) -> None:
    again = sft.run(TINY, SFT, tmp_path, compute=hardware.resolve("cpu", "float32"))
    one, two = (load_file(f / "adapter_model.safetensors") for f in (again[3], made["sft"][0][3]))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert "not measured" in (again[3] / "README.md").read_text()


def test_the_reward_is_the_verifiers_score() -> None:
    tasks = problems.load(RLVR.task, RLVR.task_options, "train", 3)
    reward = rlvr.reward_function(tasks, "verifier", 0)
    completions = [f" {tasks[2].answer}", " 1234", f" {tasks[1].answer}\nand more"]
    expected = [problems.score(tasks[i], c) for i, c in zip((2, 0, 1), completions, strict=True)]
    assert reward(completions=completions, problem=[2, 0, 1], prompts=[]) == expected == [1.0, 0.0, 1.0]


def test_the_random_reward_ignores_the_completion() -> None:
    one, two = (rlvr.reward_function([], "random", 3) for _ in range(2))
    state = SimpleNamespace(global_step=7)
    a = one(completions=["right"] * 400, trainer_state=state)
    b = two(completions=["wrong"] * 400, trainer_state=state)
    assert a == b
    assert set(a) == {0.0, 1.0}
    assert 0.4 < sum(x or 0 for x in a) / 400 < 0.6


def test_float32_copies_keep_updates_that_bfloat16_would_lose() -> None:
    def stepped(optimiser: type[torch.optim.Optimizer], **options: Any) -> float:
        weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        opt = optimiser([weight], lr=1e-3, **options)  # a step of 0.001 is below half a unit of bfloat16 at 1
        for _ in range(40):
            weight.grad = torch.ones_like(weight)
            opt.step()
        return float(weight.detach())

    assert stepped(torch.optim.AdamW, weight_decay=0.0) == 1.0
    assert stepped(MasterAdamW) == pytest.approx(1 - 40e-3, abs=4e-3)


def test_tuning_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="starts from a base"):
        sft.run(Backbone(source="adapter:x", base=TINY), SFT, tmp_path)


def test_a_warm_start_is_sft_that_rlvr_goes_on_from(tmp_path: Path) -> None:
    settings = RLVR.model_copy(update={"steps": 1, "warm_start": 2, "style": "working", "save_steps": ()})
    compute = hardware.resolve("cpu", "float32")
    saved = rlvr.run(TINY, settings, tmp_path, compute=compute)
    warm = load_file(tmp_path / "warm-start" / "final" / "adapter_model.safetensors")
    tuned = load_file(saved[1] / "adapter_model.safetensors")
    assert warm.keys() == tuned.keys()
    assert any(float(t.float().abs().sum()) > 0 for k, t in warm.items() if "lora_B" in k)
    # The only step of RLVR has rate 0 (the warm-up's start), so what was saved is what SFT left.
    assert all(torch.equal(warm[k], tuned[k]) for k in warm)
    assert "2 steps of SFT on worked answers" in (saved[1] / "README.md").read_text()


def test_a_sibling_is_measured_in_the_style_it_was_tuned_in() -> None:
    asked = PolicySettings(problems=4, max_new_tokens=6)
    assert asked.for_tuning(RLVR) is asked
    worked = asked.for_tuning(RLVR.model_copy(update={"style": "working", "max_new_tokens": 48}))
    assert (worked.style, worked.max_new_tokens, worked.problems) == ("working", 48, 4)


@pytest.mark.parametrize("method", ["rlvr", "sft"])
def test_two_processes_share_a_batch_and_one_of_them_writes(tmp_path: Path, method: str) -> None:
    script = tmp_path / "go.py"
    settings = {"rlvr": RLVR, "sft": SFT}[method].model_copy(update={"validate_every": 0})
    script.write_text(
        "from pathlib import Path\n"
        "from realign import config, hardware, tuning\n"
        f"base = config.Backbone(source={TINY.source!r})\n"
        f"settings = config.{type(settings).__name__}(**{settings.model_dump()!r})\n"
        f"tuning.run(base, settings, Path({str(tmp_path / 'out')!r}), compute=hardware.resolve('cpu', 'float32'))\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    log = pd.read_csv(tmp_path / "out" / "log.csv")
    assert list(log.step) == [1, 2, 3]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"final", "log.csv", "step-2"}


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes.share(12, "examples") == 4
    with pytest.raises(UsageError, match="64 completions a step cannot be shared evenly by 3 processes"):
        processes.share(64, "completions")


def test_vllm_writes_completions_only_where_it_is_installed_on_a_gpu() -> None:
    assert not rlvr.generates_with_vllm(hardware.resolve("cpu", "float32"))
