"""Processes of this machine that run stages one after the other, each with a GPU of its own where there are any."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from realign import hardware
from realign.errors import RealignError, UsageError

J = TypeVar("J")
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Worker:
    """A process and our end of the pipe to it."""

    process: SpawnProcess
    pipe: Connection


def devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; none on a CPU."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


class Workers(Generic[J]):
    """A fixed number of processes; a context manager. Leaving it with an interrupt ends them at once.

    A worker keeps its GPU for life, sees no other, and ends when this process does, however that ends.

    Args:
        function: what they run; importable.
        count: how many; None is one for each GPU, or one.

    Raises:
        UsageError: more workers than GPUs, of which each needs one.
    """

    def __init__(self, function: Callable[..., Any], count: int | None = None) -> None:
        gpus = devices()
        if count is not None and (count < 1 or (gpus and count > len(gpus))):
            raise UsageError(f"{count} workers: use 1 to {len(gpus) or 'as many as the memory holds'}")
        self.idle: list[Worker] = []
        self.running: dict[Connection, tuple[Worker, J, str]] = {}
        try:
            for gpu in (gpus or [""] * (count or 1))[:count]:
                self.idle.append(_start(function, gpu))
        except BaseException:
            self._end(at_once=True)
            raise

    def submit(self, job: J, label: str, arguments: Sequence[object]) -> None:
        """Start a job on an idle worker, of which there has to be one; ``label`` names it in errors."""
        worker = self.idle.pop(0)
        worker.pipe.send(arguments)
        self.running[worker.pipe] = worker, job, label

    def wait(self) -> list[J]:
        """Wait until a job is done and return those that are.

        Raises:
            RealignError: a job failed, or its process was killed.
        """
        done = []
        for ready in connection.wait(list(self.running)):
            worker, job, label = self.running.pop(cast(Connection, ready))
            try:
                problem = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                raise RealignError(
                    f"{label} failed: its process ended with exit code {worker.process.exitcode} "
                    "(-9 is often too little memory)"
                ) from None
            self.idle.append(worker)
            if problem is not None:
                raise RealignError(f"{label} failed: {problem}")
            done.append(job)
        return done

    def __enter__(self) -> Workers[J]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._end(at_once=kind is not None and not issubclass(kind, Exception))

    def _end(self, *, at_once: bool) -> None:
        everyone = [*self.idle, *(worker for worker, *_ in self.running.values())]
        for worker in everyone:
            worker.pipe.close()  # an idle worker ends; a busy one when it has finished its job
            if at_once:
                worker.process.terminate()
        for worker in everyone:
            worker.process.join()


def _start(function: Callable[..., Any], gpu: str) -> Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs, os.getpid()), daemon=False)
    with _visible(gpu):  # before anything of the worker's can look for GPUs
        process.start()
    theirs.close()
    return Worker(process, ours)


@contextmanager
def _visible(gpu: str) -> Iterator[None]:
    before = os.environ.get(VISIBLE)
    if gpu:
        os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        if gpu and before is None:
            del os.environ[VISIBLE]
        elif before is not None:
            os.environ[VISIBLE] = before


def _serve(function: Callable[..., Any], pipe: Connection, parent: int) -> None:
    """Run jobs until the pipe is closed; None for one that is done, else what was wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what becomes of us
    hardware.end_with(parent)
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        try:
            function(*arguments)
            problem = None
        except RealignError as error:
            problem = str(error)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        try:
            pipe.send(problem)
        except OSError:  # nobody waits for it any more
            return
