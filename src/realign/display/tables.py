"""The tables of the chapters: numbers of :mod:`realign.findings` as text, with intervals, units and rounding.

Every function returns a :class:`realign.display.format.Table`, which a notebook shows when it ends a cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from realign.display.comparisons import differences as differences
from realign.display.comparisons import modes as modes
from realign.display.comparisons import probes as probes
from realign.display.comparisons import similarities as similarities
from realign.display.format import (
    EMPTY,
    Table,
    Text,
    intervals,
    number,
    p_value,
    percent,
    show,
    signed,
)
from realign.findings import mechanism
from realign.findings import scores as findings
from realign.hrsa.metrics import headlines, id_title

if TYPE_CHECKING:
    from realign.study import Study
    from realign.study.models import Models

REWARDS = {"verifier": "right or wrong", "random": "a coin"}
STYLES = {"answer": "the answer", "working": "working, then answer"}


# ---------------------------------------------------------------------------- RQ1: scores and training
def scores(frame: pd.DataFrame, by: str = "suite") -> Table:
    """Mean scores by 'suite', 'type' or 'task'; ``Δ reason`` is mean ± standard deviation over seeds."""
    return _scores(findings.score_table(frame, by))


def type_means(frame: pd.DataFrame) -> Table:
    """Mean over the task types of each suite."""
    return _scores(findings.type_means(frame))


def _scores(table: pd.DataFrame) -> Table:
    shown = pd.DataFrame(index=table.index)
    for column in table.columns:
        if column.endswith(" sd"):
            continue
        if column.endswith(" delta"):
            role = column.removesuffix(" delta")
            pairs = zip(table[column], table[f"{role} sd"], strict=True)
            shown[f"Δ {role}"] = [signed(d, s) for d, s in pairs]
        elif column in ("tasks", "types"):
            if (table[column] > 1).any():
                shown[column] = table[column].astype(int)
        else:
            shown[column] = [number(v, 2) for v in table[column]]
    return show(shown.reset_index())


def failures(frame: pd.DataFrame) -> Table:
    """Tasks without a score, with the reason."""
    return show(findings.failures(frame))


def equivalence(frame: pd.DataFrame, items: pd.DataFrame, margin: float) -> Table:
    """The test of each arm against base in each suite; ``margin`` is in points."""
    tests = findings.equivalence(frame, items, margin)
    shown = tests[["suite", "arm"]].assign(**{"difference [90%]": intervals(tests, 2, "delta")})
    shown["df"] = [number(f, 1) for f in tests["freedom"]]
    shown["p, TOST"] = [p_value(p) for p in tests["tost_p"]]
    answers = {True: f"within ±{margin:g}", False: "not shown"}
    shown["equivalent"] = tests["equivalent"].map(answers).where(tests["identified"], "open: one seed")
    sources = ["queries", "seeds", "runs"]
    shares = 100 * tests[sources].to_numpy(dtype=float)
    shown[f"noise from {' / '.join(sources)} %"] = [" / ".join(number(s, 0) for s in row) for row in shares]
    new = tests[["delta"]].assign(low=tests["new_low"], high=tests["new_high"])
    shown["on new tasks [90%]"] = intervals(new, 2, "delta")
    return show(shown.join(tests[["tasks", "models"]]))


def unidentified(frame: pd.DataFrame, items: pd.DataFrame, margin: float) -> Text:
    """What the intervals of :func:`equivalence` do not cover, in a sentence."""
    notes = pd.unique(findings.equivalence(frame, items, margin)["note"].str.split("; ").explode())
    said = [note for note in notes if note]
    return Text("The intervals are bounded so: " + "; ".join(said) + "." if said else "")


def gains(frame: pd.DataFrame) -> Table:
    """What contrastive learning adds to each untrained backbone."""
    table = findings.gains(frame)
    shown = table[["suite", "role"]].copy()
    for column in ("untrained", "trained"):
        shown[column] = [number(v, 2) for v in table[column]]
    shown["gain [90% interval over seeds]"] = intervals(table, 2, "gain")
    pairs = zip(table["better"], table["seeds"], strict=True)
    shown["seeds above untrained"] = [f"{better} of {seeds}" for better, seeds in pairs]
    return show(shown)


def against_bm25(frame: pd.DataFrame) -> Table:
    """Trained models against BM25 by task, least word overlap first."""
    return show(findings.against_bm25(frame).round(1).reset_index())


def training(logs: pd.DataFrame) -> Table:
    """Last row of each training run: role, seed, steps, loss, in-batch accuracy, tokens a second."""
    if logs.empty:
        return show(pd.DataFrame(columns=["role", "seed", "steps"]))
    last = logs.sort_values("step").groupby(["role", "seed"], as_index=False).tail(1)
    names = {"step": "steps", "loss": "final loss", "accuracy": "in-batch accuracy"}
    columns = [c for c in ["role", "seed", *names, "tokens_per_second"] if c in last]
    shown = last[columns].rename(columns=names).reset_index(drop=True)
    return show(shown.round(3).rename(columns={"tokens_per_second": "tokens / s"}))


def reading(frame: pd.DataFrame) -> Table:
    """What the first trained base model read in each task.

    Texts and tokens that an earlier task has read already are not read, and not counted, again.

    Args:
        frame: of ``study.evaluate.reading()``.
    """
    mine = frame[(frame["model"] == "emb") & (frame["role"] == "base")]
    mine = mine[mine["seed"] == mine["seed"].min()]
    cut = mine["truncated"] / mine["texts"].clip(lower=1)
    shown = mine[["task", "instruction"]].assign(texts=mine["texts"].astype(int))
    shown["cut off %"] = [number(100 * part, 0) for part in cut]
    shown[["empty", "tokens"]] = mine[["empty", "tokens"]].astype(int)
    shown["seconds"] = [number(seconds, 1) for seconds in mine["seconds"]]
    shown["of which encoding"] = [number(seconds, 1) for seconds in mine["encode_seconds"]]
    return show(shown.assign(dtype=mine["dtype"]))


# ---------------------------------------------------------------------------- RQ4: tuning
def siblings(models: Models) -> Table:
    """How each followed role was tuned: a sibling that others tuned has a source and nothing more."""
    rows = mechanism.siblings(models)
    tuned_by_others = "tuned by others: " + rows["source"]
    rows["method"] = rows["method"].str.upper().fillna(tuned_by_others)
    rows["reward"], rows["style"] = rows["reward"].map(REWARDS), rows["style"].map(STYLES)
    names = {"problems": "problems a step", "answers": "answers a problem", "style": "a completion is"}
    return show(rows.drop(columns="source").rename(columns=names).fillna(EMPTY))


def policy(frame: pd.DataFrame) -> Table:
    """Behaviour of each checkpoint: accuracy (%) with 95% intervals, entropy and KL in nats a token, JS divergence on common texts.

    Step 0 is the base; a sibling tuned in another style has a step 0 of its own, the base asked in that style.
    """
    frame = frame.sort_values(["role", "step"], ignore_index=True)
    shown = frame[["role", "step"]].astype({"step": int})
    for mode in ("greedy", "sampled"):
        shown[f"{mode} accuracy %"] = _accuracy(frame, mode)
    shown["entropy"] = [number(value, 3) for value in frame["entropy"]]
    shown["KL to base"] = [number(value, 4) for value in frame["kl"]]
    for domain, texts in (("task", "worked answers"), ("neutral", "documentation")):
        names = {f"js_{domain}": "value", f"js_{domain}_low": "low", f"js_{domain}_high": "high"}
        shown[f"JS to base, {texts}"] = intervals(frame[[*names]].rename(columns=names), 4)
    return show(shown.assign(n=frame["n"].astype(int)))


def _accuracy(frame: pd.DataFrame, mode: str) -> list[str]:
    names = [f"accuracy_{mode}{end}" for end in ("", "_low", "_high")]
    return [percent(*row) for row in frame.reindex(columns=names).to_numpy(dtype=float)]


def _headline(frame: pd.DataFrame) -> pd.DataFrame:
    """The headline similarities as text: a row a checkpoint (role, step), a column a metric."""
    rows = frame.assign(text=intervals(frame))
    table = rows.pivot(index=["role", "step"], columns=["metric", "at"], values="text").sort_index()
    table = table[headlines(frame)]
    return table.set_axis([id_title(*column) for column in table.columns], axis="columns")


def drift(frame: pd.DataFrame) -> Table:
    """Similarity to base of each checkpoint, with 95% intervals: the headline metrics as columns."""
    return show(_headline(frame).reset_index())


def matched(policy: pd.DataFrame, drift: pd.DataFrame, role: str = "reason") -> Table:
    """Roles compared at the end, after equal steps, at equal accuracy and equal distance to base (:func:`mechanism.matched`)."""
    rows = mechanism.matched(policy, drift, role)
    if rows.empty:
        return show(rows)
    shown = pd.DataFrame(
        {"matched on": rows["matched"], "role": rows["role"], "step": rows["step"].astype(int)}
        | {"greedy accuracy %": _accuracy(rows, "greedy"), "KL to base": [number(v, 3) for v in rows["kl"]]}
        | {"KL on common text": [number(v, 3) for v in rows["kl_task"]]}
    )
    shown = shown.join(_headline(drift), on=["role", "step"])
    return show(shown.assign(**{"(1 − CKA) / KL": [number(v, 4) for v in rows["moved"]]}))


def updates(frame: pd.DataFrame) -> Table:
    """Median over matrices, with the middle half: size, effective rank, entries moved, overlap with the base."""

    def shown(column: str, digits: int, scale: float = 1) -> list[str]:
        rows = mechanism.quartiles(frame.assign(**{column: scale * frame[column]}), "role", column)
        return intervals(rows, digits)

    chance = mechanism.quartiles(frame, "role", "base_left_chance")
    return show(
        pd.DataFrame(
            {"role": chance["role"], "update / weight": shown("size", 4), "effective rank": shown("rank", 2)}
            | {"moved in bfloat16 %": shown("moved", 1, 100)}
            | {"output directions in the base's": shown("base_left", 3)}
            | {"chance": [number(value, 3) for value in chance["value"]]}
        )
    )


def landscape(measures: pd.DataFrame) -> Table:
    """Landscape and trajectories with 95% intervals, and the base against itself."""
    rows = measures.assign(text=intervals(measures), base=[number(v, 3) for v in measures["null"]])
    table = rows.pivot_table(
        index=["domain", "measure", "base"], columns="role", values="text", aggfunc="first", sort=False
    )
    return show(table.rename_axis(columns=None).reset_index().rename(columns={"base": "base against itself"}))


# ---------------------------------------------------------------------------- provenance
def provenance(study: Study) -> Table:
    """What the cells above have read: one row an artifact, with how and when it was computed."""
    frame = study.provenance()
    if frame.empty:
        return show(frame)
    frame = frame.assign(seconds=frame["seconds"].round(1))
    return show(frame.sort_values(["stage", "artifact"], ignore_index=True))
