"""An :class:`~realign.models.embedder.Embedder`, or any outside model, as an encoder for mteb.

The instruction of a task goes before every query and before the texts of symmetric tasks
(classification, clustering, pairs, bitext); documents get none. Embeddings are kept by text and
instruction, so tasks that share texts read them once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from realign.errors import RealignError, UsageError
from realign.models import pretrained
from realign.models.batching import query_prefix
from realign.models.embedder import Embedder, Stats

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.models_protocols import EncoderProtocol, MTEBModels
    from mteb.types import Array, BatchedInput
    from sentence_transformers import SentenceTransformer
    from torch.utils.data import DataLoader


class TextEncoder(Protocol):
    """What scores can be measured of: texts in, (n, d) float32 out, with counts of what was read."""

    stats: Stats

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        """Embed texts; an instruction is for queries."""
        ...


class SentenceEncoder:
    """A sentence-transformers model with other pooling or modules than ours.

    Args:
        model: the loaded model; its own pooling and normalisation are used.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.stats = Stats()

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        """Embed texts in the model's own way; (n, d) float32, rows of length 1."""
        began = time.perf_counter()
        prompt = query_prefix(instruction) if instruction else None
        vectors = self.model.encode(
            list(texts),
            prompt=prompt,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        limit = self.model.max_seq_length
        full = [(prompt or "") + text for text in texts]
        lengths = [len(ids) for ids in self.model.tokenizer(full, verbose=False)["input_ids"]]
        self.stats.texts += len(texts)
        self.stats.tokens += sum(min(length, limit or length) for length in lengths)
        self.stats.truncated += sum(length > limit for length in lengths) if limit else 0
        self.stats.seconds += time.perf_counter() - began
        return np.asarray(vectors, dtype=np.float32)


class TaskEncoder(AbsEncoder):
    """A text encoder as an mteb model.

    Args:
        backend: an Embedder, a :class:`SentenceEncoder` or anything with their two members.
        instruction_of: gives a task's instruction (None for no instruction); called with name and type.
        name: of the model, for mteb.
        revision: content digest of the model, so that no two local models share anything in mteb.
    """

    mteb_model_meta: ModelMeta

    def __init__(
        self,
        backend: TextEncoder,
        instruction_of: Callable[[str, str], str | None] = lambda name, kind: None,
        *,
        name: str = "realign/model",
        revision: str = "unnamed",
    ) -> None:
        self.model = backend
        self.instruction_of = instruction_of
        self.known: dict[tuple[str, str | None], np.ndarray] = {}
        self.used: dict[str, set[str | None]] = {}
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE}
        )

    @property
    def stats(self) -> Stats:
        """What has been read so far."""
        return self.model.stats

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embed what mteb's data loader gives: (n, d) float32; an empty text is a zero vector and counted.

        Raises:
            RealignError: all texts are empty, or vectors hold a value that is not finite.
        """
        instruction = None
        if prompt_type is not PromptType.document:
            instruction = self.instruction_of(task_metadata.name, task_metadata.type)
        self.used.setdefault("document" if prompt_type is PromptType.document else "query", set()).add(
            instruction
        )
        texts = [text for batch in inputs for text in batch["text"]]
        self.model.stats.empty += sum(not text.strip() for text in texts)
        known = self.known
        new = list(dict.fromkeys(t for t in texts if t.strip() and (t, instruction) not in known))
        if new:
            vectors = self.model.encode(new, instruction)
            _check_finite(vectors, task_metadata)
            known.update(zip(((t, instruction) for t in new), vectors, strict=True))
        width = next((len(v) for v in known.values()), 0)
        if not width:
            raise RealignError(f"task {task_metadata.name}: all {len(texts)} texts are empty")
        zero = np.zeros(width, dtype=np.float32)
        return np.stack([known[t, instruction] if t.strip() else zero for t in texts])


class CheckedEncoder:
    """An mteb encoder of somebody else: its vectors are checked, everything else is its own."""

    def __init__(self, encoder: EncoderProtocol) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, inputs: Any, *, task_metadata: TaskMetadata, **options: Any) -> Array:
        """Embed as the encoder does.

        Raises:
            RealignError: vectors hold a value that is not finite.
        """
        vectors = self._encoder.encode(inputs, task_metadata=task_metadata, **options)
        _check_finite(vectors, task_metadata)
        return vectors


def _check_finite(vectors: Array, task: TaskMetadata) -> None:
    """Refuse NaN and infinite values: mteb would rank by them and give a score."""
    bad = int((~torch.as_tensor(vectors).isfinite().all(dim=-1)).sum())
    if bad:
        raise RealignError(f"{bad} of {len(vectors)} vectors of task {task.name} hold NaN or infinite values")


def load_outside(
    reference: object, *, trust_remote_code: bool = False, device: str = "cpu"
) -> TextEncoder | MTEBModels:
    """Open a model that is not an artifact of ours.

    Args:
        reference: a directory, a hub name, a loaded SentenceTransformer, or any object with mteb's
            encoder protocol (its own prompts are used, and what it reads is not counted).
        trust_remote_code: run Python code that comes with a hub model. It can do anything on this
            machine that you can: say yes only for authors you trust.
        device: torch device.

    Raises:
        UsageError: not a model that can be evaluated.
        RealignError: it cannot be loaded (no network, missing files).
    """
    if not isinstance(reference, str | Path):
        if type(reference).__module__.startswith("sentence_transformers"):
            return SentenceEncoder(cast("SentenceTransformer", reference))
        if isinstance(reference, Embedder | SentenceEncoder):
            return reference
        if callable(getattr(reference, "encode", None)) and hasattr(reference, "mteb_model_meta"):
            return cast("MTEBModels", CheckedEncoder(cast("EncoderProtocol", reference)))
        raise UsageError(
            f"cannot evaluate a {type(reference).__name__}: give a directory, a hub name or an mteb encoder"
        )
    if isinstance(reference, Path) and not reference.is_dir():
        raise RealignError(f"no model directory {reference}")
    from sentence_transformers import SentenceTransformer

    try:
        with pretrained.quiet():
            model = SentenceTransformer(str(reference), trust_remote_code=trust_remote_code, device=device)
    except Exception as error:
        raise RealignError(
            f"cannot load the embedding model '{reference}' ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "give an existing directory, or a hub name where the hub can be reached"
        ) from error
    return SentenceEncoder(model)
