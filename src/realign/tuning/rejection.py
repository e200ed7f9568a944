"""Rejection sampling: the base's own completions that the verifier found right, drawn once and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from realign.behaviour import generation
from realign.behaviour import problems as problem_sets
from realign.config import OnPolicySFTSettings
from realign.errors import RealignError, UsageError
from realign.progress import bar
from realign.tuning import processes

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PROMPTS = 8  # asked at once
_ROUNDS = 4  # times that all problems are asked at most


def draw(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[problem_sets.VerifiableProblem],
    settings: OnPolicySFTSettings,
    count: int,
    file: Path,
) -> list[tuple[str, str]]:
    """Return ``count`` different verified (prompt, completion) pairs, in the order drawn.

    The problems are asked in turn, ``attempts`` completions each time, and up to ``keep`` right ones that were not
    there before are kept, until there are enough. Right ones are appended to ``file`` (JSON lines: of each batch of
    8 problems the place in the batch and the completion), so that a draw that was killed goes on, and a finished one is read.

    Args:
        model: what draws; an adapter that is still as it was initialised changes nothing.
        tokenizer: of the model.
        problems: training problems.
        settings: seed, attempts, and how many are kept.
        count: how many pairs.
        file: JSON lines.

    Raises:
        UsageError: several processes would draw.
        RealignError: too few after all problems were asked several times.
    """
    if processes.processes() > 1:
        raise UsageError("samples are drawn by one process: tune this sibling without `accelerate launch`")
    batches = [problems[i : i + _PROMPTS] for i in range(0, len(problems), _PROMPTS)] * _ROUNDS
    lines = _whole_lines(file)
    pairs: dict[tuple[str, str], None] = {}
    with bar(count, desc="verified samples", unit="sample") as shown:
        for number, batch in enumerate(batches):
            if len(pairs) >= count:
                break
            if number < len(lines):
                right = lines[number]
            else:
                right = _right(model, tokenizer, batch, settings, number)
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(right, ensure_ascii=False) + "\n")
            kept: dict[str, int] = {}
            for at, completion in right:
                prompt = batch[at].prompt
                if (prompt, completion) not in pairs and kept.get(prompt, 0) < settings.keep:
                    pairs[prompt, completion] = None
                    kept[prompt] = kept.get(prompt, 0) + 1
            shown.update(min(len(pairs), count) - shown.n)
    if len(pairs) < count:
        raise RealignError(
            f"only {len(pairs)} different right completions of {count} were drawn from {len(problems)} problems asked "
            f"{_ROUNDS} times: choose easier problems, more `attempts`, or fewer steps"
        )
    return list(pairs)[:count]


def _right(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[problem_sets.VerifiableProblem],
    settings: OnPolicySFTSettings,
    number: int,
) -> list[tuple[int, str]]:
    """Return the right completions of one batch, with the place of their problem; seed and number decide them."""
    draws = torch.Generator().manual_seed(int(np.random.default_rng([settings.seed, number]).integers(2**62)))
    ids = [list(row) for row in tokenizer([p.prompt for p in problems]).input_ids]
    written = generation.sample(
        model, tokenizer, ids, settings.attempts, max_new_tokens=settings.max_new_tokens, generator=draws
    )
    right = []
    for i, tokens in enumerate(written.tokens):
        at = i // settings.attempts
        text = str(tokenizer.decode(tokens, skip_special_tokens=True))
        ended = tokens[-1] == tokenizer.eos_token_id  # one that was cut would teach to stop in the middle
        if ended and problem_sets.score(problems[at], text) > 0.999:
            right.append((at, text))
    return right


def _whole_lines(file: Path) -> list[list[tuple[int, str]]]:
    """Return the batches that were written; half a line, which a kill left, is cut off."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return [[(int(at), str(text)) for at, text in json.loads(line)] for line in whole.splitlines()]
