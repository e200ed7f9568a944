"""A recorded sweep over recipes, scored on validation pairs of the training side alone.

A tenth of each training set, drawn by the digest of the positive, is kept out of these runs; no
evaluation text is used. One row a recipe; rows that the table has already are not run again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign import config, hardware
from realign.config import Backbone, Recipe
from realign.models import loading
from realign.models.embedder import Embedder
from realign.texts import pairs, splits
from realign.training import trainer
from realign.training.data import share

VALIDATION_SHARE = 0.1
VALIDATION_QUERIES = 64
UNTRAINED = "untrained"
CHOSEN = ("queries", "batch_size", "learning_rate", "warmup_ratio", "temperature", "hard_negatives")
RECIPE_COLUMNS = (*CHOSEN, "lora_rank", "seed")
COST_COLUMNS = ("steps", "tokens", "seconds", "tokens_per_second", "padding_share", "memory_gib", "last_loss")


def split(sets: Sequence[pairs.PairSet], n: int) -> list[tuple[pairs.PairSet, pairs.PairSet]]:
    """Return (training, validation) parts of each set; validation has at most ``n`` queries.

    Training rows of any set that share a text with a validation row of any set are left out.
    """
    parts = []
    for one in sets:
        shares = [splits.fraction("validation", splits.normalise(p)) for p in one.positives]
        held = [share < VALIDATION_SHARE for share in shares]
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
        rows: by name, the settings that a row changes (``data`` too: every row is scored on the sets of all rows), and its ``seed`` (0 if
            not given).
        table: CSV to add to; lines before its header that start with ``#`` are kept.
        work: scratch folder for models and checkpoints.
        local: directory of the materialised base.
        device: of training and scoring.

    Returns:
        The table: name, recipe, cost (tokens/s are the median over steps), score by set and their mean.
    """
    seeds = {name: int(changes.get("seed", 0)) for name, changes in rows.items()}
    recipes = {}
    for name, changes in rows.items():
        settings = {**base.model_dump(), **{k: v for k, v in changes.items() if k != "seed"}}
        recipes[name] = config.parse(Recipe, settings, f"row {name}")
    done = set(read(table)["name"]) if _columns(table) else set()
    hard = max(r.hard_negatives for r in [base, *recipes.values()])
    names = list(dict.fromkeys(name for r in [*recipes.values(), base] for name in r.data))
    whole = [pairs.load(name, hard_negatives=hard) for name in names]
    parts = dict(zip(names, split(whole, VALIDATION_QUERIES), strict=True))
    compute = hardware.resolve(device, base.dtype)
    longest = max(base.max_query_tokens, base.max_passage_tokens)

    def scored(embedder: Embedder) -> dict[str, float]:
        found = {name: round(score(embedder, validation), 2) for name, (_, validation) in parts.items()}
        return {**found, "mean": round(float(np.mean(list(found.values()))), 2)}

    if UNTRAINED not in done:
        model, tokenizer = loading.load(backbone, attention=base.attention, local=local)
        embedder = Embedder(model, tokenizer, max_tokens=longest, device=compute.device, dtype=compute.dtype)
        add(table, {"name": UNTRAINED, **scored(embedder)}, list(parts))
        del embedder, model
    for name, recipe in recipes.items():
        if name in done:
            continue
        seed = seeds[name]
        training = [parts[name][0] for name in recipe.data]
        counts = share(
            [len(s) for s in training], recipe.queries, recipe.sampling, recipe.sampling_temperature
        )
        sets = [s.take(n, seed) for s, n in zip(training, counts, strict=True)]
        sets = [replace(s, negatives=[row[: recipe.hard_negatives] for row in s.negatives]) for s in sets]
        forbidden = [t for _, v in parts.values() for t in (*v.queries, *v.positives)]
        out = work / name
        began = time.perf_counter()
        trainer.train(
            backbone, recipe, seed, out,
            local=local, compute=compute, work=out / "work", sets=sets, forbidden=forbidden,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        log = pd.read_csv(out / "log.csv")
        embedder = Embedder.from_directory(out / "model", device=compute.device, dtype=compute.dtype)
        asked = {c: getattr(recipe, c) for c in CHOSEN} | {"seed": seed}
        cost = {
            "steps": len(log),
            "tokens": int(log["tokens"].sum()),
            "seconds": round(seconds, 1),
            "tokens_per_second": round(log["tokens_per_second"].median()),
            "padding_share": round(log["padding_share"].mean(), 3),
            "memory_gib": round(log["memory_gib"].max(), 2),
            "last_loss": round(log["loss"].tail(5).mean(), 3),
        }
        rank = recipe.lora.rank if recipe.lora else None
        add(table, {"name": name, **asked, "lora_rank": rank, **cost, **scored(embedder)}, list(parts))
        del embedder
        shutil.rmtree(out)
    return read(table)


def read(table: Path) -> pd.DataFrame:
    """Read a sweep's table; whole numbers stay whole where a row has none."""
    return pd.read_csv(table, comment="#", dtype={"name": str})


def _columns(table: Path) -> list[str] | None:
    try:
        return list(read(table).columns)
    except (FileNotFoundError, pd.errors.EmptyDataError):  # no table, or only remarks so far
        return None


def add(table: Path, row: Mapping[str, Any], sets: list[str]) -> None:
    """Append one row to a table, which gets a header if it has none."""
    columns = ["name", *RECIPE_COLUMNS, *COST_COLUMNS, *sets, "mean"]
    known = _columns(table)
    frame = pd.DataFrame([row]).reindex(columns=known or columns)
    table.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(table, mode="a", header=known is None, index=False)
