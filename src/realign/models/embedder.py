"""Batches of tokens become vectors: one pooling for training and evaluation.

A vector is the mean of the last hidden states over the text's own tokens (those of the instruction are
read but not pooled), normalised to length 1. The same rules hold for a saved model opened with plain
sentence-transformers: ``SentenceTransformer(path).encode(texts, prompt=query_prefix(instruction))``
gives the same vectors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from realign.errors import RealignError, UsageError
from realign.models import pretrained
from realign.models.batching import DEFAULT_MAX_TOKENS, budget_batches, pad, pad_token_id, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_TOKEN_BUDGET = 8192


@dataclass
class Stats:
    """What an :class:`Embedder` has read since it was made."""

    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    empty: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the counts with the share of padding among the positions that were computed."""
        waste = 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0
        return {**asdict(self), "padding_share": waste}


def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the states where the mask is 1, normalised.

    Args:
        states: (B, T, d) hidden states of any float type; summed in at least float32.
        mask: (B, T), 1 where a token counts. A row without any gives a zero vector.

    Returns:
        (B, d) float32 (float64 for float64 states), rows of Euclidean length 1.
    """
    dtype = torch.promote_types(states.dtype, torch.float32)
    weights = mask.to(dtype=dtype, device=states.device).unsqueeze(-1)
    summed = (states.to(dtype) * weights).sum(dim=1)
    return torch.nn.functional.normalize(summed / weights.sum(dim=1).clamp(min=1.0), dim=-1)


def mixed(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Cast the weights of linear layers to ``dtype`` and everything else to float32, in place.

    Under ``torch.autocast`` only products are then computed in ``dtype``. The residual stream, where
    bfloat16 would round away most of what a layer adds to a large entry, stays float32. Cast once
    here, the weights need not be cast again in every pass.
    """
    for module in model.modules():
        kept = dtype if isinstance(module, torch.nn.Linear) else torch.float32
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(kept)
    return model


