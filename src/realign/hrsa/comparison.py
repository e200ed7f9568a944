"""All metrics, both estimators, of two models from one pass over the texts each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray

from realign.hrsa.activations import Activations, collect
from realign.hrsa.arrays import plain
from realign.hrsa.checks import instance, layer_numbers, one_of, text_list
from realign.hrsa.forward import Progress, check_model
from realign.hrsa.geometry import SINK_RATIO
from realign.hrsa.intervals import effective_freedom
from realign.hrsa.metrics import ESTIMATORS, METRICS
from realign.hrsa.pair import Detail, Options, Pair, Probe, evenly
from realign.hrsa.report import Report
from realign.hrsa.rows import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Tokenizers = PreTrainedTokenizerBase | tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]

Mode = Literal["bidirectional", "causal"]

NOTES = {
    "paper": "as the paper's public code: biased CKA, Procrustes fitted and scored on the same tokens "
    "(centred fit, uncentred scores), self excluded from neighbours, one 0.8/0.1/0.1 probe split; on a "
    "seeded token sample instead of all tokens",
    "reference": "debiased CKA, Procrustes held out by text (both halves in turn), neighbours of the same text "
    "excluded and chance-corrected, cross-validated probes with regularisation chosen on the source",
    "interval": "95% over texts, from their influences, on a scale that keeps to the range of the metric, by t at the "
    "effective number of texts (F1: by resampled texts); models are held fixed, and so are fitted maps, except where "
    "the number moves with the map in first order; grids of layers by a jackknife over 20 parts of the texts",
    "sinks": f"rows whose norm exceeds {SINK_RATIO:g} medians at any layer of the model that a study starts from, or, "
    "where a comparison stands alone, of either model",
    "null": "texts of one model paired with other texts of the other; for Procrustes at every fifth layer "
    "(one draw) and the last (mean of ten)",
}


def compare_activations(
    a: Activations,
    b: Activations,
    settings: object = None,
    *,
    labels: Sequence[object] | None = None,
    probes: Mapping[str, Probe] | None = None,
    metrics: Collection[str] | None = None,
    detail: Detail = "full",
    layers: Sequence[int] | None = None,
    sinks: NDArray[np.bool_] | None = None,
    device: str | torch.device = "cpu",
) -> Report:
    """Compare two models on the tokens and texts that both have read.

    Args:
        a: states of the first model.
        b: states of the second; the same texts, tokens, layers and width.
        settings: any object with some of cka_tokens, knn_tokens, k, layers (how many, evenly spaced, the first and
            the last among them), resamples, seed (`realign.config.HRSASettings`, for one); defaults 4096, 4096,
            (5, 10, 50), all, 200, 0.
        labels: (n_texts,) label of each text, for label-conditioned neighbour agreement.
        probes: labelled text embeddings by name of the text set.
        metrics: names in the registry; None is all. A metric comes with those that are computed with it.
        detail: 'full', or 'summary' for many cheap comparisons: no L x L grids, no nulls, cheaper probes.
        layers: which layers are read, instead of those of the settings; grids are of all layers.
        sinks: (stored rows,) bool, the rows that CKA without sinks leaves out, such as :func:`sink_rows` of the model
            that a study starts from; None: the sinks of these two models.
        device: where to compute.

    Raises:
        ValueError: the two did not read the same tokens, or differ in layers or width; an unknown metric.
    """
    wanted, options = _wanted(metrics), Options.read(settings)
    one_of(detail, "detail", get_args(Detail))
    _check(a, b)
    _check_texts(a, labels, probes)
    if sinks is not None and (plain(sinks, "sinks").dtype != bool or np.shape(sinks) != a.text_ids.shape):
        raise ValueError(f"sinks must be one bool for each of the {len(a.text_ids)} stored rows, or None")
    count = a.states.shape[0]
    options = Options.read(settings)
    picked = evenly(count, options.layers) if layers is None else sorted(set(layer_numbers(layers, count)))
    scales = {(each.name, e): each.scale_of(e) for each in METRICS.values() for e in ESTIMATORS}
    pair = Pair(a, b, options, _device(device), picked, detail, labels, probes or {}, scales, sinks)
    rows, seconds = Rows(), {}
    with torch.inference_mode():
        for compute in dict.fromkeys(each.compute for each in METRICS.values() if each.name in wanted):
            started = time.perf_counter()
            rows.extend(compute(pair))
            seconds[compute.__name__] = round(time.perf_counter() - started, 3)
    effective = {name: round(float(np.median(effective_freedom(i))), 1) for name, i in rows.influence.items()}
    meta = _facts(pair) | {"seconds": seconds, "effective_texts": effective} | rows.meta
    return Report(rows.table(), rows.all_details(), rows.rotation, rows.influence, meta)


def _facts(pair: Pair) -> dict[str, Any]:
    """What was compared, for the report's meta."""
    a, b, options = pair.a, pair.b, pair.options
    return {
        "layers": pair.layers,
        "width": int(a.states.shape[2]),
        "texts": pair.texts,
        "tokens": len(pair.rows),
        "tokens_knn": min(options.knn_tokens, pair.n),
        "tokens_read": a.meta.get("tokens_read"),
        "truncated": a.meta.get("truncated"),
        "attention": a.meta.get("attention"),
        "dtypes": [a.meta.get("dtype"), b.meta.get("dtype")],
        "k": list(options.k),
        "resamples": options.resamples,
        "seed": options.seed,
        "detail": pair.detail,
        "sample": _sample_digest(a, pair.rows),
        "notes": NOTES,
    }


