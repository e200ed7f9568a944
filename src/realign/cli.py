"""The command line: every stage of the study by name, with one clear sentence when it cannot run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from realign import config as cfg
from realign import paths
from realign.errors import RealignError, UsageError, unknown

app = typer.Typer(
    help="Reference companion to 'Do Reasoning Models Enhance Embedding Models?' (arXiv 2601.21192).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
tune_app = typer.Typer(
    help="Tune a sibling of a base backbone.\n\nExample: realign tune rlvr -f smollm2-135m -o my/reason",
    no_args_is_help=True,
)
app.add_typer(tune_app, name="tune")

Profile = Annotated[
    str,
    typer.Option("--profile", "-P", envvar="REALIGN_PROFILE", help="smoke, laptop, paper or a TOML file"),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="NAME VALUE as 'NAME=VALUE' or two words: -p k [5,20]"),
]
FamilyName = Annotated[str | None, typer.Option("--family", "-f", help="a family of data/families.toml")]


def main() -> None:
    """Run the command line; known failures are one sentence on stderr and exit code 1 or 2."""
    try:
        app(args=_join_parameters(sys.argv[1:]), standalone_mode=True)
    except RealignError as error:
        print(f"realign: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(
            "realign: interrupted; finished stages are kept, run the same command to go on", file=sys.stderr
        )
        sys.exit(130)
    except OSError as error:
        if error.errno == 28:
            print(f"realign: the disk is full ({error.filename or 'while writing'})", file=sys.stderr)
            sys.exit(1)
        raise


def _join_parameters(arguments: list[str]) -> list[str]:
    """Let ``-p NAME VALUE`` (papermill's form) stand beside ``-p NAME=VALUE``."""
    joined: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        joined.append(argument)
        if argument in ("-p", "--parameter"):
            name = next(rest, "")
            joined.append(name if "=" in name else f"{name}={next(rest, '')}")
    return joined


def _parameters(pairs: list[str] | None) -> dict[str, Any]:
    from realign.chapters import parse_value

    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"parameter '{pair}' must be NAME VALUE or NAME=VALUE")
        found[name.strip()] = parse_value(value)
    return found


def _fresh(ignore_published: bool) -> None:
    # Chapters run in kernels of their own, which inherit the choice through the environment.
    if ignore_published:
        os.environ["REALIGN_FRESH"] = "1"


command = app.command()


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
    from realign import chapters, launch, pipeline

    _fresh(ignore_published)
    study = pipeline.study(profile)
    pipeline.require(study.profile)
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
    from realign import chapters

    _fresh(ignore_published)
    parameters = {"profile": profile, **_parameters(parameter)}
    executed = chapters.execute(name, parameters)
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
    from realign import chapters

    for name in chapters.CHAPTERS:
        print(chapters.convert(name, folder))


def _family(name: str | None, profile: cfg.Profile) -> cfg.Family:
    return cfg.find_family(cfg.load_families(paths.data() / "families.toml"), name or profile.family)


def _tune(
    family: str | None,
    output: Path,
    profile: str,
    steps: int | None,
    seed: int | None,
    method: str = "",
    role: str = "",
) -> None:
    from realign import pipeline, tuning

    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty: name a new directory for the adapter")
    study = pipeline.study(profile, family=family)
    settings: Any = study.models.tuning(role) if role else getattr(study.profile, method)
    asked = {"seed": seed, "steps": steps}
    changes = {name: value for name, value in asked.items() if value is not None}
    settings = cfg.parse(type(settings), {**settings.model_dump(), **changes}, f"tune {role or method}")
    # Unfinished work stays beside the output, so that the same command goes on after a kill.
    work = output.with_name(f".{output.name}.tmp")
    work.mkdir(parents=True, exist_ok=True)
    base = study.models.base
    assert base.backbone is not None
    local = study.models.local(base)
    tuning.run(base.backbone, settings, work, local=local, evaluation=study.profile.policy)
    if output.is_dir():
        output.rmdir()
    work.rename(output)
    print(f"the adapters: {output} (final and checkpoints; log.csv has the steps)")


Output = Annotated[Path, typer.Option("--output", "-o", help="a new directory for adapters and log")]
Steps = Annotated[int | None, typer.Option(help="optimiser steps; the profile's if not given")]
Seed = Annotated[
    int | None,
    typer.Option(help="seed of data order, sampling and initialisation; the profile's if not given"),
]


@tune_app.command("rlvr")
def tune_rlvr(
    output: Output,
    family: FamilyName = None,
    profile: Profile = "laptop",
    steps: Steps = None,
    seed: Seed = None,
) -> None:
    """Make a `reason` sibling: GRPO on reasoning_gym problems scored by the task's own verifier.

    Example: realign tune rlvr --output my/reason --steps 36
    """
    _tune(family, output, profile, steps, seed, method="rlvr")


