"""From code to the rule of ruff, the linter, that it breaks."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from realign.errors import RealignError
from realign.evaluation.specs import Corpus
from realign.evaluation.tasks.pools import Row, pool
from realign.evaluation.tasks.ruff import Rule, rules

CHECK = (
    "check",
    "--isolated",
    "--no-cache",
    "--preview",
    "--select=ALL",
    "--exit-zero",
    "--output-format=json",
)


def reported(codes: Sequence[str]) -> list[set[str]]:
    """Return for each piece of code the rules that the installed ruff reports for it.

    Raises:
        RealignError: ruff does not answer.
    """
    from ruff import find_ruff_bin

    broken: Mapping[int, set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as folder:
        for i, code in enumerate(codes):
            (Path(folder) / f"{i}.py").write_text(code + "\n", encoding="utf-8")
        command = [find_ruff_bin(), *CHECK, folder]
        answer = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if answer.returncode:
            raise RealignError(f"ruff cannot check the examples of its rules: {answer.stderr.strip()[:200]}")
        for each in json.loads(answer.stdout):
            broken[int(Path(each["filename"]).stem)].add(each["code"])
    return [broken[i] for i in range(len(codes))]


def broken_rules(
    n: int,
    read: Callable[[], Sequence[Rule]] = rules,
    check: Callable[[Sequence[str]], Sequence[set[str]]] = reported,
) -> Corpus:
    """From an example of code to what the rule that it illustrates checks for, among all rules.

    Asked are examples that ruff itself reports by the rule that they illustrate; further rules that it reports
    (missing docstrings, unused imports) are excluded.
    """
    every = list(read())
    checks = {rule.code: rule.explanation.partition("\n")[0] for rule in every}
    illustrated = [rule for rule in every if rule.bad]
    rows = [
        Row(rule.bad, (checks[rule.code],), tuple(checks[c] for c in sorted(broken & checks.keys())))
        for rule, broken in zip(illustrated, check([rule.bad for rule in illustrated]), strict=True)
        if rule.code in broken
    ]
    return pool(rows, checks.values(), n=n, documents=5 * n)