def _wanted(metrics: Collection[str] | None) -> set[str]:
    if metrics is None:
        return set(METRICS)
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise ValueError(f"metrics must be a list of names, such as ['cka', 'knn'], got {metrics!r}")
    wanted = set(metrics)
    if wanted - set(METRICS):
        unknown = sorted(map(str, wanted - set(METRICS)))
        raise ValueError(f"unknown metrics {unknown}; choose from {', '.join(METRICS)}")
    if not wanted:
        raise ValueError(f"metrics is empty; choose from {', '.join(METRICS)}")
    return wanted


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device {device!r} is unknown; choose 'cpu' or 'cuda'") from None


def _check_texts(a: Activations, labels: Sequence[object] | None, probes: Mapping[str, Probe] | None) -> None:
    """Refuse labels that are not one a text, and probes that are none."""
    texts = a.text_keys.shape
    if labels is not None and plain(labels, "labels").shape != texts:
        raise ValueError(
            f"labels has shape {plain(labels, 'labels').shape}; one for each of the {texts[0]} texts is needed"
        )
    if probes is not None and not isinstance(probes, Mapping):
        raise ValueError(f"probes must map names of text sets to Probe, got {type(probes).__name__}")
    for name, each in (probes or {}).items():
        instance(each, f"probes[{name!r}]", Probe)


def _check(a: Activations, b: Activations) -> None:
    for name, model in (("a", a), ("b", b)):
        held = instance(model, name, Activations)
        if held.states.ndim != 3 or held.states.shape[1] != len(held.text_ids):
            raise ValueError(f"{name} holds states {held.states.shape} of {len(held.text_ids)} tokens")
        if not np.isfinite(held.pooled).all():
            raise ValueError(f"{name} holds text means that are not finite; extract it in float32")
    for name in ("text_keys", "token_ids", "positions", "text_ids"):
        what, x, y = name.replace("_", " "), getattr(a, name), getattr(b, name)
        if x.shape != y.shape:
            raise ValueError(f"the models read different samples: {len(x)} and {len(y)} {what}")
        if not np.array_equal(x, y):
            i = int(np.argmax(x != y))
            raise ValueError(
                f"the models' {what} differ first at entry {i} ({x[i]} and {y[i]}); "
                "use the same texts, token sample and tokenizer for both"
            )
    if a.states.shape != b.states.shape:
        raise ValueError(
            f"states have shapes {a.states.shape} and {b.states.shape}; layers and width must agree "
            "(use cka_grid and knn_overlap for models of different shape)"
        )
    if a.states.shape[1] < 8:
        raise ValueError(f"only {a.states.shape[1]} tokens were sampled; at least 8 are needed")