@tune_app.command("sft")
def tune_sft(
    output: Output,
    family: FamilyName = None,
    profile: Profile = "laptop",
    steps: Steps = None,
    seed: Seed = None,
) -> None:
    """Make an `sft` sibling: supervised fine-tuning on worked answers to the same problems.

    Example: realign tune sft --output my/sft --steps 36
    """
    _tune(family, output, profile, steps, seed, method="sft")


@tune_app.command("role")
def tune_role(
    role: Annotated[
        str, typer.Argument(help="a role of the family, as data/families.toml says how to tune it")
    ],
    output: Output,
    family: FamilyName = None,
    profile: Profile = "laptop",
    steps: Steps = None,
    seed: Seed = None,
) -> None:
    """Make a sibling again exactly as the registry says (its entry under `tuning`).

    Example: realign tune role random-reward --output my/random-reward
    """
    _tune(family, output, profile, steps, seed, role=role)


@command
def train(
    role: Annotated[str, typer.Argument(help="base, reason or sft")] = "base",
    seed: Annotated[int, typer.Option(help="seed of data order and dropout")] = 0,
    family: FamilyName = None,
    profile: Profile = "laptop",
    parallel: Annotated[
        str, typer.Option(envvar="REALIGN_PARALLEL", help="ddp:N: share every batch among N processes")
    ] = "",
) -> None:
    """Train the embedding model of one role and seed by the profile's recipe.

    Example: realign train reason --seed 1
    """
    from realign import pipeline
    from realign.training.parallel import VARIABLE, processes

    processes(parallel)
    os.environ[VARIABLE] = parallel
    study = pipeline.study(profile, family=family)
    artifact = study.graph.run(study.models.train_node(role, seed))
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
        int | None, typer.Option(help="mine for so many queries, drawn by the seed; all if not given")
    ] = None,
    negatives: Annotated[int, typer.Option(min=1, help="negatives a query")] = 3,
    first: Annotated[int, typer.Option(min=1, help="how many nearest passages are looked at")] = 100,
    relative_margin: Annotated[
        float, typer.Option(min=0, max=1, help="a negative stays this share below its positive")
    ] = 0.05,
    short: Annotated[str, typer.Option(help="keep or drop queries with fewer negatives")] = "keep",
    seed: Annotated[int, typer.Option(help="seed of the draw of queries")] = 0,
) -> None:
    """Find hard negatives for a training set with an embedding model, and report what was found.

    Example: realign mine docs -o mined/docs.jsonl -m path/to/model --queries 1000
    """
    from realign.texts import pairs
    from realign.training import mining

    if short not in ("keep", "drop"):
        raise unknown("treatment of short queries", short, ("keep", "drop"))
    chosen = pairs.load(name).take(queries, seed)
    from sentence_transformers import SentenceTransformer

    try:
        miner = SentenceTransformer(model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise RealignError(f"cannot open the embedding model {model}: {reason}") from None
    found, report = mining.mine(
        chosen, miner, n=negatives, first=first, relative_margin=relative_margin,
        short="keep" if short == "keep" else "drop",
    )  # fmt: skip
    pairs.write(found, output)
    print(json.dumps(report.as_dict(), indent=2))
    print(f"the training set: {output} ({len(found)} queries; use it in a recipe as 'file:{output}')")


@command
def sweep(
    grid: Annotated[
        Path, typer.Argument(help="TOML: a table of changed recipe settings for each row")
    ] = Path("data/sweeps/laptop-recipe.toml"),
    table: Annotated[
        Path | None, typer.Option("--table", help="CSV to add to; the grid's name if not given")
    ] = None,
    role: Annotated[str, typer.Option(help="the backbone to start from")] = "base",
    family: FamilyName = None,
    profile: Profile = "laptop",
) -> None:
    """Try recipes on validation pairs of the training side and record them; rows that are there are kept.

    Example: realign sweep data/sweeps/laptop-recipe.toml
    """
    from realign import pipeline
    from realign.training import sweep as sweeps

    study = pipeline.study(profile, family=family)
    model = study.models.model(role)
    found = sweeps.run(
        study.models.backbone(model),
        study.profile.recipe,
        cfg.read_toml(grid),
        table or grid.with_suffix(".csv"),
        study.store.root / ".work" / "sweep",
        local=study.models.local(model),
        device=study.profile.device,
    )
    print(found.to_string(index=False, na_rep=""))


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
) -> None:
    """Score an embedding model on suites through mteb; a failed task shows and makes the exit code 1.

    Example: realign evaluate base:0 --suite laptop-code
    """
    from realign import pipeline
    from realign.evaluation import run

    study = pipeline.study(profile, family=family)
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
    from realign import hrsa, pipeline

    study = pipeline.study(profile, family=family)
    artifact = study.graph.run(study.similarity.node(study.models.reader(a), study.models.reader(b)))
    print(hrsa.drift_summary(hrsa.Report.load(artifact.path)).to_string(index=False))
    print(f"the report: {artifact.path}")


