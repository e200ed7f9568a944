"""A recorded sweep over recipes, scored on validation pairs of the training side alone.

A tenth of each training set, drawn by the digest of the positive, is kept out of these runs; no
evaluation text is used. One row for each recipe; a row that is in the table already is not run again.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from realign import config, hardware
from realign.config import Backbone, Recipe
from realign.errors import RealignError, UsageError, full_disk_as_sentence
from realign.models import loading
from realign.models.embedder import Embedder
from realign.texts import pairs, splits
from realign.training import trainer
from realign.training.data import draw_queries
from realign.training.run import Run, seeds_of

VALIDATION_SHARE = 0.1
VALIDATION_QUERIES = 64
UNTRAINED = "untrained"
CHOSEN = ("queries", "batch_size", "learning_rate", "warmup_ratio", "temperature", "hard_negatives")
RECIPE_COLUMNS = (*CHOSEN, "lora_rank", "seed")
COST_COLUMNS = ("steps", "tokens", "seconds", "tokens_per_second", "padding_share", "memory_gib", "last_loss")


Split = tuple[pairs.PairSet, pairs.PairSet]  # training, validation


class Row(NamedTuple):
    """One run of a sweep."""

    recipe: Recipe
    seed: int


def split(sets: Sequence[pairs.PairSet], n: int) -> list[Split]:
    """Return (training, validation) parts of each set; validation has at most ``n`` queries.

    Training rows of any set that share a text with a validation row of any set are left out.
    """
    parts = []
    for one in sets:
        drawn = [splits.fraction("validation", splits.normalise(p)) for p in one.positives]
        held = [number < VALIDATION_SHARE for number in drawn]
        validation = one.rows([i for i, out in enumerate(held) if out]).take(n, 0)
        parts.append((one, [i for i, out in enumerate(held) if not out], validation))
    seen = {splits.normalise(t) for _, _, v in parts for t in (*v.queries, *v.positives)}

    def clean(one: pairs.PairSet, i: int) -> bool:
        return not seen.intersection(
            map(splits.normalise, (one.queries[i], one.positives[i], *one.negatives[i]))
        )

    return [(one.rows([i for i in rows if clean(one, i)]), v) for one, rows, v in parts]


def score(embedder: Embedder, validation: pairs.PairSet) -> float:
    """NDCG@10 (0-100) of the queries against all positives of the validation part.

    A query's only relevant text is its own positive; equal positives count as one.
    """
    asked = embedder.encode(validation.queries, validation.instruction or None)
    similarity = asked @ embedder.encode(validation.positives).T
    keys = np.array([splits.normalise(p) for p in validation.positives])
    gains = []
    for row, key in zip(similarity, keys, strict=True):
        rank = int(np.argmax(keys[np.argsort(-row, kind="stable")] == key))
        gains.append(1 / np.log2(2 + rank) if rank < 10 else 0.0)
    return 100 * float(np.mean(gains))


def run(
    backbone: Backbone,
    base: Recipe,
    rows: Mapping[str, Mapping[str, Any]],
    table: Path,
    work: Path,
    *,
    local: Path | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Train and score each row's recipe, after the untrained backbone, and add it to a table.

    Args:
        backbone: what every run starts from.
        base: the recipe that rows change.
        rows: by name, the settings that a row changes (``data`` too: every row is scored on the sets of all
            rows), and its ``seed`` (0 if not given).
        table: CSV to add to; lines before its header that start with ``#`` are kept.
        work: scratch folder for models and checkpoints.
        local: directory of the materialised base.
        device: of training and scoring.

    Returns:
        The table: name, recipe, cost (tokens/s are the median over steps), score by set and their mean.

    Raises:
        UsageError: a row is not a recipe, or its name cannot name a row.
        RealignError: the table cannot be read.
    """
    planned = read_rows(base, rows)
    done = set(read(table)["name"]) if _columns(table) else set()
    recipes = [row.recipe for row in planned.values()]
    names = list(dict.fromkeys(name for r in [*recipes, base] for name in r.data))
    hard = max(r.hard_negatives for r in [base, *recipes])
    whole = [pairs.load(name, hard_negatives=hard) for name in names]
    parts = dict(zip(names, split(whole, VALIDATION_QUERIES), strict=True))
    compute = hardware.resolve(device, base.dtype)
    if UNTRAINED not in done:
        model, tokenizer = loading.load(backbone, attention=base.attention, local=local)
        longest = max(base.max_query_tokens, base.max_passage_tokens)
        embedder = Embedder(model, tokenizer, max_tokens=longest, device=compute.device, dtype=compute.dtype)
        add(table, {"name": UNTRAINED, **_scores(embedder, parts)}, names)
        del embedder, model
    for name, (recipe, seed) in planned.items():
        if name not in done:
            out = work / name
            result = _measure(Run(backbone, recipe, seed, out, out / "work", local, device), parts)
            add(table, {"name": name, **result}, names)
    return read(table)


