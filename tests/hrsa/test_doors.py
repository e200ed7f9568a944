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
         "probes": PROBES, "metrics": NAMES, "detail": "choice", "layers": "layers", "device": DEVICES,
         "sinks": {"text": "nonsense", "too few": [True], "numbers": [0] * 20}},
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
        {"first": MODELS, "second": MODELS, "name": "choice", "on": "choice", "layer": {"text": "nonsense", "far": 99, "half": 0.5}},
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


FORMS = {
    "tuple": tuple,
    "array": np.array,
    "objects": lambda texts: np.array(texts, dtype=object),
    "series": lambda texts: pd.Series(texts, index=range(7, 7 + len(texts))),
    "generator": iter,
    "numpy strings": lambda texts: [np.str_(text) for text in texts],
}


@pytest.mark.parametrize("form", FORMS)
def test_texts_may_come_in_any_form(form):
    a, b = model(), model(1)
    expected = hrsa.compare(a, b, Words(), TEXTS).table
    pd.testing.assert_frame_equal(hrsa.compare(a, b, Words(), FORMS[form](TEXTS)).table, expected)
    batches = [list(hrsa.extract(a, Words(), texts)) for texts in (FORMS[form](TEXTS), TEXTS)]
    for got, wanted in zip(*batches, strict=True):
        assert all(map(torch.equal, got.layers, wanted.layers))


@pytest.mark.parametrize("detail", ["full", "summary"])
def test_two_texts_are_compared_and_one_is_refused(detail):
    report = hrsa.compare(model(), model(1), Words(), TEXTS[:2], detail=detail)
    assert np.isfinite(report.by_layer("cka")["value"]).all()
    if detail == "full":
        null = report.detail("cka_null")
        assert null[["value", "p"]].isna().all(axis=None)
        assert null["layer"].tolist() == [0, 1, 2, -1]
    with pytest.raises(ValueError, match="at least 2 texts"):
        hrsa.compare(model(), model(1), Words(), [" ".join(TEXTS[:2])], detail=detail)


def modes(module):
    return [each.training for each in module.modules()]


class Broken(Words):
    """A tokenizer that fails after the model was put into evaluation mode: a token outside of the vocabulary."""

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [[999] for _ in texts]}


@pytest.mark.parametrize("tokenizer", [Words(), Broken()])
@pytest.mark.parametrize("read", ["compare", "collect", "extract", "extract left early"])
def test_a_model_keeps_its_train_or_eval_mode_part_by_part(read, tokenizer):
    a, b = model().train(), model(1)
    a.layers[0].eval()
    before = modes(a), modes(b)
    calls = {
        "compare": lambda: hrsa.compare(a, b, tokenizer, TEXTS),
        "collect": lambda: hrsa.collect(a, tokenizer, TEXTS),
        "extract": lambda: list(hrsa.extract(a, tokenizer, TEXTS)),
        "extract left early": lambda: next(hrsa.extract(a, tokenizer, TEXTS, token_budget=1)),
    }
    if isinstance(tokenizer, Broken):
        with pytest.raises(IndexError):  # of torch's embedding
            calls[read]()
    else:
        calls[read]()
    assert (modes(a), modes(b)) == before


LIKE = {
    "list": lambda x: x.tolist(),
    "tensor": torch.from_numpy,
    "frame": pd.DataFrame,
    "nullable frame": lambda x: pd.DataFrame(x).astype("Float64"),
    "read-only": lambda x: np.broadcast_to(x[None], (1, *x.shape))[0],
    "reversed twice": lambda x: x[::-1].copy()[::-1],
    "other byte order": lambda x: x.astype(">f8"),
    "with gradient": lambda x: torch.from_numpy(x).requires_grad_(),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", LIKE)
@pytest.mark.parametrize(
    "name", sorted(n for n, (_, _, kinds) in DOORS.items() if "x" in kinds or "rotation" in kinds)
)
def test_array_likes_give_the_numbers_of_arrays(name, form):
    call, good, kinds = DOORS[name]
    changed = {k: LIKE[form](v) if "matrix" in str(kinds[k]) else v for k, v in good().items()}

    def numbers(result):
        parts = (
            vars(result).values()
            if hasattr(result, "__dict__") and not isinstance(result, torch.Tensor)
            else result
        )
        return parts if isinstance(parts, torch.Tensor | np.ndarray | float) else list(parts)

    got, expected = numbers(call(**changed)), numbers(call(**good()))
    for one, other in zip(np.atleast_1d(got) if isinstance(got, float) else got,
                          np.atleast_1d(expected) if isinstance(expected, float) else expected, strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


def test_numpy_scalars_are_settings_like_any_other():
    wide = np.int64(3)
    for k in (wide, np.array([3]), [wide], np.uint8(3)):
        got = hrsa.knn_overlap(MATRIX, Y, k=k, block=np.int32(8), groups=pd.Series(range(20)))
        np.testing.assert_array_equal(got.overlap_rows, hrsa.knn_overlap(MATRIX, Y, k=3).overlap_rows)
    np.testing.assert_array_equal(hrsa.nearest(MATRIX, wide), hrsa.nearest(MATRIX, 3))
    probe = lambda yes, one, c: hrsa.cross_model_probe(  # noqa: E731
        MATRIX, Y, np.arange(20) % 2, folds=one, strengths=c, normalise=yes, controls=yes, seed=one
    )
    got = probe(np.bool_(True), np.int64(2), [np.float64(0.1)]).predictions
    for name, predicted in probe(True, 2, [0.1]).predictions.items():
        np.testing.assert_array_equal(got[name], predicted)
    settings = SimpleNamespace(
        k=np.array([3, 5]), cka_tokens=np.int64(20), seed=np.int64(0), resamples=np.int64(9)
    )
    again = SimpleNamespace(k=[3, 5], cka_tokens=20, seed=0, resamples=9)
    pd.testing.assert_frame_equal(
        hrsa.compare_activations(states(), states(1), settings, layers=[np.int64(0), np.int64(-1)]).table,
        hrsa.compare_activations(states(), states(1), again, layers=[0, 1]).table,
    )


def test_a_statistic_may_give_one_number_and_works_at_1e30():
    def alike(order):
        return hrsa.linear_cka((MATRIX * 1e30).astype(np.float32), (Y[order] * 1e30).astype(np.float32))

    assert hrsa.permutation_test(alike, np.int64(20), permutations=19)["p"] == [1 / 20]
