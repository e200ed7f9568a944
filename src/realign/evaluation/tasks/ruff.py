"""Rules of ruff, the linter: what each checks, why, and code before and after, as ``ruff rule --all`` prints them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from realign.errors import RealignError

LICENSE = "mit"
BLOCK = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## +(.+?) *\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
INSTEAD = re.compile(r"^ *Use instead\b", re.MULTILINE)


@dataclass(frozen=True)
class Rule:
    """One rule of ruff.

    ``code`` is unique: the name where a new rule has no code yet. ``explanation`` is the prose of
    "What it does" and "Why is this bad?", a line a paragraph, without code blocks and back quotes. ``bad`` is the first example of Python code that breaks the rule,
    ``good`` the first one that stands under "Use instead"; both empty where the documentation has none.
    """

    code: str
    name: str
    explanation: str
    bad: str
    good: str


def parse(text: str) -> list[Rule]:
    """Read the output of ``ruff rule --all --output-format json``; rules that were removed are left out."""
    return [_rule(entry) for entry in json.loads(text) if "Removed" not in entry["status"]]


def _rule(entry: Mapping[str, str]) -> Rule:
    sections: dict[str, str] = dict(SECTION.findall(entry["explanation"]))
    prose = BLOCK.sub("", sections.get("What it does", "") + "\n\n" + sections.get("Why is this bad?", ""))
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", _plain(prose))]
    example = sections.get("Example", sections.get("Examples", ""))
    bad, *instead = INSTEAD.split(example, maxsplit=1)
    good = _python(instead[0]) if instead else ""
    return Rule(
        entry["code"] or entry["name"], entry["name"], "\n".join(filter(None, paragraphs)), _python(bad), good
    )


def _plain(prose: str) -> str:
    """Remove links and back quotes, keep their words."""
    prose = re.sub(r"(?<![\w`\]])\[([^\]]+)\](\([^)]*\)|\[[^\]]*\])?", r"\1", prose)
    return prose.replace("`", "")


def _python(text: str) -> str:
    """Return the first block of Python code; empty if there is none."""
    blocks = [code for language, code in BLOCK.findall(text) if language in ("python", "py", "pyi", "pycon")]
    return blocks[0].strip("\n") if blocks else ""


@lru_cache(maxsize=1)
def rules() -> list[Rule]:
    """Return the rules of the installed ruff in its own order.

    Raises:
        RealignError: ruff is not installed or does not answer.
    """
    try:
        from ruff import find_ruff_bin

        command = [find_ruff_bin(), "rule", "--all", "--output-format", "json"]
        answer = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    except (ImportError, OSError, subprocess.CalledProcessError):
        raise RealignError(
            "the rules of ruff cannot be read; install requirements.lock (pip install ruff)"
        ) from None
    return parse(answer.stdout)
