"""Where stages run: in this process, in local workers (one per GPU), or as SLURM jobs.

Every launcher runs the same nodes in an order that respects what they need; a node that is finished
in the store is never submitted, so launching again after a failure continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from realign import config as cfg
from realign import progress
from realign.errors import RealignError, UsageError
from realign.study import Node, Study, open_store, workers

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


def compute(profile: dict[str, Any], use_published: bool, key: str) -> str:
    """Compute one node, named by its key, in a process of its own; return the artifact's path."""
    settings = cfg.parse(cfg.Profile, profile, "launched profile")
    study = Study(settings, open_store(published=use_published))
    for node in study.graph.missing(study.nodes()):
        if node.request.key == key:
            return str(study.graph.run(node).path)
    return "finished before"


def _job(study: Study, node: Node) -> tuple[dict[str, Any], bool, str]:
    return study.configuration(), study.store.published is not None, node.request.key


def _run_workers(study: Study, missing: Sequence[Node], count: int | None = None) -> None:
    waiting = list(missing)
    unfinished = {node.request.key: node for node in missing}
    pool: workers.Workers[Node] = workers.Workers(compute, count)
    with pool, progress.bar(len(missing), "stages", "stage") as bar:
        while unfinished:
            for node in [n for n in waiting if not any(m.request.key in unfinished for m in n.needs)]:
                if not pool.idle:
                    break
                pool.submit(node, f"stage {node.label}", _job(study, node))
                waiting.remove(node)
            for node in pool.wait():
                del unfinished[node.request.key]
                bar.update()


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
