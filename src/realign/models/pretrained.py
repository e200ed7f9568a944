"""transformers' ``from_pretrained`` as this project uses it: silent, strict, and never running a model's own code.

Every failure is one sentence that names the model. Weights that a file lacks, or has too many of, are an
error: transformers would leave the missing ones random and only warn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from realign.errors import RealignError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and notices of future changes while a model is read or written."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def config(name: str | Path, **options: Any) -> PretrainedConfig:
    """Read the configuration of a directory or hub name (``revision`` may be given)."""
    from transformers import AutoConfig

    return _opened("configuration", AutoConfig.from_pretrained, name, options)


def tokenizer(name: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a directory or hub name (``revision`` may be given)."""
    from transformers import AutoTokenizer

    read: PreTrainedTokenizerBase = _opened("tokenizer", AutoTokenizer.from_pretrained, name, options)
    if not len(read):
        raise RealignError(f"the tokenizer in {name} has no tokens: its files are missing or damaged")
    return read


def language_model(folder: Path, *, head: bool = True, **options: Any) -> PreTrainedModel:
    """Read a causal language model; without ``head`` the weights of its head may be missing (they are not used)."""
    from transformers import AutoModelForCausalLM

    model, report = _weights(AutoModelForCausalLM.from_pretrained, folder, options)
    inside = f"{model.base_model_prefix}."
    missing = [name for name in report["missing_keys"] if head or name.startswith(inside)]
    _refuse(folder, missing=missing, unexpected=report["unexpected_keys"])
    return model


def encoder(folder: Path, **options: Any) -> PreTrainedModel:
    """Read a model without head; weights of a head in its files are left out."""
    from transformers import AutoModel

    model, report = _weights(AutoModel.from_pretrained, folder, options)
    parts = {name.split(".")[0] for name in model.state_dict()} | {model.base_model_prefix}
    unexpected = [name for name in report["unexpected_keys"] if name.split(".")[0] in parts]
    _refuse(folder, missing=report["missing_keys"], unexpected=unexpected)
    return model


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Cast the weights of a model, in place, and nothing else: as ``from_pretrained(dtype=...)`` leaves it.

    Buffers such as the frequencies of rotary embeddings stay in float32; in bfloat16 they would be off by
    up to 0.4%, and far positions with them.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save model and tokenizer as a transformers directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(str(directory))
        tokenizer.save_pretrained(str(directory))


def listed(names: Iterable[str], shown: int = 3) -> str:
    """Write a count and the first few names: "5 (a, b, c, ...)"."""
    names = sorted(names)
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} ({', '.join(names[:shown])}{more})"


def _weights(
    read: Callable[..., Any], folder: Path, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    # Sizes that differ are reported like the rest, so that all can be named.
    asked = {**options, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = _opened("model", read, folder, asked)
    _refuse(folder, shape=[name for name, *_ in report["mismatched_keys"]])
    return model, report


def _refuse(folder: Path, **wrong_names: Collection[str]) -> None:
    if wrong := [f"{what}: {listed(names)}" for what, names in wrong_names.items() if names]:
        raise RealignError(
            f"the weights in {folder} are not those of its config.json, {'; '.join(wrong)}: copy the model again, "
            "or correct its configuration"
        )


def _opened(what: str, read: Callable[..., T], name: str | Path, options: dict[str, Any]) -> T:
    try:
        with quiet():
            return read(str(name), trust_remote_code=False, **options)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises one of a dozen unrelated classes
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        if "trust_remote_code" in str(error):
            reason = "it needs Python code that comes with the model, which is never run"
        raise RealignError(
            f"cannot load the {what} in {name}: {reason[:200] or type(error).__name__}"
        ) from None
