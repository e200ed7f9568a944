"""Runs that are broken stop with their step named, those that look it warn; two never write to one place."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from realign.errors import RealignError
from realign.tuning import processes
from realign.tuning.watch import STEPS, Watch


def row(step: int, **values: object) -> dict[str, object]:
    return {
        "step": step,
        "loss": 0.1,
        "grad_norm": 1.0,
        "reward": 0.2,
        "reward_std": 0.3,
        "entropy": 0.9,
    } | values


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan"])
def test_a_number_that_is_none_stops_the_run_and_names_the_step(name: str, value: object) -> None:
    with pytest.raises(RealignError, match=f"step 7: {name} is (nan|inf)"):
        Watch().see(row(7, **{name: value}))


def test_nothing_right_for_20_steps_stops_the_run_also_across_a_resume(tmp_path: Path) -> None:
    useless = [row(step, reward=0.0, reward_std=0.0) for step in range(1, STEPS + 1)]
    watch = Watch()
    for one in useless[:-1]:
        watch.see(one)
    with pytest.raises(RealignError, match=f"step {STEPS}: no completion earned anything for {STEPS} steps"):
        watch.see(useless[-1])
    pd.DataFrame(useless[:-1]).to_csv(tmp_path / "log.csv", index=False)
    resumed = Watch()
    resumed.look_back(tmp_path / "log.csv")
    with pytest.raises(RealignError, match="no completion earned anything"):
        resumed.see(useless[-1])


def test_one_group_with_a_difference_lets_the_run_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch()
    for step in range(1, 3 * STEPS):
        watch.see(row(step, reward=0.0, reward_std=0.1 if step % (STEPS - 1) == 0 else 0.0))
    assert capsys.readouterr().err == ""


def test_rewards_that_are_all_right_and_a_collapsed_policy_warn_with_the_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = Watch()
    for step in range(1, STEPS + 1):
        watch.see(row(step, reward=1.0, reward_std=0.0, entropy=0.001))
    said = capsys.readouterr().err
    assert f"step {STEPS}: all completions of a prompt earned the same" in said
    assert f"step {STEPS}: the policy has collapsed" in said


def test_a_method_without_rewards_is_watched_too() -> None:
    watch = Watch()
    for step in range(1, 2 * STEPS):
        watch.see({"step": step, "loss": 0.1, "grad_norm": 1.0, "entropy": 0.5})


def test_a_second_process_says_that_it_waits_and_waits(tmp_path: Path) -> None:
    place = tmp_path / "run"
    script = (
        "from pathlib import Path\nfrom realign.tuning.processes import alone\n"
        f"with alone(Path({str(place)!r})) as waited:\n    print(waited)\n"
    )
    with processes.alone(place) as waited:
        assert waited is False
        other = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert other.stderr is not None
        assert f"another process is tuning into {place}: waiting" in other.stderr.readline()
        time.sleep(0.3)
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == "True\n"
