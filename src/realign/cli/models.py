"""Commands that make models: tuning, hard negatives, recipes and contrastive learning."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from realign import config, paths
from realign.cli.app import Family, MaybeSeed, Output, Profile, Role, Seed, command, tune_app
from realign.errors import RealignError

Steps = Annotated[int | None, typer.Option(help="optimiser steps; the profile's if not given")]


def _tune(
    family: str, output: str, profile: str, steps: int | None, seed: int | None,
    method: Literal["rlvr", "sft", ""] = "", role: str = "",
) -> None:  # fmt: skip
    from realign.tuning.processes import alone, rank

    place = paths.check_new(Path(output), "the adapter")
    with alone(place) as waited:
        if waited and (place / "final").is_dir():
            print(f"the adapters: {place} (made by the process that was waited for)")
            return
        _tune_alone(place, family, profile, steps, seed, method, role)
    if rank() == 0:
        print(f"the adapters: {place} (final and checkpoints; log.csv has the steps)")


def _tune_alone(
    place: Path, family: str, profile: str, steps: int | None, seed: int | None, method: str, role: str
) -> None:
    from realign import tuning
    from realign.study import open_study
    from realign.tuning.processes import rank

    study = open_study(profile, family=family)
    if role:
        settings = study.models.tuning(role)
    else:
        settings = study.profile.rlvr if method == "rlvr" else study.profile.sft
    asked = {"seed": seed, "steps": steps}
    changes = {name: value for name, value in asked.items() if value is not None}
    settings = config.parse(type(settings), settings.model_dump() | changes, f"tune {role or method}")
    # Unfinished work stays beside the output, so that the same command goes on after a kill.
    work = place.with_name(f".{place.name}.tmp")
    work.mkdir(parents=True, exist_ok=True)
    base = study.models.base
    assert base.backbone is not None
    tuning.run(base.backbone, settings, work, local=study.models.local(base), evaluation=study.profile.policy)
    if rank() > 0:
        return
    if place.is_dir():
        place.rmdir()
    work.rename(place)


@tune_app.command("rlvr")
def tune_rlvr(
    output: Output,
    family: Family = "",
    profile: Profile = "laptop",
    steps: Steps = None,
    seed: MaybeSeed = None,
) -> None:
    """Make a `reason` sibling: GRPO on reasoning_gym problems scored by the task's own verifier.

    Example: realign tune rlvr --output my/reason --steps 36
    """
    _tune(family, output, profile, steps, seed, method="rlvr")


@tune_app.command("sft")
def tune_sft(
    output: Output,
    family: Family = "",
    profile: Profile = "laptop",
    steps: Steps = None,
    seed: MaybeSeed = None,
) -> None:
    """Make an `sft` sibling: supervised fine-tuning on worked answers to the same problems.

    Example: realign tune sft --output my/sft --steps 36
    """
    _tune(family, output, profile, steps, seed, method="sft")


@tune_app.command("role")
def tune_role(
    role: Role, output: Output, family: Family = "", profile: Profile = "laptop",
    steps: Steps = None, seed: MaybeSeed = None,
) -> None:  # fmt: skip
    """Make a sibling again exactly as the registry says (its entry under `tuning`).

    On several GPUs, with the same batches: accelerate launch --num_processes 4 $(which realign) tune role ...
    Completions are written by vLLM where it is installed and there is a GPU.

    Example: realign tune role random-reward --output my/random-reward
    """
    _tune(family, output, profile, steps, seed, role=role)


@command
def train(
    role: Role = "base",
    seed: Seed = 0,
    family: Family = "",
    profile: Profile = "laptop",
    parallel: Annotated[
        str,
        typer.Option(
            envvar="REALIGN_PARALLEL",
            help="ddp:N shares every batch among N processes, fsdp:N the weights as well",
        ),
    ] = "",
) -> None:
    """Train the embedding model of one role and seed by the profile's recipe.

    Example: realign train reason --seed 1
    """
    from realign.study import open_study
    from realign.training.run import VARIABLE, read_flag

    read_flag(parallel)
    os.environ[VARIABLE] = parallel
    study = open_study(profile, family=family)
    artifact = study.graph.run(study.train.node(role, seed))
    print(f"the embedding model: {artifact.path / 'model'} (open it with SentenceTransformer)")


@command
def mine(
    name: Annotated[
        str, typer.Argument(help="a training set: docs, code, messages, problems, hub:NAME or file:PATH")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON lines to write; train on it as file:PATH")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="the miner: what SentenceTransformer opens, a directory or a hub name"
        ),
    ] = "Qwen/Qwen3-Embedding-0.6B",
    queries: Annotated[
        int | None, typer.Option(min=1, help="mine for so many queries, drawn by the seed; all if not given")
    ] = None,
    negatives: Annotated[int, typer.Option(min=1, help="negatives a query")] = 3,
    first: Annotated[int, typer.Option(min=1, help="how many nearest passages are looked at")] = 100,
    relative_margin: Annotated[
        float, typer.Option(min=0, max=1, help="a negative stays this share below its positive")
    ] = 0.05,
    short: Annotated[
        Literal["keep", "drop"], typer.Option(help="keep or drop queries with fewer negatives")
    ] = "keep",
    seed: Seed = 0,
) -> None:
    """Find hard negatives for a training set with an embedding model, and report how many there are.

    Example: realign mine docs -o mined/docs.jsonl -m path/to/model --queries 1000
    """
    from realign.models.pretrained import quiet
    from realign.texts import pairs
    from realign.training import mining

    chosen = pairs.load(name).take(queries, seed)
    from sentence_transformers import SentenceTransformer

    try:
        with quiet():
            miner = SentenceTransformer(model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise RealignError(f"cannot open the embedding model {model}: {reason}") from None
    mined, report = mining.mine(
        chosen, miner, n=negatives, first=first, relative_margin=relative_margin, short=short
    )
    pairs.write(mined, output)
    print(json.dumps(asdict(report), indent=2))
    print(f"the training set: {output} ({len(mined)} queries; use it in a recipe as 'file:{output}')")


@command
def sweep(
    grid: Annotated[
        Path, typer.Argument(help="TOML: a table of changed recipe settings for each row")
    ] = Path("data/sweeps/laptop-recipe.toml"),
    table: Annotated[
        Path | None, typer.Option("--table", help="CSV to add to; the grid's name if not given")
    ] = None,
    role: Annotated[str, typer.Option(help="the backbone to start from")] = "base",
    family: Family = "",
    profile: Profile = "laptop",
) -> None:
    """Try recipes on validation pairs of the training side and record them; rows that are there are kept.

    Example: realign sweep data/sweeps/laptop-recipe.toml
    """
    from realign.study import open_study
    from realign.training import sweep as sweeps

    study = open_study(profile, family=family)
    model = study.models.model(role)
    rows = sweeps.run(
        study.models.backbone(model),
        study.profile.recipe,
        config.read_toml(grid),
        table or grid.with_suffix(".csv"),
        study.store.root / ".work" / "sweep",
        local=study.models.local(model),
        device=study.profile.device,
    )
    print(rows.to_string(index=False, na_rep=""))
