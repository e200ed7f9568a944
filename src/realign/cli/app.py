"""The application, its options, and how a known failure becomes one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from realign import config as cfg
from realign import paths
from realign.errors import RealignError, UsageError

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

command = app.command()


def main() -> None:
    """Run the command line; known failures are one sentence on stderr and exit code 1 or 2."""
    try:
        app(args=join_parameters(sys.argv[1:]), standalone_mode=True)
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


def join_parameters(arguments: list[str]) -> list[str]:
    """Let ``-p NAME VALUE`` (papermill's form) stand beside ``-p NAME=VALUE``."""
    joined: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        joined.append(argument)
        if argument in ("-p", "--parameter"):
            name = next(rest, "")
            joined.append(name if "=" in name else f"{name}={next(rest, '')}")
    return joined


def parameters(pairs: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs; values are read as in a notebook's parameter cell."""
    from realign.book.chapters import parse_value

    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"parameter '{pair}' must be NAME VALUE or NAME=VALUE")
        found[name.strip()] = parse_value(value)
    return found


def fresh(ignore_published: bool) -> None:
    """Leave published results out of sight, here and in every kernel started from here."""
    if ignore_published:
        os.environ["REALIGN_FRESH"] = "1"


def family_of(name: str | None, profile: cfg.Profile) -> cfg.Family:
    """Return the family of that name, or the profile's."""
    return cfg.find_family(cfg.load_families(paths.data() / "families.toml"), name or profile.family)
