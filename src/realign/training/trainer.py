"""Contrastive training from a backbone to a saved embedding model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch

from realign.config import Backbone, Recipe
from realign.errors import RealignError
from realign.hardware import Compute
from realign.models import batching, loading
from realign.texts import overlap, pairs
from realign.training import model as models
from realign.training import sharding
from realign.training.data import Tokenized, evaluation_texts, load_sets, plan


@dataclass(frozen=True)
class Seeds:
    """The seeds of a run: what is drawn in which order, dropout masks, and new (adapter) weights."""

    data: int
    dropout: int
    initialisation: int

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Make the three from the one number that names a run."""
        return cls(seed, 10_000 + seed, 20_000 + seed)


def train(
    backbone: Backbone,
    recipe: Recipe,
    seed: int | Seeds,
    out: Path,
    *,
    local: Path | None,
    compute: Compute,
    work: Path,
    sets: Sequence[pairs.PairSet] | None = None,
    forbidden: Sequence[str] = (),
    sharded: bool = False,
) -> Path:
    """Train an embedding model and write it to ``out``.

    Writes ``out/model`` (a sentence-transformers directory with a model card), ``out/step-N`` (the same
    after each step N of ``recipe.save_steps``) and ``out/log.csv`` (one row a step,
    :data:`realign.training.loop.LOG_COLUMNS`); with LoRA and ``merge = false`` also ``out/adapter``, which loads as
    ``adapter:DIR`` on the backbone. Checkpoints lie in ``work``; the same call after an interruption goes
    on from the last complete one and, on a CPU, ends with the same bits.

    Args:
        backbone: what to start from.
        recipe: how to train. Under several processes (``accelerate launch``) ``batch_size`` is that of all
            of them together.
        seed: of the run; data order, dropout and initialisation have their own (:class:`Seeds`), made
            from it or given one by one, and recorded in the model card.
        out: where to write; made if it is not there.
        local: directory of the materialised root base (None finds or makes it).
        compute: device, and the dtype of activations (weights and optimiser are float32).
        work: folder for checkpoints, of this run alone.
        sets: training sets; those that ``recipe.data`` names if None.
        forbidden: further texts that must not be trained on, besides the evaluation side of all
            offline sets.
        sharded: share the weights out among the processes (FSDP); what is written is whole all the same.

    Raises:
        RealignError: training and evaluation texts overlap, the loss is not finite, or the vectors
            collapse; names the step and the set.
    """
    from realign.training import loop  # takes seconds: sentence-transformers

    seeds = seed if isinstance(seed, Seeds) else Seeds.of(seed)
    sets = list(sets) if sets is not None else load_sets(recipe, seeds.data)
    overlap.check((t for one in sets for t in one.texts()), [*evaluation_texts(recipe), *forbidden])
    batches = plan(sets, recipe.batch_size, recipe.epochs, seeds.data)
    late = [step for step in recipe.save_steps if not 0 < step < len(batches)]
    if late:
        raise RealignError(
            f"save_steps: {late[0]} is not a step before the last of this run's {len(batches)}"
        )
    encoder, tokenizer = loading.load(
        backbone,
        attention=recipe.attention,
        device="cpu" if sharded else compute.device,  # (no device need hold it whole)
        local=local,
    )
    encoder.config.use_cache = False
    if recipe.gradient_checkpointing:
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    longest = max(recipe.max_query_tokens, recipe.max_passage_tokens)
    model = models.assemble(encoder, tokenizer, longest)
    transformer = cast(Any, model[0])
    if recipe.lora is not None:
        torch.manual_seed(seeds.initialisation)
        transformer.model = _with_adapter(encoder, recipe)
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
        "seeds": asdict(seeds),
        "sets": {one.name: len(one) for one in sets},
        "steps": len(batches),
        "prefixes": data.prefixes(),
        "device": str(compute.device),
        "dtype": str(compute.dtype),
    }

    complete = sharding.outline(model) if sharded else model

    def gather() -> None:
        """Make ``complete`` hold the weights of now; every process takes part."""
        if sharded:
            sharding.gather(model, complete)

    def save(folder: Path, rows: list[dict[str, Any]]) -> None:
        now = {"step": len(rows), **{k: rows[-1][k] for k in ("loss", "accuracy")}}
        with models.merged(complete[0]):
            models.save(complete, folder, backbone=backbone, recipe=recipe, facts={**facts, "now": now})

    def keep(step: int, rows: list[dict[str, Any]]) -> None:
        gather()
        if trainer.is_world_process_zero():
            save(work / f"step-{step}", rows)  # (out may be another folder when an interrupted run goes on)

    trainer = loop.Trainer(
        model,
        recipe,
        data,
        batches,
        compute,
        work,
        seeds.dropout,
        batching.pad_token_id(tokenizer),
        keep,
        sharded=sharded,
    )
    trainer.train(resume_from_checkpoint=loop.last_checkpoint(work))
    gather()
    if not trainer.is_world_process_zero():
        return out / "model"
    out.mkdir(parents=True, exist_ok=True)
    rows = loop.logged(trainer.state.log_history)
    pd.DataFrame(rows, columns=list(loop.LOG_COLUMNS)).to_csv(out / "log.csv", index=False)
    if recipe.lora is not None and not recipe.lora.merge:
        models.save_adapter(complete[0].model, out / "adapter", backbone)
    for step in recipe.save_steps:
        shutil.move(work / f"step-{step}", out / f"step-{step}")
    save(out / "model", rows)
    return out / "model"


def _with_adapter(encoder: Any, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = recipe.lora
    assert lora is not None
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"
    )
    return get_peft_model(encoder, config)