def read_rows(base: Recipe, rows: Mapping[str, object]) -> dict[str, Row]:
    """Check a grid: every row is a table of changed settings under a name fit for a file and a CSV.

    Raises:
        UsageError: names the row and what is wrong.
    """
    if not rows:
        raise UsageError("the grid has no row: give a table of changed recipe settings for each run")
    planned = {}
    for name, changes in rows.items():
        if name == UNTRAINED or not re.fullmatch(r"\w[\w ,.+=-]*", name):
            raise UsageError(
                f"row {name!r}: a name starts with a letter or digit and goes on with those, spaces and , . + = -; "
                f"'{UNTRAINED}' is taken"
            )
        if not isinstance(changes, Mapping):
            raise UsageError(f"row {name!r} must be a table of recipe settings, not {changes!r}")
        settings = {**base.model_dump(), **{k: v for k, v in changes.items() if k != "seed"}}
        seed = changes.get("seed", 0)
        seeds_of(seed)
        planned[name] = Row(config.parse(Recipe, settings, f"row {name}"), seed)
    return planned


def _measure(run: Run, parts: Mapping[str, Split]) -> dict[str, Any]:
    """Train one row, and return its settings, cost and scores; its models are removed."""
    recipe, seed = run.recipe, run.seed
    sets = draw_queries([parts[name][0] for name in recipe.data], recipe, seed)
    sets = [replace(s, negatives=[row[: recipe.hard_negatives] for row in s.negatives]) for s in sets]
    forbidden = [text for _, v in parts.values() for text in (*v.queries, *v.positives)]
    began = time.perf_counter()
    model = trainer.train(run, sets=sets, forbidden=forbidden)
    seconds = time.perf_counter() - began
    log = pd.read_csv(run.out / "log.csv")
    compute = hardware.resolve(run.device, recipe.dtype)
    scores = _scores(Embedder.from_directory(model, device=compute.device, dtype=compute.dtype), parts)
    shutil.rmtree(run.out)
    return {
        **{column: getattr(recipe, column) for column in CHOSEN},
        "seed": seed,
        "lora_rank": recipe.lora.rank if recipe.lora else None,
        "steps": len(log),
        "tokens": int(log["tokens"].sum()),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(log["tokens_per_second"].median()),
        "padding_share": round(log["padding_share"].mean(), 3),
        "memory_gib": round(log["memory_gib"].max(), 2),
        "last_loss": round(log["loss"].tail(5).mean(), 3),
        **scores,
    }


def _scores(embedder: Embedder, parts: Mapping[str, Split]) -> dict[str, float]:
    """Score a model on the validation part of every set, and give their mean."""
    scores = {name: round(score(embedder, validation), 2) for name, (_, validation) in parts.items()}
    return {**scores, "mean": round(float(np.mean(list(scores.values()))), 2)}


def read(table: Path) -> pd.DataFrame:
    """Read a sweep's table; whole numbers stay whole where a row has none."""
    # (a row may be called NA; an empty cell is what has no value)
    return pd.read_csv(table, comment="#", dtype={"name": str}, keep_default_na=False, na_values=[""])


def _columns(table: Path) -> list[str] | None:
    """Return the columns of a table, None if there is none or it has only remarks so far.

    Raises:
        RealignError: it is no table of a sweep.
    """
    try:
        columns = list(read(table).columns)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    except (OSError, ValueError) as error:
        raise RealignError(f"the table {table} cannot be read: {error}") from None
    if "name" not in columns:
        raise RealignError(f"the table {table} has no column 'name': it is not a table of a sweep")
    return columns


def add(table: Path, row: Mapping[str, Any], sets: list[str]) -> None:
    """Append one row to a table, which gets a header if it has none."""
    columns = ["name", *RECIPE_COLUMNS, *COST_COLUMNS, *sets, "mean"]
    known = _columns(table)
    frame = pd.DataFrame([row]).reindex(columns=known or columns)
    with full_disk_as_sentence(table):
        table.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(table, mode="a", header=known is None, index=False)
