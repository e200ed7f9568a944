"""Markdown of the generated pages: whatever comes from a file or a package shows as the text it is."""

from __future__ import annotations

import re

import pandas as pd

from realign.display.format import Text


def escape(text: object) -> str:
    """Write any text on one line so that no character of it acts as Markdown, MyST or HTML."""
    return re.sub(r"[#$&*<>@\[\\\]^_`{|}~]", lambda match: f"&#{ord(match[0])};", " ".join(str(text).split()))


def code(text: object) -> str:
    """Show a text as it is, on one line, in a code span that its own backticks cannot end."""
    line = " ".join(str(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return (
        f"{fence} {line} {fence}" if line.startswith("`") or line.endswith("`") else f"{fence}{line}{fence}"
    )


def table(frame: pd.DataFrame) -> str:
    """Write a frame as a Markdown table: cells are escaped, :class:`Text` ones are Markdown already."""
    rows = [[_cell(value) for value in row] for row in [list(frame.columns), *frame.itertuples(index=False)]]
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|") if isinstance(value, Text) else escape(value)
