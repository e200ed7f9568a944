"""Rules of ruff as data: prose without code, examples before and after."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realign.errors import RealignError
from realign.evaluation.tasks import ruff

EXPLANATION = """## What it does
Checks for `walk` in
a [park][1].

## Why is this bad?
It is slow:

```python
walk()
```

Use the [bus](https://example.org/bus) of `list[int]`.

## Example
```toml
[not-code]
```

```python
walk(park)
```

Use instead:
```pyi
ride(bus)
```

Or:
```python
fly(bus)
```
"""


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "code": "X1",
        "name": "slow-walk",
        "status": {"Stable": {"since": "1"}},
        "explanation": EXPLANATION,
    } | changes


def test_a_rule_has_prose_without_code_and_the_first_example_of_each_kind():
    (rule,) = ruff.parse(json.dumps([entry()]))
    assert rule == ruff.Rule(
        "X1",
        "slow-walk",
        "Checks for walk in a park.\nIt is slow:\nUse the bus of list[int].",
        "walk(park)",
        "ride(bus)",
    )


def test_a_rule_without_examples_has_none_and_a_removed_rule_is_left_out():
    texts = [
        entry(explanation="## What it does\nNothing.\n", status={"Preview": {}}, code=None),
        entry(status={"Removed": {}}),
    ]
    (rule,) = ruff.parse(json.dumps(texts))
    assert rule == ruff.Rule("slow-walk", "slow-walk", "Nothing.", "", "")


def test_the_installed_ruff_documents_most_rules_with_code_before_and_after():
    rules = ruff.rules()
    assert len(rules) > 900
    assert len({rule.code for rule in rules}) == len(rules)
    assert sum(bool(rule.bad and rule.good) for rule in rules) > 800
    assert not [rule.code for rule in rules if "```" in rule.explanation + rule.bad + rule.good]


def test_without_ruff_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(
        ruff.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(OSError("no such file"))
    )
    ruff.rules.cache_clear()
    with pytest.raises(RealignError, match=r"requirements\.lock"):
        ruff.rules()
