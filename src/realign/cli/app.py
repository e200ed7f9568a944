"""The application, its options, and how a known failure becomes one sentence and an exit code."""

from __future__ import annotations

import ast
import errno
import os
import signal
import sys
from typing import Annotated

import typer

from realign.config.naming import check_seed
from realign.errors import INTERRUPTED, RealignError, UsageError

app = typer.Typer(
    help="Reference companion to 'Do Reasoning Models Enhance Embedding Models?' (arXiv 2601.21192).",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# Errors of the system that come from where a user works, not from this program.
SURROUNDINGS = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ELOOP, errno.ENAMETOOLONG, errno.EIO,
}  # fmt: skip
tune_app = typer.Typer(
    help="Tune a sibling of a base backbone.\n\nExample: realign tune rlvr -f smollm2-135m -o my/reason"
)
app.add_typer(tune_app, name="tune")
command = app.command()


def _checked_seed(seed: int | None) -> int | None:
    return None if seed is None else check_seed(seed)


Profile = Annotated[
    str,
    typer.Option("--profile", "-P", envvar="REALIGN_PROFILE", help="smoke, laptop, paper or a TOML file"),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="NAME VALUE as 'NAME=VALUE' or two words: -p k [5,20]"),
]
Family = Annotated[
    str, typer.Option("--family", "-f", help="a family of data/families.toml; the profile's if not given")
]
Role = Annotated[str, typer.Argument(help="a role of the family: base, reason, sft or a control")]
Output = Annotated[str, typer.Option("--output", "-o", help="a new directory")]
Seed = Annotated[
    int, typer.Option(callback=_checked_seed, help="of data order, sampling, dropout and new weights")
]
MaybeSeed = Annotated[
    int | None, typer.Option("--seed", callback=_checked_seed, help="the profile's if not given")
]


def main() -> None:
    """Run the command line; known failures are one sentence on stderr and exit code 1 or 2."""
    # A script starts its background jobs with SIGINT ignored; who sends one all the same wants an end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(args=join_parameters(sys.argv[1:]) or ["--help"], standalone_mode=False) or 0
    except RealignError as error:
        code = _say(str(error), error.exit_code)
    except typer.TyperException as error:  # a command line that typer cannot read
        code = _say(error.format_message(), error.exit_code)
    except OSError as error:
        if error.errno not in SURROUNDINGS:
            raise
        reason = (error.strerror or "").lower()
        code = _say(f"{error.filename or 'a file'} cannot be read or written: {reason}", 1)
    except KeyboardInterrupt:
        code = 130
    if code == 130:
        _say(INTERRUPTED, code)
    sys.exit(code)


def _say(sentence: str, code: int) -> int:
    print(f"realign: {sentence}", file=sys.stderr)
    return code


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


def parameters(pairs: list[str] | None) -> dict[str, object]:
    """Read NAME=VALUE pairs; values are read as in a notebook's parameter cell.

    Raises:
        UsageError: for a pair without a name or a value.
    """
    values: dict[str, object] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"parameter '{pair}' must be NAME VALUE or NAME=VALUE")
        values[name.strip()] = parse_value(value)
    return values


def parse_value(text: str) -> object:
    """Read a parameter from the command line: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)


def fresh(ignore_published: bool) -> None:
    """Leave published results out of sight, here and in every kernel started from here."""
    if ignore_published:
        os.environ["REALIGN_FRESH"] = "1"
