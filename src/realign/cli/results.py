"""Commands that measure models, and that publish and verify results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realign import paths
from realign.cli.app import Family, Output, Profile, command
from realign.config import DEFAULT_PROFILE
from realign.config.naming import GRAMMAR
from realign.errors import RealignError, UsageError

if TYPE_CHECKING:
    from realign.study import Study

Model = Annotated[str, typer.Argument(help=GRAMMAR)]


@command
def evaluate(
    model: Model,
    suite: Annotated[
        list[str] | None, typer.Option("--suite", "-s", help="a suite; the profile's if not given")
    ] = None,
    family: Family = "",
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
        str, typer.Option(help="of products: auto, float32 or bfloat16; the profile's if not given")
    ] = "",
) -> None:
    """Score an embedding model on suites through mteb; a failed task shows and makes the exit code 1.

    Example: realign evaluate base:0 --suite laptop-code
    """
    from realign.evaluation import run
    from realign.study import open_study

    study = open_study(profile, family=family, dtype=dtype)
    failed = 0
    for name in suite or study.profile.suites:
        frame = study.evaluate.score(model, name, instructed=instructed, trust_remote_code=trust_remote_code)
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
    model: Annotated[str, typer.Argument(help="ROLE:SEED or ROLE:SEED@STEP, a trained model")],
    output: Output,
    family: Family = "",
    profile: Profile = "laptop",
) -> None:
    """Copy a trained model out of the store, with its scores on the profile's suites in the model card.

    Example: realign export reason:0 --output my/reason-emb
    """
    from realign.study import open_study
    from realign.study.export import export_model

    export_model(open_study(profile, family=family), model, Path(output))
    print(f"the embedding model: {output} (open it with SentenceTransformer; README.md has its scores)")


@command
def compare(
    a: Model,
    b: Annotated[str, typer.Argument(help="the other model")],
    family: Family = "",
    profile: Profile = "laptop",
) -> None:
    """Compare two models by HRSA and print the summary.

    Example: realign compare base reason@12
    """
    from realign import hrsa
    from realign.study import open_study

    study = open_study(profile, family=family)
    first, second = study.models.reader(a), study.models.reader(b)
    artifact = study.graph.run(study.compare.node(first, second, sinks=first))
    print(hrsa.Report.load(artifact.path).summary().to_string(index=False))
    print(f"the report: {artifact.path}")


@command
def publish(profile: Profile = DEFAULT_PROFILE) -> None:
    """Copy a profile's small results (scores, reports, logs) into data/results; damaged ones are replaced.

    The default profile also draws the README's picture.

    Example: realign publish --profile laptop
    """
    from realign.study import PUBLISHED, open_study

    study = open_study(profile)
    artifacts = []
    for node in study.nodes():
        if node.request.stage in PUBLISHED:
            artifact = study.store.find(node.request)
            if artifact is None:
                raise RealignError(f"{node.label} is not computed yet: run 'realign book -P {profile}' first")
            artifacts.append(artifact)
    for artifact in artifacts:
        study.store.publish(artifact, paths.data() / "results")
    print(f"{len(artifacts)} results are published in {paths.data() / 'results'}")
    if profile == DEFAULT_PROFILE:
        picture = paths.root() / "book" / "_static" / "readme.svg"
        draw_picture(study, picture)
        print(f"the README's picture: {picture}")


def draw_picture(study: Study, picture: Path) -> None:
    """Draw the README's picture: every pair of roles before and after contrastive learning."""
    from realign.display import figures

    reports = {kind: study.compare.reports(kind) for kind in ("backbone", "embedding")}
    ceilings = [study.compare.ceilings(kind) for kind in reports]
    with figures.style():
        figure = figures.before_after(reports["backbone"], reports["embedding"], ceilings)
        figure.savefig(picture, metadata={"Date": None})


@command
def verify(
    profile: Profile = "laptop",
    stage: Annotated[str, typer.Option(help="only artifacts of this stage")] = "",
    limit: Annotated[int, typer.Option(min=0, help="at most so many artifacts (0: all)")] = 0,
    tolerance: Annotated[float, typer.Option(help="largest difference that counts as the same")] = 1e-3,
) -> None:
    """Compute published results again in a scratch store and compare every number.

    Example: realign verify --stage policy --limit 1
    """
    from realign import study

    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError(f"tolerance {tolerance}: a number from 0 on is needed, or nothing could fail")
    checked, differing, worst = 0, 0, 0.0
    for label, difference in study.verify(study.open_study(profile), stage, limit):
        same = difference <= tolerance
        print(f"{'same' if same else 'DIFFERENT':<10}{difference:10.2e}  {label}", flush=True)
        checked, differing, worst = checked + 1, differing + (not same), max(worst, difference)
    if differing:
        raise RealignError(
            f"{differing} of {checked} published results differ, by up to {worst:.2e} (allowed: {tolerance:g})"
        )
    print(f"{checked} published results were computed again; the largest difference is {worst:.2e}")