@command
def status(profile: Profile = "laptop") -> None:
    """Show what exists, how big, how old, and what is missing for a profile.

    Example: realign status --profile laptop
    """
    from collections import Counter
    from datetime import UTC, datetime

    from realign import pipeline

    study = pipeline.study(profile)
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
    from realign import pipeline

    study = pipeline.study(profile)
    missing = study.graph.missing(study.nodes())
    for node in missing:
        print(f"{node.request.key[:12]}  {node.label}")
    print(f"{len(missing)} stages; needs: {', '.join(study.profile.needs) or 'nothing beyond a CPU'}")


@command
def doctor() -> None:
    """Check Python, torch, device and dtype, disk, hub and versions against the lock.

    Example: realign doctor
    """
    from realign import doctor as check

    for line in check.report():
        print(line)


@command
def publish(profile: Profile = "laptop") -> None:
    """Copy a profile's small results (scores, reports, logs) into data/results, and draw the README's picture.

    Example: realign publish --profile laptop
    """
    from realign import figures, pipeline

    study = pipeline.study(profile)
    count = 0
    for node in study.nodes():
        if node.request.stage in pipeline.PUBLISHED:
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
    from realign import pipeline

    if stage and stage not in pipeline.PUBLISHED:
        raise unknown("published stage", stage, pipeline.PUBLISHED)
    rows = pipeline.verify(pipeline.study(profile), stage, limit)
    worst = 0.0
    for label, difference in rows:
        worst = max(worst, difference)
        print(f"{'same' if difference <= tolerance else 'DIFFERENT':<10}{difference:10.2e}  {label}")
    if not rows:
        raise RealignError(f"profile {profile} has no published results of that kind to verify")
    if worst > tolerance:
        raise RealignError(f"a published number differs by {worst:.2e}, more than {tolerance:.0e}")


@command
def families() -> None:
    """List the families of data/families.toml, and check that their members belong together.

    Roles with their sources and where each fact comes from; architecture and tokenizer of every member
    are compared with the base's, as far as its files can be had.

    Example: realign families
    """
    from realign import doctor, registry

    hub = doctor.hub_reachable()[0]
    torn = []
    for family in cfg.load_families(paths.data() / "families.toml").values():
        print(family.name + (f"  ({family.note})" if family.note else ""))
        verdicts = {role: (agrees, why) for role, agrees, why in registry.check(family, hub=hub)}
        for role, backbone in family.roles.items():
            facts = "; ".join(x for x in (backbone.license, backbone.origin, backbone.note) if x)
            print(f"  {role:<16}{backbone.source}" + (f"  [{facts}]" if facts else ""))
            if role in verdicts:
                agrees, why = verdicts[role]
                word = {True: "agrees", False: "DISAGREES", None: "not checked"}[agrees]
                print(f"  {'':<16}{word}: {why}")
                if agrees is False:
                    torn.append(f"{family.name}/{role}: {why}")
        for role, steps in family.checkpoints.items():
            print(f"  {role:<16}checkpoints at steps {', '.join(map(str, sorted(steps)))}")
        for role, name in family.published.items():
            print(f"  {role + '-Emb':<16}hub:{name}")
    if torn:
        raise RealignError("; ".join(torn))


@command
def suites() -> None:
    """List the evaluation suites with their tasks, sizes and sources.

    Example: realign suites
    """
    from realign.evaluation import suites as known

    for name in known.names():
        print(f"{name}: {known.about(name)}")
        for spec, n in known.specs(name):
            print(f"  {spec.name:<30}{spec.type:<26}size {n:<5}{spec.source}")
        if not known.specs(name):
            print(f"  {', '.join(known.task_names(name))}")


@command
def profiles() -> None:
    """Print the profiles and what each needs, as JSON with --help for one at a time.

    Example: realign profiles
    """
    for name in cfg.profile_names():
        loaded = cfg.load_profile(name)
        needs = ", ".join(loaded.needs) or "nothing beyond a CPU"
        print(f"{name}: {loaded.about} Needs {needs}.")
        print(json.dumps(loaded.model_dump(mode="json"), indent=1))