class Embedder:
    """A headless language model with its tokeniser, as an encoder of texts.

    Args:
        model: transformers model that returns ``last_hidden_state``, in float32; its attention mode is
            the one it was loaded with (see :mod:`realign.models.loading`). Moved to ``device`` and, in place,
            to :func:`mixed` precision.
        tokenizer: its tokeniser.
        max_tokens: longest sequence, instruction included; longer texts are cut and counted.
        token_budget: positions (padding included) computed in one forward pass.
        device: torch device.
        dtype: of the factors of products (linear layers, attention), as in training. The residual
            stream, norms, embeddings, pooling and results are float32 in every case.
        padding_side: which side is filled; no result depends on it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        padding_side: str = "right",
    ) -> None:
        if max_tokens < 1 or token_budget < 1:
            raise UsageError("max_tokens and token_budget must be at least 1")
        limit = getattr(model.config, "max_position_embeddings", None)
        self.model: Any = mixed(model.eval(), dtype).to(device=torch.device(device))  # type: ignore[call-arg]
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, limit) if limit else max_tokens
        self.token_budget = token_budget
        self.device = torch.device(device)
        self.dtype = dtype
        self.padding_side = padding_side
        self.stats = Stats()

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        """Embed texts.

        Args:
            texts: n non-empty texts; their order does not matter to any result.
            instruction: task instruction of queries, None for documents.

        Returns:
            (n, d) float32, rows of length 1.

        Raises:
            RealignError: an empty text (its index is named), or a vector that is not finite.
        """
        began = time.perf_counter()
        tokens = tokenize(self.tokenizer, texts, instruction, self.max_tokens)
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        lengths = [len(row) for row in tokens.ids]
        fill = pad_token_id(self.tokenizer)
        for batch in budget_batches(lengths, self.token_budget, fall=0.08):
            ids, attention, pooling = pad(
                [tokens.ids[i] for i in batch], [tokens.skip] * len(batch), fill, self.padding_side
            )
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                states = self.model(
                    input_ids=ids.to(self.device), attention_mask=attention.to(self.device), **self._options
                ).last_hidden_state
            result[batch] = mean_pool(states, pooling).cpu().numpy()
            self.stats.padded_tokens += ids.numel()
        bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
        if bad.size:
            raise RealignError(
                f"the model gives {bad.size} of {len(texts)} vectors with NaN or infinity (first: text {bad[0]}, "
                f"{self.dtype}): try float32 or check the weights"
            )
        self.stats.texts += len(texts)
        self.stats.tokens += sum(lengths)
        self.stats.truncated += tokens.truncated
        self.stats.seconds += time.perf_counter() - began
        return result

    @property
    def _options(self) -> dict[str, Any]:
        # a key-value cache is never read here; models without one (encoders) do not know the word
        return {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}

    @classmethod
    def from_directory(
        cls,
        path: str | Path,
        *,
        max_tokens: int | None = None,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Embedder:
        """Open a trained sentence-transformers directory (mean pooling without the prompt, normalised).

        Raises:
            RealignError: the directory is missing, damaged, or pools in another way (open such a
                model with ``realign.evaluation.encoder.load_outside``).
        """
        layout = read_layout(Path(path))
        folder = Path(path) / layout.transformer
        return cls(
            pretrained.encoder(folder, dtype=torch.float32),
            pretrained.tokenizer(folder),
            max_tokens=max_tokens or layout.max_tokens,
            token_budget=token_budget,
            device=device,
            dtype=dtype,
        )


class Layout(NamedTuple):
    """Where a sentence-transformers directory keeps its model, and its longest sequence."""

    transformer: str
    max_tokens: int


def read_layout(folder: Path) -> Layout:
    """Read a sentence-transformers directory and check that it pools as :class:`Embedder` does.

    Raises:
        RealignError: no such directory, a damaged one, or another kind of pooling.
    """
    if not (folder / "modules.json").is_file():
        raise RealignError(f"{folder} is not a sentence-transformers directory (it has no modules.json)")
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [m["type"].rsplit(".", 1)[-1] for m in modules]
        paths = [m["path"] for m in modules]
    except (ValueError, KeyError, TypeError) as error:
        raise RealignError(f"{folder}/modules.json is damaged: {error}") from None
    if kinds != ["Transformer", "Pooling", "Normalize"]:
        raise RealignError(
            f"{folder} is made of {' + '.join(kinds)}, not Transformer + Pooling + Normalize: "
            "open it with realign.evaluation.encoder.load_outside"
        )
    pooling = _settings(folder / paths[1] / "config.json")
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    mode = pooling.get("pooling_mode") or ",".join(m.removeprefix("pooling_mode_") for m in modes)
    if mode not in ("mean", "mean_tokens") or pooling.get("include_prompt", True):
        raise RealignError(
            f"{folder} pools by '{mode}' with include_prompt={pooling.get('include_prompt', True)}, not by the mean "
            "without the prompt: open it with realign.evaluation.encoder.load_outside"
        )
    return Layout(paths[0], _max_tokens(folder / paths[0]))


def _max_tokens(transformer: Path) -> int:
    """Return the longest sequence as sentence-transformers reads it: its own setting, or the tokenizer's and model's."""
    own = _settings(transformer / "sentence_bert_config.json").get("max_seq_length")
    others = (
        _settings(transformer / "tokenizer_config.json").get("model_max_length"),
        _settings(transformer / "config.json").get("max_position_embeddings"),
    )
    known = [int(n) for n in ((own,) if own else others) if isinstance(n, int | float) and n > 0]
    return min(known, default=DEFAULT_MAX_TOKENS)


def _settings(file: Path) -> dict[str, Any]:
    """Read a file of settings; a missing one has none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise RealignError(f"{file} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise RealignError(f"{file} is damaged: it holds no settings")
    return content
