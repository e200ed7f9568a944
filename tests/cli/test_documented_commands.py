"""Every command that the pages, the notebooks and --help show: run with the smoke profile, or its words checked."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import jupytext
import pytest
import typer

from realign import paths
from realign.cli import app, join_parameters

ROOT = paths.root()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
PROGRAMS = ("realign", "papermill", "jupytext", "make")

LAPTOP = "reads or writes what belongs to the laptop profile: its real model is no part of the repository"
ELSEWHERE = "the page's own example: what it names is made on that page, by the reader"
ONLY_WORDS = {
    "realign chapter rq1 -p family smollm2-135m -p seeds \"[0, 1]\"": LAPTOP,
    "realign chapter rq2 -p family smollm2-135m -p k \"[5,20]\"": LAPTOP,
    "realign book --profile laptop": LAPTOP,
    "realign publish --profile laptop": LAPTOP,
    "realign verify --stage policy --limit 1": LAPTOP,
    "realign tune rlvr -f smollm2-135m -o my/reason": LAPTOP,
    "realign compare base reason@12": LAPTOP,
    "realign tune role random-reward --output my/random-reward": LAPTOP,
    "realign evaluate base:0 --suite laptop-code": LAPTOP,
    "realign sweep data/sweeps/laptop-recipe.toml": LAPTOP,
    "realign book --profile mine.toml": LAPTOP,
    "realign compare base reason -f mine": ELSEWHERE,
    "realign chapter rq2 -p family mine": ELSEWHERE,
    "realign evaluate base:0 --suite laptop-weekdays": ELSEWHERE,
    "realign mine docs -o mined/docs.jsonl -m path/to/model --queries 1000": ELSEWHERE,
}  # fmt: skip
"""Block commands that are not run offline in smoke, and why: only their names, options and values are checked."""


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def in_blocks(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    lines = [
        line.partition("  #")[0].strip() for block in fenced(text, "bash") for line in block.splitlines()
    ]
    return [line for line in lines if line]


def leaves(command: object, names: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every command of the command line by its words, groups included."""
    inner = getattr(command, "commands", {})
    return {names: command} | {
        k: v for name, one in inner.items() for k, v in leaves(one, (*names, name)).items()
    }


COMMANDS = leaves(typer.main.get_command(app))


def examples_of_help() -> list[str]:
    shown = [line for one in COMMANDS.values() for line in (getattr(one, "help", "") or "").splitlines()]
    examples = [line.removeprefix("Example: ") for line in shown if line.startswith("Example: ")]
    return [part.strip() for line in examples for part in line.split("&&")]


def spans() -> list[str]:
    """Commands inside a sentence, from the pages, the notebooks' prose and the model card."""
    texts = [
        re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S) for page in PAGES
    ]
    for notebook in sorted((ROOT / "notebooks").glob("rq*.py")):
        texts += [cell.source for cell in jupytext.read(notebook).cells if cell.cell_type == "markdown"]
    texts.append((ROOT / "src/realign/training/model.py").read_text(encoding="utf-8"))
    found = [" ".join(span.split()) for text in texts for span in re.findall(r"`([^`]+)`", text)]
    return list(dict.fromkeys(span for span in found if span.split()[0] in PROGRAMS and " " in span))


BLOCKS = list(dict.fromkeys([line for page in PAGES for line in in_blocks(page)] + examples_of_help()))
RUN = [line for line in BLOCKS if line.split()[0] != "make" and line not in ONLY_WORDS]


def split(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The words that name a command of realign, and the rest."""
    length = max(n for n in range(len(words) + 1) if tuple(words[:n]) in COMMANDS)
    return tuple(words[:length]), words[length:]


def test_every_block_command_has_a_program_that_is_known_here():
    assert len(BLOCKS) > 40
    assert {line.split()[0] for line in BLOCKS} == set(PROGRAMS)
    assert not set(ONLY_WORDS) - set(BLOCKS), "no longer documented"
    assert len(RUN) > len(ONLY_WORDS)


def test_every_command_of_realign_shows_an_example():
    for names, command in COMMANDS.items():
        if names:
            assert "Example: realign " in command.help, names  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", [line for line in BLOCKS if line.startswith("realign ")])
def test_names_options_and_values_of_a_block_command_are_taken(line: str) -> None:
    names, rest = split(shlex.split(line)[1:])
    command = COMMANDS[names]
    assert names
    command.make_context(names[-1], join_parameters(rest))  # type: ignore[attr-defined]


@pytest.mark.parametrize("span", spans())
def test_a_command_in_a_sentence_exists_with_its_options(span: str) -> None:
    words = span.split()
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert words[1] in targets
        return
    names, rest = split(words[1:])
    assert names, span
    options = {option for one in COMMANDS[names].params for option in one.opts}  # type: ignore[attr-defined]
    assert {word for word in rest if word.startswith("-")} <= options | {"--help"}


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted({line for line in BLOCKS if line.startswith("make ")}))
def test_a_make_command_is_a_target(line: str, workplace) -> None:
    folder, environment = workplace
    done = subprocess.run(
        [*shlex.split(line), "-n"], cwd=folder, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def documented(workplace) -> tuple[Path, dict[str, str]]:
    """The workplace, with the profile that a page describes."""
    folder, environment = workplace
    text = (ROOT / "book" / "extending.md").read_text(encoding="utf-8")
    (profile,) = [block for block in fenced(text, "toml") if block.startswith("extends")]
    (folder / "mine.toml").write_text(profile)
    return folder, environment


@pytest.mark.slow
@pytest.mark.parametrize("line", RUN)
def test_a_documented_command_runs_in_smoke(line: str, documented, tmp_path: Path) -> None:
    folder, environment = documented
    words = shlex.split(line)
    for option in ("--output", "-o"):  # two pages may write to one place
        if words[0] == "realign" and option in words:
            place = words.index(option) + 1
            words[place] = str(tmp_path / words[place])
    if words[0] == "papermill":
        words += ["-p", "profile", "smoke"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
