"""Commands that describe: this machine, families, suites and profiles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from realign import config, paths
from realign.cli import doctor as report
from realign.cli.app import command
from realign.errors import RealignError


@command
def doctor() -> None:
    """Check Python, torch, device and dtype, disk, hub and versions against the lock.

    Example: realign doctor
    """
    for line in report.lines():
        print(line)


@command
def families() -> None:
    """List the families of data/families.toml, and check that their members belong together.

    Roles with their sources and where each fact comes from; architecture and tokenizer of every member
    are compared with the base's, as far as its files can be had.

    Example: realign families
    """
    from realign.models import compatibility

    hub = report.hub_reachable()[0]
    torn = []
    for family in config.load_families(paths.data() / "families.toml").values():
        print(family.name + (f"  ({family.note})" if family.note else ""))
        verdicts = {role: (agrees, why) for role, agrees, why in compatibility.check(family, hub=hub)}
        for role, backbone in family.roles.items():
            facts = "; ".join(fact for fact in (backbone.license, backbone.origin, backbone.note) if fact)
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
def suites(
    name: Annotated[
        str, typer.Argument(help="a suite of our own, whose texts and tokens are to be counted")
    ] = "",
) -> None:
    """List the evaluation suites: tasks, types, sizes, languages, licences and sources.

    With a name, of this suite alone, with the texts and tokens that a model reads and how many of the texts occur
    in training, equal or as near copies; its data are built for that, and public archives fetched where they are
    not here yet.

    Example: realign suites smoke-code
    """
    from realign.evaluation import suites as known

    for suite in [name] if name else known.names():
        print(f"{suite}: {known.about(suite)}")
        for spec, n in known.specs(suite):
            languages = f"{len(spec.codes)} languages" if len(spec.codes) > 1 else spec.codes[0]
            print(
                f"  {spec.name:<30}{spec.type:<26}size {n:<5}{languages:<14}{spec.license:<14}{spec.source}"
            )
        if not known.specs(suite):
            print(f"  {', '.join(known.task_names(suite))}")
    if name and known.specs(name):
        _count(known.task_texts(name))


def _count(by_task: Mapping[str, list[str]]) -> None:
    """Print texts and tokens of each task, and how many texts are training texts or near copies of one."""
    from realign import texts

    count, unit = _counter()
    sets = [texts.pairs.load(name) for name in texts.OFFLINE]
    training = [text for one in sets for text in one.texts()]
    total = 0
    for task, mine in by_task.items():
        total += (tokens := count(mine))
        equal, near = (len(f(training, mine)) for f in (texts.leakage.shared, texts.leakage.near))
        print(
            f"  {task:<30}{len(mine):>6} texts {tokens:>8} {unit}; in training: {equal} equal, {near} near copies"
        )
    print(
        f"  {len({text for mine in by_task.values() for text in mine})} different texts, {total} {unit} in all"
    )


def _counter() -> tuple[Callable[[Sequence[str]], int], str]:
    """Return what counts tokens as the laptop profile's model does, or words where its tokenizer is not here."""
    from realign.models import loading
    from realign.study import open_study

    study = open_study("laptop")
    base = study.models.base
    if any(study.graph.store.find(node.request) is None for node in base.needs):
        return lambda texts: sum(len(text.split()) for text in texts), "words"
    tokenizer = loading.load_tokenizer(study.models.backbone(base), local=study.models.local(base))
    return lambda texts: sum(map(len, tokenizer(list(texts), verbose=False)["input_ids"])), "tokens"


@command
def profiles(
    name: Annotated[str, typer.Argument(help="a profile or a TOML file, to be printed in full as JSON")] = "",
) -> None:
    """List the profiles and what each needs, or print all settings of one as JSON.

    Example: realign profiles laptop
    """
    if name:
        print(json.dumps(config.load_profile(name).model_dump(mode="json"), indent=1))
        return
    for each in config.profile_names():
        profile = config.load_profile(each)
        print(f"{each}: {profile.about} Needs {', '.join(profile.needs) or 'nothing beyond a CPU'}.")
