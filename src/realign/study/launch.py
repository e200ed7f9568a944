"""Where stages run: in this process, in local workers (one per GPU), or as SLURM jobs.

Every launcher runs the same nodes in an order that respects what they need; a node that is finished
in the store is never submitted, so launching again after a failure continues.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from realign import config as cfg
from realign import progress
from realign.errors import RealignError, UsageError
from realign.study import Node, Study, open_store

LAUNCHERS = ("here", "workers", "slurm")


def run(study: Study, nodes: Sequence[Node], launcher: str = "here", **options: Any) -> int:
    """Compute what is missing for ``nodes``; return how many stages were computed (or submitted).

    Args:
        study: the study that the nodes belong to.
        nodes: what is wanted.
        launcher: ``here``; ``workers`` (options: count, default one per GPU); or ``slurm`` (options
            are submitit's parameters for SLURM, and ``folder`` for logs).
        **options: of the launcher.

    Raises:
        UsageError: for an unknown launcher.
        RealignError: when a stage fails; stages that are finished stay finished.
    """
    missing = study.graph.missing(nodes)
    if launcher == "here":
        with progress.bar(len(missing), "stages", "stage") as bar:
            for node in missing:
                bar.set_postfix_str(node.label)
                study.graph.run(node)
                bar.update()
        return len(missing)
    if launcher == "workers":
        _run_workers(study, missing, **options)
        return len(missing)
    if launcher == "slurm":
        _submit(study, missing, **options)
        return len(missing)
    raise UsageError(f"unknown launcher '{launcher}' (use {', '.join(LAUNCHERS)})")


def compute(profile: dict[str, Any], use_published: bool, key: str, gpu: str | None = None) -> str:
    """Compute one node, named by its key, in a process of its own; return the artifact's path."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    settings = cfg.parse(cfg.Profile, profile, "launched profile")
    study = Study(settings, open_store(published=use_published))
    for node in study.graph.missing(study.nodes()):
        if node.request.key == key:
            return str(study.graph.run(node).path)
    return "finished before"


def _job(study: Study, node: Node) -> tuple[dict[str, Any], bool, str]:
    return study.configuration(), study.store.published is not None, node.request.key


def _run_workers(study: Study, missing: Sequence[Node], count: int | None = None) -> None:
    import torch

    gpus = torch.cuda.device_count()
    count = count or max(gpus, 1)
    waiting, running = list(missing), dict[Future[str], Node]()
    unfinished = {n.request.key for n in missing}
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    started = 0
    try:
        with progress.bar(len(missing), "stages", "stage") as bar:
            while waiting or running:
                for node in [n for n in waiting if not any(m.request.key in unfinished for m in n.needs)]:
                    if len(running) >= count:
                        break
                    gpu = str(started % gpus) if gpus else None
                    running[pool.submit(compute, *_job(study, node), gpu)] = node
                    waiting.remove(node)
                    started += 1
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    node = running.pop(future)
                    try:
                        future.result()
                    except RealignError:
                        raise
                    except Exception as error:
                        raise RealignError(f"stage {node.label} failed: {error}") from error
                    unfinished.discard(node.request.key)
                    bar.update()
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(study: Study, missing: Sequence[Node], folder: str = "artifacts/slurm", **options: Any) -> None:
    try:
        import submitit
    except ImportError:
        raise RealignError("launcher slurm needs submitit: pip install 'realign[slurm]'") from None
    try:
        executor = submitit.SlurmExecutor(folder=folder)
    except Exception as error:
        raise RealignError(f"launcher slurm: no SLURM here ({error}); run on a login node") from None
    jobs: dict[str, str] = {}
    for node in missing:
        after = [jobs[n.request.key] for n in node.needs if n.request.key in jobs]
        extra = {"dependency": "afterok:" + ":".join(after)} if after else {}
        executor.update_parameters(job_name=node.label, additional_parameters=extra, **options)
        jobs[node.request.key] = executor.submit(compute, *_job(study, node)).job_id
    print(f"submitted {len(jobs)} SLURM jobs; logs in {folder}; 'realign status' shows what has finished")
