"""Contrastive training from a backbone to a saved embedding model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model

from realign import hardware
from realign.config import LoRA
from realign.errors import RealignError, full_disk_as_sentence
from realign.models import loading, pretrained
from realign.texts import leakage, pairs
from realign.training import loop, model, sharding
from realign.training.data import Tokenized, evaluation_texts, load_sets, plan
from realign.training.run import Run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(
    run: Run,
    *,
    sets: Sequence[pairs.PairSet] | None = None,
    forbidden: Sequence[str] = (),
    sharded: bool = False,
) -> Path:
    """Train an embedding model, write it to ``run.out`` and return its folder.

    Writes ``out/model`` (a sentence-transformers directory with a model card), ``out/step-N`` (the same
    after each step N of ``recipe.save_steps``) and ``out/log.csv`` (one row a step,
    :data:`realign.training.loop.LOG_COLUMNS`); with LoRA and ``merge = false`` also ``out/adapter``, which loads as
    ``adapter:DIR`` on the backbone. Checkpoints lie in ``run.work``; the same call after an interruption goes
    on from the last complete one and, on a CPU, ends with the same bits.

    Args:
        run: backbone, recipe, seed and places.
        sets: training sets; those that ``recipe.data`` names if None.
        forbidden: further texts that must not be trained on, besides the evaluation side of all
            offline sets.
        sharded: shard the weights among the processes (FSDP); what is written is whole all the same.

    Raises:
        RealignError: training and evaluation texts overlap, the loss is not finite, the vectors collapse (names
            the step and the set), or the disk is full.
    """
    with full_disk_as_sentence(run.out):
        return _train(run, sets, forbidden, sharded)


def _train(run: Run, sets: Sequence[pairs.PairSet] | None, forbidden: Sequence[str], sharded: bool) -> Path:
    recipe = run.recipe
    sets = list(sets) if sets is not None else load_sets(recipe, run.seeds.data)
    leakage.check((t for one in sets for t in one.texts()), [*evaluation_texts(recipe), *forbidden])
    batches = plan(sets, recipe.batch_size, recipe.epochs, run.seeds.data)
    late = [step for step in recipe.save_steps if not 0 < step < len(batches)]
    if late:
        raise RealignError(
            f"save_steps: {late[0]} is not a step before the last of this run's {len(batches)}"
        )
    compute = hardware.resolve(run.device, recipe.dtype)
    untrained, tokenizer = _untrained(run, "cpu" if sharded else str(compute.device))
    data = Tokenized(
        sets,
        tokenizer,
        max_query_tokens=recipe.max_query_tokens,
        max_passage_tokens=recipe.max_passage_tokens,
        instructions=recipe.instructions,
    )
    for name, prefix in data.prefixes().items():
        print(f"queries of {name} begin with {prefix!r}", file=sys.stderr)
    facts = {
        "seeds": run.seeds._asdict(),
        "sets": {one.name: len(one) for one in sets},
        "steps": len(batches),
        "prefixes": data.prefixes(),
        "device": str(compute.device),
        "dtype": str(compute.dtype),
    }
    saver = _Saver(run, untrained, facts, sharded)
    trainer = loop.Trainer(untrained, run, data, batches, compute, saver.keep, sharded=sharded)
    trainer.train(resume_from_checkpoint=loop.last_checkpoint(run.work))
    saver.finish(loop.logged(trainer.state.log_history))
    return run.out / "model"


def _untrained(run: Run, device: str) -> tuple[SentenceTransformer, PreTrainedTokenizerBase]:
    """Load the backbone as an embedding model, with a new adapter if the recipe has one."""
    recipe = run.recipe
    encoder, tokenizer = loading.load(
        run.backbone, attention=recipe.attention, device=device, local=run.local
    )
    encoder.config.use_cache = False
    if recipe.gradient_checkpointing:
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assembled = model.assemble(encoder, tokenizer, max(recipe.max_query_tokens, recipe.max_passage_tokens))
    if recipe.lora is not None:
        torch.manual_seed(run.seeds.initialisation)
        with pretrained.quiet():
            adapted = get_peft_model(encoder, _adapter(recipe.lora))
        model.transformer_of(assembled).model = cast("PreTrainedModel", adapted)
    return assembled, tokenizer


def _adapter(lora: LoRA) -> LoraConfig:
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"
    )


class _Saver:
    """Writes a run's models and log; sharded weights are gathered first, so every process must call it."""

    def __init__(self, run: Run, trained: SentenceTransformer, facts: dict[str, Any], sharded: bool) -> None:
        self.run = run
        self.trained = trained
        self.facts = facts
        self.sharded = sharded
        self.complete = sharding.outline(trained) if sharded else trained

    def keep(self, step: int, rows: list[loop.Row]) -> None:
        """Save the model of a step in the run's work folder (``out`` may be another after an interruption)."""
        if self._gather():
            self._save(self.run.work / f"step-{step}", rows)

    def finish(self, rows: list[loop.Row]) -> None:
        """Write everything that the run leaves in ``out``, the model last."""
        if not self._gather():
            return
        recipe, out = self.run.recipe, self.run.out
        out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=list(loop.LOG_COLUMNS)).to_csv(out / "log.csv", index=False)
        if recipe.lora is not None and not recipe.lora.merge:
            model.save_adapter(self.complete, out / "adapter", self.run.backbone)
        for step in recipe.save_steps:
            shutil.move(self.run.work / f"step-{step}", out / f"step-{step}")
        self._save(out / "model", rows)

    def _gather(self) -> bool:
        """Make ``complete`` hold the weights of now; True in the process that writes."""
        if self.sharded:
            sharding.gather(self.trained, self.complete)
        return sharding.is_first_process()

    def _save(self, folder: Path, rows: list[loop.Row]) -> None:
        now = {"step": len(rows), **{k: rows[-1][k] for k in ("loss", "accuracy")}}
        facts = {**self.facts, "now": now}
        with model.merged(self.complete):
            model.save(self.complete, folder, backbone=self.run.backbone, recipe=self.run.recipe, facts=facts)
