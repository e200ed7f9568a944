"""Commands that measure models, and that publish and verify results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from realign import paths
from realign.cli.app import (
    FamilyName,
    Profile,
    command,
)
from realign.errors import RealignError, UsageError, unknown


@command
def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="ROLE, ROLE:SEED (trained), a sentence-transformers directory, or hub:ORG/NAME"),
    ],
    suite: Annotated[
        list[str] | None, typer.Option("--suite", "-s", help="a suite; the profile's if not given")
    ] = None,
    family: FamilyName = None,
    profile: Profile = "laptop",
    instructed: Annotated[
        bool,
        typer.Option("--instructions/--no-instructions", help="whether the model was trained with any"),
    ] = True,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="run Python code that comes with the model: it can do anything here that you can",
        ),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="means over the tasks that have a score, if some failed")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="of products: auto, float32 or bfloat16; the profile's if not given")
    ] = None,
) -> None:
    """Score an embedding model on suites through mteb; a failed task shows and makes the exit code 1.

    Example: realign evaluate base:0 --suite laptop-code
    """
    from realign.evaluation import run
    from realign.study import open_study

    study = open_study(profile, family=family, dtype=dtype)
    failed = 0
    for name in suite or study.profile.suites:
        frame = study.scoring.evaluate(
            model, name, instructed=instructed, trust_remote_code=trust_remote_code
        )
        tasks = run.task_means(frame)
        means = run.suite_means(tasks, partial=partial)
        for table in (tasks.drop(columns="suite"), means):
            print(table.to_string(index=False, na_rep="-", float_format=lambda x: f"{x:.2f}") + "\n")
        failed += int(means["failed"].sum())
    if failed:
        raise RealignError(
            f"{failed} tasks failed, for the reasons in the table; run it again to try them again"
        )


@command
def export(
    model: Annotated[str, typer.Argument(help="ROLE:SEED, a trained model")],
    output: Annotated[Path, typer.Option("--output", "-o", help="a new directory for the model")],
    family: FamilyName = None,
    profile: Profile = "laptop",
) -> None:
    """Copy a trained model out of the store, with its scores on the profile's suites in the model card.

    Example: realign export reason:0 --output my/reason-emb
    """
    from realign.study import open_study

    role, _, seed = model.partition(":")
    if not seed.isdigit():
        raise UsageError(f"model '{model}' must be ROLE:SEED, for example base:0")
    open_study(profile, family=family).scoring.export(role, int(seed), output)
    print(f"the embedding model: {output} (open it with SentenceTransformer; README.md has its scores)")


@command
def compare(
    a: Annotated[
        str, typer.Argument(help="ROLE[@STEP], ROLE:SEED[@STEP] (trained), path:DIR or hub:ORG/NAME")
    ],
    b: Annotated[str, typer.Argument(help="the other model")],
    family: FamilyName = None,
    profile: Profile = "laptop",
) -> None:
    """Compare two models by HRSA and print the summary.

    Example: realign compare base reason@12
    """
    from realign import hrsa
    from realign.study import open_study

    study = open_study(profile, family=family)
    artifact = study.graph.run(study.similarity.node(study.models.reader(a), study.models.reader(b)))
    print(hrsa.drift_summary(hrsa.Report.load(artifact.path)).to_string(index=False))
    print(f"the report: {artifact.path}")


@command
def publish(profile: Profile = "laptop") -> None:
    """Copy a profile's small results (scores, reports, logs) into data/results, and draw the README's picture.

    Example: realign publish --profile laptop
    """
    from realign.display import figures
    from realign.study import PUBLISHED, open_study

    study = open_study(profile)
    count = 0
    for node in study.nodes():
        if node.request.stage in PUBLISHED:
            artifact = study.store.find(node.request)
            if artifact is None:
                raise RealignError(f"{node.label} is not computed yet: run 'realign book -P {profile}' first")
            study.store.publish(artifact, paths.data() / "results")
            count += 1
    picture = paths.root() / "book" / "_static" / "readme.svg"
    pairs = {kind: study.comparisons(kind) for kind in ("backbone", "embedding")}
    ceilings = [study.noise_ceilings(kind) for kind in pairs]
    figure = figures.before_after(pairs["backbone"], pairs["embedding"], ceilings)
    with figures.style():
        figure.savefig(picture, metadata={"Date": None})
    print(f"{count} results are published in {paths.data() / 'results'}; the README's picture is {picture}")


@command
def verify(
    profile: Profile = "laptop",
    stage: Annotated[str, typer.Option(help="only artifacts of this stage")] = "",
    limit: Annotated[int, typer.Option(help="at most so many artifacts (0: all)")] = 0,
    tolerance: Annotated[float, typer.Option(help="largest difference that counts as the same")] = 1e-3,
) -> None:
    """Compute published results again in a scratch store and compare every number.

    Example: realign verify --stage policy --limit 1
    """
    from realign.study import PUBLISHED, open_study, verify

    if stage and stage not in PUBLISHED:
        raise unknown("published stage", stage, PUBLISHED)
    rows = verify(open_study(profile), stage, limit)
    worst = 0.0
    for label, difference in rows:
        worst = max(worst, difference)
        print(f"{'same' if difference <= tolerance else 'DIFFERENT':<10}{difference:10.2e}  {label}")
    if not rows:
        raise RealignError(f"profile {profile} has no published results of that kind to verify")
    if worst > tolerance:
        raise RealignError(f"a published number differs by {worst:.2e}, more than {tolerance:.0e}")