def _sample_digest(a: Activations, rows: NDArray[np.int64]) -> str:
    picked = np.stack([a.text_keys[a.text_ids[rows]].astype(np.uint64), a.positions[rows].astype(np.uint64)])
    return hashlib.sha256(picked.tobytes()).hexdigest()[:16]


@overload
def compare(
    model_a: PreTrainedModel, model_b: PreTrainedModel, tokenizers: Tokenizers, texts: Iterable[str],
    settings: object = None, *,
    attention: Mode | None = None, progress: Progress | None = None, **options: Any,
) -> Report: ...  # fmt: skip


@overload
def compare(
    model_a: PreTrainedModel, model_b: PreTrainedModel, tokenizers: Tokenizers, texts: Iterable[str],
    settings: object = None, *,
    attention: Literal["both"], progress: Progress | None = None, **options: Any,
) -> dict[Mode, Report]: ...  # fmt: skip


def compare(
    model_a: PreTrainedModel,
    model_b: PreTrainedModel,
    tokenizers: Tokenizers,
    texts: Iterable[str],
    settings: object = None,
    *,
    attention: Mode | Literal["both"] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report | dict[Mode, Report]:
    """Compare two loaded models on texts: one forward pass each, then :func:`compare_activations`.

    Args:
        model_a: a transformers model.
        model_b: the other.
        tokenizers: the tokenizer of both, or a pair of tokenizers that must agree on the texts.
        texts: what both read; any iterable of strings, none empty. Intervals need some tens of them: with fewer
            than 2 nothing can be held out, which is an error, and with fewer than 4 `cka_null` is NaN.
        settings: as in compare_activations; also max_tokens (default: 512).
        attention: read both models in this mode (for models that follow ``config.is_causal``, such as Llama,
            Qwen2 and Qwen3); None leaves them as they are. 'both' reads and compares in either mode, to see
            whether a conclusion depends on it.
        progress: see `extract`.
        **options: passed to compare_activations.

    Returns:
        A report; with 'both' a report for each mode.
    """
    if attention is not None:
        one_of(attention, "attention", (*get_args(Mode), "both"))
    texts = text_list(texts)  # read twice at least, which a generator cannot be
    check_model(model_a, "model_a")
    check_model(model_b, "model_b")
    if attention == "both":
        again = partial(compare, model_a, model_b, tokenizers, texts, settings, progress=progress, **options)
        return {mode: again(attention=mode) for mode in get_args(Mode)}
    if isinstance(tokenizers, tuple | list) and len(tokenizers) != 2:
        raise ValueError(f"tokenizers must be one tokenizer or two, got {len(tokenizers)}")
    first, second = tokenizers if isinstance(tokenizers, tuple | list) else (tokenizers, tokenizers)
    choice = Options.read(settings)
    keep = max(choice.cka_tokens, choice.knn_tokens)
    limit = getattr(settings, "max_tokens", 512)
    _wanted(options.get("metrics"))  # before minutes of reading
    read = partial(collect, texts=texts, tokens=keep, seed=choice.seed, max_tokens=limit, progress=progress)
    states = []
    for model, tokenizer in ((model_a, first), (model_b, second)):
        with _attention(model, attention):
            states.append(read(model, tokenizer))
    return compare_activations(states[0], states[1], settings, **options)


@contextmanager
def _attention(model: PreTrainedModel, mode: str | None) -> Iterator[None]:
    """Set ``config.is_causal`` for a while."""
    before = getattr(model.config, "is_causal", None)
    if mode is not None:
        model.config.is_causal = mode == "causal"
    try:
        yield
    finally:
        if mode is not None:
            # An unset flag means causal to the decoder models that read it.
            model.config.is_causal = True if before is None else before
