"""Texts become batches of tokens: the same for training and evaluation.

A query with a task instruction is ``query_prefix(instruction) + text``; a document stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from realign.errors import RealignError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_TOKENS = 512


class Tokens(NamedTuple):
    """Tokenised texts: ``ids`` one list per text, ``skip`` leading tokens that are not pooled."""

    ids: list[list[int]]
    skip: int
    truncated: int


def query_prefix(instruction: str) -> str:
    """Return what is put directly before a query's text.

    It ends without a space on purpose: a tokeniser merges a trailing space with the first word of
    the text, and counting the prefix's tokens would then take one token of the text with it.
    """
    return f"Instruct: {instruction}\nQuery:"


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    instruction: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
) -> Tokens:
    """Tokenise texts, each behind the query prefix if an instruction is given.

    Args:
        tokenizer: adds its own special tokens, as in pretraining; never a chat template.
        texts: none may be empty or only white space.
        instruction: task instruction of queries; None or "" for documents.
        max_tokens: longest sequence, prefix included; what is beyond is cut off and counted.

    Returns:
        Token ids, the number of leading tokens that belong to the prefix (special tokens before it
        included), and how many texts were cut.

    Raises:
        RealignError: a text is empty, no string or not valid Unicode (its index is named), or the prefix
            leaves no room for text.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise RealignError(f"text {index} of {len(texts)} is a {type(text).__name__}, not a string")
        if not text.strip():
            raise RealignError(f"text {index} of {len(texts)} is empty: there is nothing to embed; remove it")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise RealignError(
                f"text {index} of {len(texts)} holds half a character (a lone surrogate): correct it"
            )
    if not texts:
        return Tokens([], 0, 0)
    prefix, skip = "", 0
    if instruction:
        prefix = query_prefix(instruction)
        prefix_ids = tokenizer(prefix, verbose=False)["input_ids"]
        ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
        skip = len(prefix_ids) - (1 if prefix_ids and prefix_ids[-1] in ends else 0)
        if skip + 2 > max_tokens:
            raise RealignError(
                f"the instruction '{instruction[:60]}' takes {skip} of {max_tokens} tokens and leaves no room "
                "for text: raise the maximum length or shorten the instruction"
            )
    full = [prefix + text for text in texts]
    ids: list[list[int]] = tokenizer(full, verbose=False)["input_ids"]
    long = [i for i, row in enumerate(ids) if len(row) > max_tokens]
    if long:  # a second call only for these, so that closing special tokens are kept
        side = tokenizer.truncation_side
        tokenizer.truncation_side = "right"
        try:
            cut = tokenizer([full[i] for i in long], truncation=True, max_length=max_tokens)["input_ids"]
        finally:
            tokenizer.truncation_side = side
        for i, row in zip(long, cut, strict=True):
            ids[i] = row
    return Tokens(ids, skip, len(long))


def pad(
    ids: Sequence[Sequence[int]], skip: Sequence[int], pad_id: int, side: str = "right"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack token lists into ``(input_ids, attention_mask, pooling_mask)``, each (B, T) int64.

    The pooling mask leaves out padding and the first ``skip[i]`` tokens of text i. A text that the
    tokeniser merged into its prefix altogether keeps its last token.
    """
    import torch

    width = max(map(len, ids))
    input_ids = torch.full((len(ids), width), pad_id, dtype=torch.long)
    attention = torch.zeros((len(ids), width), dtype=torch.long)
    pooling = torch.zeros((len(ids), width), dtype=torch.long)
    for i, (row, first) in enumerate(zip(ids, skip, strict=True)):
        start = width - len(row) if side == "left" else 0
        stop = start + len(row)
        input_ids[i, start:stop] = torch.tensor(row, dtype=torch.long)
        attention[i, start:stop] = 1
        pooling[i, min(start + first, stop - 1) : stop] = 1
    return input_ids, attention, pooling


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id used to fill up batches: the tokeniser's own, else its end of text, else 0 (always masked)."""
    for value in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if value is not None:
            return int(value)
    return 0


def budget_batches(
    lengths: Sequence[int], token_budget: int, *, fall: float | None = None, busy: int = 512
) -> Iterator[list[int]]:
    """Indices grouped by length, longest first, each batch at most ``token_budget`` positions.

    Args:
        lengths: tokens of each text; one longer than the budget stands alone.
        token_budget: positions in a batch, padding included.
        fall: end a batch of at least ``busy`` positions where lengths have fallen by this share; this
            bounds padding at the price of more batches.
        busy: positions that are enough to keep a CPU busy.
    """
    batch: list[int] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = width * (len(batch) + 1) > token_budget
        loose = fall is not None and lengths[index] < (1 - fall) * width and width * len(batch) >= busy
        if batch and (full or loose):
            yield batch
            batch = []
        if not batch:
            width = max(lengths[index], 1)
        batch.append(index)
    if batch:
        yield batch
