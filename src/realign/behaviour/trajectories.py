"""A tuned model on the map of its base: what it reads where, and where its own texts go.

See :mod:`realign.behaviour.landscape` for the map and the measures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from realign import texts
from realign.behaviour import landscape, problems
from realign.config import TASK, MechanismSettings, PolicySettings
from realign.hrsa import uncertainty

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHOWN_TEXTS = 16  # texts of each model and domain whose points are kept, for drawing
SHOWN_POINTS = 300  # points of the fixed texts that are kept
PROMPT_WORDS = 12
FIXED_TOKENS = 48

Paths = list[NDArray[np.float64]]  # one (tokens, p) array a text: places on the map along the text


@dataclass(frozen=True)
class Material:
    """Texts to fit the map on, which no model wrote, and prompts to continue, by domain."""

    fixed: list[str]
    prompts: dict[str, list[str]]


@dataclass(frozen=True)
class BaseOnMap:
    """The base with its map, and what it wrote and how it read that, by domain.

    Attributes:
        fixed: (n, p) places of the tokens of the fixed texts.
        paths: of what it wrote; again: of what it wrote with another seed.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chart: landscape.Map
    fixed: NDArray[np.float64]
    prompts: dict[str, list[str]]
    written: dict[str, landscape.Written]
    paths: dict[str, Paths]
    again: dict[str, Paths]


def material(
    tokenizer: PreTrainedTokenizerBase, settings: MechanismSettings, task: PolicySettings, *, natural: str
) -> Material:
    """Draw prompts and fixed texts: problems of the task, and texts of the set ``natural``."""
    drawn = problems.load(
        task.task, task.task_options, "test", settings.prompts, chat=problems.has_chat_markers(tokenizer)
    )
    others = texts.load(natural, 2 * settings.prompts, seed=settings.seed).texts
    return Material(
        [*others[settings.prompts :], *(f"{p.prompt}{p.solution}" for p in drawn)],
        {
            TASK: [p.prompt for p in drawn],
            natural: [" ".join(t.split()[:PROMPT_WORDS]) for t in others[: settings.prompts]],
        },
    )


def base_on_map(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    material: Material,
    settings: MechanismSettings,
) -> BaseOnMap:
    """Fit the map on the base's states of the fixed texts, and let the base write twice."""
    pad = tokenizer.pad_token_id
    rows = tokenizer(material.fixed, truncation=True, max_length=FIXED_TOKENS).input_ids
    fixed = landscape.Written([[row[0]] for row in rows], [list(row[1:]) for row in rows])
    states = np.concatenate(landscape.read(model, fixed, pad))
    chart = landscape.fit_map(
        states, components=settings.components, regions=settings.regions, seed=settings.seed
    )

    def write(seed: int) -> dict[str, landscape.Written]:
        return {
            domain: landscape.write(model, tokenizer, prompts, length=settings.max_new_tokens, seed=seed)
            for domain, prompts in material.prompts.items()
        }

    def place(written: dict[str, landscape.Written]) -> dict[str, Paths]:
        return {d: [chart(s) for s in landscape.read(model, w, pad)] for d, w in written.items()}

    written = write(settings.seed)
    again = place(write(settings.seed + 1))
    return BaseOnMap(model, tokenizer, chart, chart(states), material.prompts, written, place(written), again)


def compare(
    base: BaseOnMap,
    tuned: PreTrainedModel,
    settings: MechanismSettings,
    *,
    name: str,
    progress: Callable[[Collection[str]], Iterable[str]] = iter,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure a tuned model against the base.

    Args:
        base: of :func:`base_on_map`.
        tuned: reads what the base wrote, and writes itself.
        settings: as given there.
        name: of the tuned model, for the points.
        progress: wraps the domains.

    Returns:
        Measures (domain, measure, value, low, high, null) with 95% bootstrap intervals over texts, and
        points on the first two axes of the map (role, domain, text, token, x, y).
    """
    pad, chart = base.tokenizer.pad_token_id, base.chart
    weights = uncertainty.resample_weights(settings.prompts, settings.resamples, settings.seed)
    measures: list[dict[str, Any]] = []
    points = [_points(base.fixed[:SHOWN_POINTS, None], "", "fixed texts")]
    for domain in progress(base.prompts):
        prompts, written = base.prompts[domain], base.written[domain]
        own = landscape.write(
            tuned, base.tokenizer, prompts, length=settings.max_new_tokens, seed=settings.seed + 2
        )
        went = [chart(states) for states in landscape.read(base.model, own, pad)]
        reread = [chart(states) for states in landscape.read(tuned, written, pad)]
        agreement = landscape.next_token_agreement(base.model, tuned, written, pad)
        paths, again = base.paths[domain], base.again[domain]
        for measure, value, null in (
            ("landscape shift", partial(landscape.shift, paths, reread), 0.0),
            (
                "trajectory distance",
                partial(landscape.energy_distance, paths, went),
                float(landscape.energy_distance(paths, again)),
            ),
            (
                "region occupancy",
                partial(landscape.occupancy_distance, paths, went, chart),
                landscape.occupancy_distance(paths, again, chart),
            ),
            ("spread", partial(landscape.spread, went), landscape.spread(paths)),
            ("step length", partial(landscape.step_length, went), landscape.step_length(paths)),
            ("next-token top-1 agreement", partial(_token_mean, agreement, "top1"), 1.0),
            ("next-token divergence (bits)", partial(_token_mean, agreement, "js"), 0.0),
        ):
            interval = landscape.with_interval(value, weights)
            measures.append({"domain": domain, "measure": measure, **interval, "null": null})
        points += [_points(paths[:SHOWN_TEXTS], domain, "base"), _points(went[:SHOWN_TEXTS], domain, name)]
    return pd.DataFrame(measures), pd.concat(points, ignore_index=True)


def _token_mean(agreement: pd.DataFrame, column: str, weights: NDArray[Any] | None) -> Any:
    """Mean of a column over tokens: one number, or (R,) under weights of the texts (R, texts)."""
    counts = agreement["tokens"].to_numpy()
    sums = (agreement[column] * agreement["tokens"]).to_numpy()
    w = np.ones((1, len(counts))) if weights is None else weights
    value = (w @ sums) / (w @ counts)
    return float(value[0]) if weights is None else value


def _points(paths: Iterable[NDArray[Any]], domain: str, role: str) -> pd.DataFrame:
    """Places of tokens on the first two axes: role, domain, text, token, x, y."""
    rows = [
        {"role": role, "domain": domain, "text": text, "token": token, "x": place[0], "y": place[1]}
        for text, path in enumerate(paths)
        for token, place in enumerate(path)
    ]
    return pd.DataFrame(rows)
