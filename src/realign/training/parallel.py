"""One training run over several processes, from one flag: the same batches, the work shared.

``ddp:N`` keeps the whole model in each of N processes, ``fsdp:N`` shares its weights out among them too.
On GPUs the processes are started by ``accelerate launch``. On a CPU, where that starts a single one, they
are started by ``torch.distributed.run``, which accelerate itself uses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from realign import config
from realign.config import Backbone, Recipe
from realign.errors import RealignError, UsageError
from realign.hardware import Compute

VARIABLE = "REALIGN_PARALLEL"


def read_flag(flag: str) -> tuple[int, bool]:
    """Read ``ddp:N`` or ``fsdp:N``: the number of processes, and whether the weights are shared out.

    "" is one process, and so is N = 1: it has nobody to share with.

    Raises:
        UsageError: for anything else.
    """
    if not flag:
        return 1, False
    method, _, count = flag.partition(":")
    if method not in ("ddp", "fsdp") or not count.isdigit() or int(count) < 1:
        raise UsageError(
            f"parallel '{flag}' must be ddp:N (the model in each process) or fsdp:N (its weights shared out), "
            "for example ddp:4"
        )
    return int(count), method == "fsdp" and int(count) > 1


def train(
    backbone: Backbone,
    recipe: Recipe,
    seed: int,
    out: Path,
    *,
    local: Path | None,
    compute: Compute,
    work: Path,
    flag: str | None = None,
) -> Path:
    """Train as :func:`realign.training.trainer.train` does, in the number of processes that the flag says.

    The batch is the recipe's whatever the number: each process encodes its share of a batch's texts.

    ``flag`` is ``ddp:N`` or ``fsdp:N`` (None reads the environment variable REALIGN_PARALLEL); the other
    arguments are those of that function.

    Raises:
        RealignError: a process failed.
    """
    count, sharded = read_flag(os.environ.get(VARIABLE, "") if flag is None else flag)
    if count == 1:
        from realign.training import trainer

        return trainer.train(backbone, recipe, seed, out, local=local, compute=compute, work=work)
    work.mkdir(parents=True, exist_ok=True)
    asked = work / "run.json"
    asked.write_text(
        json.dumps(
            {
                "backbone": backbone.model_dump(mode="json"),
                "recipe": recipe.model_dump(mode="json"),
                "seed": seed,
                "out": str(out),
                "local": None if local is None else str(local),
                "work": str(work),
                "device": compute.device.type,
                "dtype": str(compute.dtype).removeprefix("torch."),
                "sharded": sharded,
            }
        )
    )
    done = subprocess.run([*launcher(compute.device.type, count), "-m", __name__, str(asked)], check=False)
    if done.returncode != 0:
        raise RealignError(f"training in {count} processes failed (exit code {done.returncode}): see above")
    return out / "model"


def launcher(device: str, count: int) -> list[str]:
    """Return the command that starts a module in several processes on this machine."""
    if device == "cuda":
        options = ["--multi_gpu", f"--num_processes={count}", "--num_machines=1", "--main_process_port=0"]
        fixed = ["--mixed_precision=no", "--dynamo_backend=no"]
        return [sys.executable, "-m", "accelerate.commands.launch", *options, *fixed]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]


def _process(asked: dict[str, Any]) -> None:
    """Be one of the processes."""
    import torch

    from realign import hardware
    from realign.training import trainer

    if asked["device"] == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    trainer.train(
        config.parse(Backbone, asked["backbone"], "backbone"),
        config.parse(Recipe, asked["recipe"], "recipe"),
        asked["seed"],
        Path(asked["out"]),
        local=Path(asked["local"]) if asked["local"] else None,
        compute=hardware.resolve(asked["device"], asked["dtype"]),
        work=Path(asked["work"]),
        sharded=asked["sharded"],
    )
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        _process(json.loads(Path(sys.argv[1]).read_text()))
    except RealignError as error:
        print(f"realign: {error}", file=sys.stderr)
        sys.exit(1)
