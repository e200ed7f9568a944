"""Commands that run the book: the whole, a chapter, and what is there or still missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from realign.cli.app import (
    Parameters,
    Profile,
    command,
    fresh,
    parameters,
)


@command
def book(
    profile: Profile = "laptop",
    ignore_published: Annotated[
        bool, typer.Option("--ignore-published", help="compute everything here; finished stages go on")
    ] = False,
    launcher: Annotated[str, typer.Option(help="here, workers or slurm: where missing stages run")] = "here",
    strict: Annotated[bool, typer.Option(help="a warning of jupyter-book is an error")] = True,
) -> None:
    """Compute what is missing, run the four chapters and compile the site.

    Example: realign book --profile laptop
    """
    from realign.book import chapters
    from realign.study import launch, open_study, require

    fresh(ignore_published)
    study = open_study(profile)
    require(study.profile)
    launch.run(study, study.nodes(), launcher)
    if launcher == "slurm":
        return
    for chapter in chapters.CHAPTERS:
        print(f"chapter {chapter}", file=sys.stderr)
        chapters.execute(chapter, {"profile": profile})
    chapters.generate_pages(study)
    print(f"the book: {chapters.build_site(strict=strict)}")


@command
def chapter(
    name: Annotated[str, typer.Argument(help="rq1, rq2, rq3 or rq4")],
    parameter: Parameters = None,
    profile: Profile = "laptop",
    build: Annotated[bool, typer.Option(help="compile the site afterwards")] = True,
    ignore_published: Annotated[bool, typer.Option("--ignore-published")] = False,
) -> None:
    """Run one chapter with parameters, computing only what is new, and compile the site.

    Example: realign chapter rq2 -p family smollm2-135m -p k "[5,20]"
    """
    from realign.book import chapters

    fresh(ignore_published)
    given = {"profile": profile, **parameters(parameter)}
    executed = chapters.execute(name, given)
    print(f"the chapter: {executed}")
    if build:
        print(f"the book: {chapters.build_site()}")


@command
def notebooks(
    folder: Annotated[Path, typer.Option(help="where the .ipynb files go")] = Path("notebooks"),
) -> None:
    """Write the chapters as .ipynb files for papermill and JupyterLab.

    Example: realign notebooks && papermill notebooks/rq2_backbone_geometry.ipynb out.ipynb -p n_texts 50
    """
    from realign.book import chapters

    for name in chapters.CHAPTERS:
        print(chapters.convert(name, folder))


@command
def status(profile: Profile = "laptop") -> None:
    """Show what exists, how big, how old, and what is missing for a profile.

    Example: realign status --profile laptop
    """
    from collections import Counter
    from datetime import UTC, datetime

    from realign.study import open_study

    study = open_study(profile)
    rows = list(study.store.listing())
    print(f"{'stage':<14}{'layer':<11}{'count':>6}{'MB':>9}  newest")
    groups = sorted({(a.manifest["stage"], a.layer) for a in rows})
    for stage, layer in groups:
        mine = [a for a in rows if (a.manifest["stage"], a.layer) == (stage, layer)]
        newest = max(datetime.fromisoformat(a.manifest["started"]) for a in mine)
        age = datetime.now(UTC) - newest
        size = sum(a.bytes for a in mine) / 1e6
        print(f"{stage:<14}{layer:<11}{len(mine):>6}{size:>9.1f}  {_age(age.total_seconds())} ago")
    missing = study.graph.missing(study.nodes())
    print(f"\nprofile {study.profile.name}: {len(study.nodes())} results wanted, ", end="")
    if not missing:
        print("all there")
    else:
        kinds = Counter(n.request.stage for n in missing)
        print("stages to compute: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@command
def plan(profile: Profile = "laptop") -> None:
    """List the stages that a profile would compute, in order.

    Example: realign plan --profile paper
    """
    from realign.study import open_study

    study = open_study(profile)
    missing = study.graph.missing(study.nodes())
    for node in missing:
        print(f"{node.request.key[:12]}  {node.label}")
    print(f"{len(missing)} stages; needs: {', '.join(study.profile.needs) or 'nothing beyond a CPU'}")
