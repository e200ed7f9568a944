"""Every public function of hrsa says what is wrong with an argument, and takes array-likes and numpy scalars."""

import inspect
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from doors import MATRIX, cases, functions, refuses
from transformers import LlamaConfig, LlamaModel

from realign import hrsa

Y = np.random.default_rng(1).normal(size=MATRIX.shape) + MATRIX
TEXTS = [" ".join(f"w{7 * i + j}" for j in range(6)) for i in range(5)]


class Words:
    """A word-level tokenizer with the two things that hrsa asks of one."""

    pad_token_id = 0

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [[1 + sum(map(ord, w)) % 60 for w in t.split()] for t in texts]}


def model(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaModel(LlamaConfig(vocab_size=64, max_position_embeddings=40, pad_token_id=0, **sizes))


def states(seed=0):
    shift = 0.1 * seed * np.random.default_rng(seed).normal(size=(2, 20, 4))
    return hrsa.Activations.from_pooled(np.stack([MATRIX, Y]) + shift)


def report():
    return hrsa.compare_activations(states(), states(1), metrics=["correlation"], detail="summary")


def pair(**more):
    return lambda: {"x": MATRIX, "y": Y, **more}


def reading(**more):
    return lambda: {"model": model(), "tokenizer": Words(), "texts": TEXTS, **more}


MODELS = {"none": None, "text": "nonsense", "list": [], "frame": pd.DataFrame(), "a matrix": MATRIX}
NAMES = {"text": "nonsense", "list": ["nonsense"], "number": 3, "empty": []}
SETTINGS = {
    "k of text": SimpleNamespace(k="nonsense"),
    "k of 0": SimpleNamespace(k=(0,)),
    "k empty": SimpleNamespace(k=()),
}
PROBES = {"list": [1], "text": "nonsense", "no probe": {"toy": MATRIX}}
DEVICES = {"text": "nonsense", "object": object()}
STATISTICS = {
    "none": None,
    "text": "nonsense",
    "NaN": lambda order: np.array([np.nan]),
    "infinite": lambda order: [np.inf],
    "NaN of a permutation": lambda order: [0.0 if order[0] == 0 and order[1] == 1 else np.nan],
    "masked": lambda order: np.ma.masked_array([1.0], [True]),
    "frame": lambda order: pd.DataFrame({"a": [1.0]}),
    "nothing": lambda order: [],
    "texts": lambda order: ["a"],
    "none given": lambda order: None,
}
BOTH = {"x": "matrix", "y": "other matrix"}
STACKS = {"xs": "stack", "ys": "stack"}
READ = {"model": MODELS, "tokenizer": "other", "texts": "texts", "max_tokens": "count", "token_budget": "count",
        "layers": "layers", "progress": {"text": "nonsense", "number": 3}}  # fmt: skip
KNN = {"k": "counts", "metric": "choice", "groups": "groups", "block": "count"}
RATIO = {"value": "finite", "floor": "finite", "ceiling": "finite"}

#       the call, arguments that fit, and the kind (or a dict of bad values) of every argument
DOORS = {
    "by_layer": (hrsa.by_layer, lambda: {"report": report()}, {"report": MODELS}),
    "calibrated": (
        hrsa.calibrated,
        lambda: {"value": 0.5, "floor": 0.0, "ceiling": 1.0, "influences": ([0.1, -0.1],) * 3},
        {**RATIO, "influences": {"none": None, "two": ([0.1],) * 2, "NaN": ([np.nan, 1.0],) * 3}},
    ),
    "cka_grid": (
        hrsa.cka_grid,
        lambda: {"xs": [MATRIX], "ys": [Y]},
        {**STACKS, "estimator": "choice", "method": "choice", "block": "count", "batch": "count"},
    ),
    "cka_with_influence": (hrsa.cka_with_influence, pair(), BOTH),
    "collect": (hrsa.collect, reading(), {**READ, "tokens": "seed", "seed": "seed"}),
    "compare": (
        hrsa.compare,
        lambda: {"model_a": model(), "model_b": model(1), "tokenizers": Words(), "texts": TEXTS},
        {"model_a": MODELS, "model_b": MODELS, "tokenizers": {"none": None, "three": [Words()] * 3}, "texts": "texts",
         "settings": SETTINGS, "attention": "choice", "progress": READ["progress"],
         "options": {"metrics": {"metrics": ["nonsense"]}}},
    ),
    "compare_activations": (
        hrsa.compare_activations,
        lambda: {"a": states(), "b": states(1), "metrics": ["correlation"]},
        {"a": MODELS, "b": MODELS, "settings": SETTINGS, "labels": {"too few": [1], "text": "nonsense"},
         "probes": PROBES, "metrics": NAMES, "detail": "choice", "layers": "layers", "device": DEVICES},
    ),
    "correlation_grid": (hrsa.correlation_grid, lambda: {"xs": [MATRIX], "ys": [Y]}, {**STACKS, "block": "count"}),
    "cross_model_probe": (
        hrsa.cross_model_probe,
        lambda: {"source": MATRIX, "target": Y, "labels": [0, 1] * 10, "folds": 2, "strengths": [0.1]},
        {"source": "matrix", "target": "other matrix", "labels": "labels", "groups": "groups", "task": "choice",
         "folds": "count", "strengths": "positive list", "normalise": "flag", "controls": "flag", "seed": "seed"},
    ),
    "diagonal_energy": (hrsa.diagonal_energy, lambda: {"rotation": np.eye(4)}, {"rotation": "matrix"}),
    "difference": (
        hrsa.difference,
        lambda: {"first": report(), "second": report(), "name": "correlation"},
        {"first": MODELS, "second": MODELS, "name": "choice", "layer": {"text": "nonsense", "far": 99, "half": 0.5}},
    ),
    "dimension_correlation": (hrsa.dimension_correlation, pair(), BOTH),
    "effective_freedom": (hrsa.effective_freedom, lambda: {"influence": [0.1, -0.1]}, {"influence": "vector"}),
    "energy": (hrsa.energy, lambda: {"x": MATRIX}, {"x": "matrix"}),
    "extract": (hrsa.extract, reading(), READ),
    "influence_interval": (
        hrsa.influence_interval,
        lambda: {"value": 0.5, "influence": [0.1, -0.1]},
        {"value": "finite", "influence": "vector", "scale": "choice", "level": "share"},
    ),
    "inverse_row_entropy": (hrsa.inverse_row_entropy, lambda: {"rotation": np.eye(4)}, {"rotation": "matrix"}),
    "knn_overlap": (hrsa.knn_overlap, pair(k=3), BOTH | KNN),
    "linear_cka": (hrsa.linear_cka, pair(), {**BOTH, "estimator": "choice"}),
    "models_map": (
        hrsa.models_map,
        lambda: {"models": {f"m{i}": states(i) for i in range(3)}},
        {"models": {**MODELS, "matrices": dict.fromkeys("abc", MATRIX)}, "layers": "layers", "tokens": "count",
         "parts": "count", "seed": "seed"},
    ),
    "nearest": (hrsa.nearest, lambda: {"x": MATRIX, "k": 3}, {"x": "matrix", **KNN, "k": "count"}),
    "orthogonal_procrustes": (hrsa.orthogonal_procrustes, pair(), BOTH),
    "permutation_energy": (hrsa.permutation_energy, lambda: {"rotation": np.eye(4)}, {"rotation": "matrix"}),
    "permutation_test": (
        hrsa.permutation_test,
        lambda: {"statistic": lambda order: [float(order[0])], "n": 5},
        {"statistic": STATISTICS, "n": "count", "permutations": "count", "seed": "seed"},
    ),
    "rotation_angles": (hrsa.rotation_angles, lambda: {"rotation": np.eye(4)}, {"rotation": "matrix"}),
    "standardise": (hrsa.standardise, lambda: {"x": MATRIX}, {"x": "matrix"}),
}  # fmt: skip


def test_every_public_function_and_each_of_its_arguments_has_a_door():
    assert functions(hrsa) == set(DOORS)
    for name, (call, _, kinds) in DOORS.items():
        assert set(inspect.signature(call).parameters) - {"fast"} == set(kinds), name


@pytest.mark.parametrize(("name", "argument", "label"), cases(DOORS))
def test_a_bad_argument_is_refused_by_name(name, argument, label):
    refuses(DOORS, "hrsa", name, argument, label)
