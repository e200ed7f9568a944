"""One training run over several processes, from one flag: the same batches, the work shared.

``ddp:N`` keeps the whole model in each of N processes, ``fsdp:N`` shards its weights among them too.
On GPUs the processes are started by ``accelerate launch``. On a CPU, where that starts a single one, they
are started by ``torch.distributed.run``, which accelerate itself uses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from pydantic import TypeAdapter

from realign import hardware
from realign.errors import RealignError, full_disk_as_sentence
from realign.training import trainer
from realign.training.run import VARIABLE, Run, read_flag

RUN = TypeAdapter(Run)


def train(run: Run, flag: str | None = None) -> Path:
    """Train as :func:`realign.training.trainer.train` does, in the number of processes that the flag says.

    The batch is the recipe's whatever the number: each process encodes its share of a batch's texts.

    Args:
        run: what to train.
        flag: ``ddp:N`` or ``fsdp:N``; None reads the environment variable REALIGN_PARALLEL.

    Raises:
        RealignError: a process failed.
    """
    count, sharded = read_flag(os.environ.get(VARIABLE, "") if flag is None else flag)
    if count == 1:
        return trainer.train(run)
    with full_disk_as_sentence(run.work):
        run.work.mkdir(parents=True, exist_ok=True)
        file = run.work / "run.json"
        file.write_bytes(RUN.dump_json(run))
    device = hardware.resolve(run.device).device.type
    arguments = [str(file), str(os.getpid()), *(["sharded"] if sharded else [])]
    done = subprocess.run([*launcher(device, count), "-m", __name__, *arguments], check=False)
    if done.returncode != 0:
        raise RealignError(f"training in {count} processes failed (exit code {done.returncode}): see above")
    return run.out / "model"


def launcher(device: str, count: int) -> list[str]:
    """Return the command that starts a module in several processes on this machine."""
    if device == "cuda":
        options = ["--multi_gpu", f"--num_processes={count}", "--num_machines=1", "--main_process_port=0"]
        fixed = ["--mixed_precision=no", "--dynamo_backend=no"]
        return [sys.executable, "-m", "accelerate.commands.launch", *options, *fixed]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]


def _train_in_one_process(run: Run, sharded: bool) -> None:
    """Train as one of the processes that :func:`train` has started."""
    if hardware.resolve(run.device).device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    trainer.train(run, sharded=sharded)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        hardware.end_with(int(sys.argv[2]))
        _train_in_one_process(RUN.validate_json(Path(sys.argv[1]).read_bytes()), "sharded" in sys.argv[3:])
    except RealignError as error:
        print(f"realign: {error}", file=sys.stderr)
        sys.exit(1)
