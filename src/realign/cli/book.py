"""Commands that run the book: the whole, a chapter, and what is there or still missing."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realign.cli.app import Parameters, Profile, command, fresh, parameters
from realign.errors import UsageError

if TYPE_CHECKING:
    from realign.study import Study

IgnorePublished = Annotated[
    bool, typer.Option("--ignore-published", help="compute everything here; finished stages are kept")
]


@command
def book(
    profile: Profile = "laptop",
    ignore_published: IgnorePublished = False,
    launcher: Annotated[str, typer.Option(help="here, workers or slurm: where missing stages run")] = "here",
    strict: Annotated[bool, typer.Option(help="a warning of jupyter-book is an error")] = True,
) -> None:
    """Compute what is missing, run every chapter and compile the site.

    Example: realign book --profile laptop
    """
    from realign.book import chapters, pages, site
    from realign.study import launch, open_study, require

    fresh(ignore_published)
    study = open_study(profile)
    require(study.profile)
    study.models.check_siblings()
    launch.run(study, study.nodes(), launcher)
    if launcher == "slurm":
        return
    for each in chapters.CHAPTERS:
        print(f"chapter {each.name}", file=sys.stderr)
        site.execute(each, {"profile": profile})
    pages.generate()
    print(f"the book: {site.build(strict=strict)}")


@command
def chapter(
    name: Annotated[str, typer.Argument(help="rq1, rq2, rq3 or rq4")],
    parameter: Parameters = None,
    profile: Profile = "laptop",
    build: Annotated[bool, typer.Option(help="compile the site afterwards")] = True,
    ignore_published: IgnorePublished = False,
) -> None:
    """Run one chapter with parameters, computing only what is new, and compile the site.

    Chapters that were never executed here are executed too if everything that they read is there;
    otherwise the site is left as it is.

    Example: realign chapter rq2 -p family smollm2-135m -p k "[5,20]"
    """
    from realign.book import chapters, pages, site
    from realign.study import open_study

    fresh(ignore_published)
    wanted = chapters.find(name)
    given = {"profile": profile, **parameters(parameter)}
    open_study(**wanted.complete(given))  # a wrong value is said before anything runs
    others = [each for each in site.missing_chapters() if each != wanted]
    if build and others:
        study = open_study(str(given["profile"]))
        if absent := study.graph.missing(study.nodes()):
            build = False
            names = ", ".join(each.name for each in others)
            print(
                f"the site is left as it is: {names} never ran here and {len(absent)} results of the profile are "
                f"not computed (realign book --profile {given['profile']} does both)",
                file=sys.stderr,
            )
    print(f"the chapter: {site.execute(wanted, given)}")
    if not build:
        return
    for each in others:
        site.execute(each, {"profile": given["profile"]})
    pages.generate()
    print(f"the book: {site.build()}")


@command
def notebooks(
    folder: Annotated[Path, typer.Option(help="where the .ipynb files go")] = Path("notebooks"),
) -> None:
    """Write the chapters as .ipynb files for papermill and JupyterLab.

    Example: realign notebooks && papermill notebooks/rq2_backbone_geometry.ipynb out.ipynb -p n_texts 50
    """
    from realign.book import chapters

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder for the notebooks")
    for each in chapters.CHAPTERS:
        print(each.convert(folder))


@command
def status(profile: Profile = "laptop") -> None:
    """Show what exists, how big, how old, and what is missing for a profile.

    Example: realign status --profile laptop
    """
    from realign.study import open_study

    study = open_study(profile)
    rows = list(study.store.listing())
    print(f"{'stage':<14}{'layer':<11}{'count':>6}{'MB':>9}  newest")
    for stage, layer in sorted({(each.manifest["stage"], each.layer) for each in rows}):
        group = [each for each in rows if (each.manifest["stage"], each.layer) == (stage, layer)]
        newest = max(datetime.fromisoformat(each.manifest["started"]) for each in group)
        age = _age((datetime.now(UTC) - newest).total_seconds())
        size = sum(each.bytes for each in group) / 1e6
        print(f"{stage:<14}{layer:<11}{len(group):>6}{size:>9.1f}  {age} ago")
    nodes = study.nodes()
    counts = Counter(node.request.stage for node in study.graph.missing(nodes))
    missing = "stages to compute: " + ", ".join(f"{count} {stage}" for stage, count in sorted(counts.items()))
    print(
        f"\nprofile {study.profile.name}: {len(nodes)} results wanted, {missing if counts else 'all there'}"
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@command
def plan(
    profile: Profile = "laptop",
    power: Annotated[
        bool, typer.Option("--power", help="how likely its sizes are to decide the claims")
    ] = False,
) -> None:
    """List the stages that a profile would compute, in order, or the power of its sizes.

    Example: realign plan --profile paper
    """
    from realign.study import open_study

    study = open_study(profile)
    if power:
        _print_power(study)
        return
    missing = study.graph.missing(study.nodes())
    for node in missing:
        print(f"{node.request.key[:12]}  {node.label}")
    print(f"{len(missing)} stages; needs: {', '.join(study.profile.needs) or 'nothing beyond a CPU'}")


def _print_power(study: Study) -> None:
    """Print the chance of a verdict by part and suite, simulated from measured variance components."""
    from realign.findings import power

    table = power.score_power(study.profile, power.components())
    if table.empty:
        raise UsageError(
            f"profile {study.profile.name}: no power can be given (it needs a run of reason, two seeds, and suites "
            "whose sizes are known before they are loaded)"
        )
    for row in table.itertuples():
        print(
            f"C1 {row.suite:<22}{row.part}, {row.tasks} tasks x {row.queries} queries, {row.runs} runs x {row.seeds} "
            f"seeds, variance between runs {row.run_variance:g}: if {row.truth}, power {row.holds:.2f} "
            f"± {row.error:.2f}, half-width {row.half_width:.1f}"
        )
