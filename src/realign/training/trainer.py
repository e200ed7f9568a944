"""Contrastive training on sentence-transformers' trainer, with our own loss, batches and checkpoints."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from realign import backbones, embedding, progress
from realign.config import Backbone, Recipe
from realign.errors import RealignError
from realign.hardware import Compute
from realign.texts import corpus, overlap, pairs, problems
from realign.training import model as models
from realign.training.data import Plan, Tokenized, plan, share
from realign.training.infonce import Batch, LossSettings, backward

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

COLLAPSED = 0.999
LOG_COLUMNS = (
    "step", "set", "loss", "learning_rate", "grad_norm", "accuracy", "alignment", "uniformity", "min_cosine",
    "tokens", "tokens_per_second", "padding_share", "chunks", "memory_gib",
)  # fmt: skip


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
) -> Path:
    """Train an embedding model and write it to ``out``.

    Writes ``out/model`` (a sentence-transformers directory with a model card), ``out/step-N`` (the same
    after each step N of ``recipe.save_steps``) and ``out/log.csv`` (one row a step,
    :data:`LOG_COLUMNS`); with LoRA and ``merge = false`` also ``out/adapter``, which loads as
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

    Raises:
        RealignError: training and evaluation texts overlap, the loss is not finite, or the vectors
            collapse; names the step and the set.
    """
    seeds = seed if isinstance(seed, Seeds) else Seeds.of(seed)
    sets = list(sets) if sets is not None else load_sets(recipe, seeds.data)
    overlap.check((t for one in sets for t in one.texts()), [*evaluation_texts(recipe), *forbidden])
    batches = plan(sets, recipe.batch_size, recipe.epochs, seeds.data)
    late = [step for step in recipe.save_steps if not 0 < step < len(batches)]
    if late:
        raise RealignError(
            f"save_steps: {late[0]} is not a step before the last of this run's {len(batches)}"
        )
    encoder, tokenizer = backbones.load(
        backbone, attention=recipe.attention, device=compute.device, local=local
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

    def save(folder: Path, rows: list[dict[str, Any]]) -> None:
        now = {"step": len(rows), **{k: rows[-1][k] for k in ("loss", "accuracy")}}
        with models.merged(transformer):
            models.save(model, folder, backbone=backbone, recipe=recipe, facts={**facts, "now": now})

    trainer = _trainer_class()(
        model,
        recipe,
        data,
        batches,
        compute,
        work,
        seeds.dropout,
        embedding.pad_token_id(tokenizer),
        # (out may be another folder when an interrupted run goes on)
        lambda step, rows: save(work / f"step-{step}", rows),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    if not trainer.is_world_process_zero():
        return out / "model"
    out.mkdir(parents=True, exist_ok=True)
    rows = logged(trainer.state.log_history)
    pd.DataFrame(rows, columns=list(LOG_COLUMNS)).to_csv(out / "log.csv", index=False)
    if recipe.lora is not None and not recipe.lora.merge:
        models.save_adapter(transformer.model, out / "adapter", backbone)
    for step in recipe.save_steps:
        shutil.move(work / f"step-{step}", out / f"step-{step}")
    save(out / "model", rows)
    return out / "model"


def load_sets(recipe: Recipe, seed: int) -> list[pairs.PairSet]:
    """Load the training sets of a recipe and draw its number of queries from them."""
    whole = [pairs.load(name, hard_negatives=recipe.hard_negatives) for name in recipe.data]
    sizes = [len(one) for one in whole]
    counts = share(sizes, recipe.queries, recipe.sampling, recipe.sampling_temperature)
    return [one.take(n, seed) for one, n in zip(whole, counts, strict=True)]


def evaluation_texts(recipe: Recipe) -> list[str]:
    """Return every text on the evaluation side of the offline sets that a recipe trains on.

    A set from a file may have been made of any of them, so it is held against all.
    """
    names = set(recipe.data)
    if any(name.startswith(pairs.FILE) for name in names):
        names |= set(pairs.INSTRUCTIONS)
    found: list[str] = []
    if {"docs", "code"} & names:
        for f in corpus.functions("eval"):
            found += [f.summary, f.description, f.source[: pairs.SOURCE_CHARACTERS]]
    if "messages" in names:
        for m in corpus.catalogues("eval"):
            found += [m.text, *m.translations.values()]
    if "problems" in names:
        for p in problems("eval"):
            found += [p.text, p.answer]
    return [text for text in found if text]


def _with_adapter(encoder: Any, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = recipe.lora
    assert lora is not None
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"
    )
    return get_peft_model(encoder, config)


def logged(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of a trainer's history that are optimiser steps."""
    return [row for row in history if "accuracy" in row]


def last_checkpoint(work: Path) -> str | None:
    """Return the newest complete checkpoint; one that a kill left half-written is removed.

    The trainer writes its state last, so a checkpoint with a readable state is complete.
    """
    found = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for folder in found:
        try:
            json.loads((folder / "trainer_state.json").read_text())
            return str(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None


class _Batches(Dataset):
    """The plan as a data set: item i is optimiser step i, tokenised when it is asked for."""

    def __init__(self, data: Tokenized, batches: Plan) -> None:
        self.data = data
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Batch:
        return self.data.batch(*self.batches.batches[step])


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # not on Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _trainer_class() -> Any:
    """Make the trainer's class; sentence-transformers takes seconds to import, so only when needed."""
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    class Trainer(SentenceTransformerTrainer):
        """Steps, logs and checkpoints as the recipe has them; the loop is transformers' own."""

        def __init__(
            self,
            model: SentenceTransformer,
            recipe: Recipe,
            data: Tokenized,
            batches: Plan,
            compute: Compute,
            work: Path,
            seed: int,
            pad_id: int,
            keep: Callable[[int, list[dict[str, Any]]], None],
        ) -> None:
            steps = len(batches)
            args = SentenceTransformerTrainingArguments(
                output_dir=str(work),
                max_steps=steps,
                per_device_train_batch_size=1,  # one item of the plan is one whole batch
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                optim="adamw_torch_fused",
                seed=seed,
                save_strategy="steps" if recipe.checkpoint_steps < steps else "no",
                save_steps=recipe.checkpoint_steps,
                save_total_limit=2,
                logging_steps=1,
                logging_nan_inf_filter=False,
                report_to="none",
                disable_tqdm=True,
                use_cpu=compute.device.type == "cpu",
                bf16=False,  # autocast is entered by our own step
                ddp_find_unused_parameters=False,
            )
            if args.parallel_mode.name == "NOT_DISTRIBUTED":
                args._n_gpu = min(1, args.n_gpu)  # never torch's DataParallel
            super().__init__(model=model, args=args)
            self.recipe = recipe
            self.items = _Batches(data, batches)
            self.compute = compute
            self.pad_id = pad_id
            self.loss_settings = LossSettings(
                recipe.temperature,
                recipe.symmetric,
                recipe.mask_false_negatives,
                recipe.margin,
                recipe.matryoshka,
            )
            self.keep = keep
            self.extra: dict[str, Any] = {}
            self.bar = progress.bar(steps, "training", "step")

        def get_train_dataloader(self) -> DataLoader:
            # Not prepared by accelerate: every process sees the whole batch and encodes its share.
            return DataLoader(self.items, batch_size=1, shuffle=False, collate_fn=lambda items: items[0])

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            optimizer = optimizer if optimizer is not None else self.optimizer
            if self.lr_scheduler is None:
                warmup = math.ceil(self.recipe.warmup_ratio * num_training_steps)
                rate = partial(cosine_with_warmup, warmup=warmup, steps=num_training_steps)
                self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
                self._created_lr_scheduler = True
            return self.lr_scheduler

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Leave the model card to :func:`realign.training.model.card`."""

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
            return [next(epoch_iterator) for _ in range(num_batches)], None

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            began = time.perf_counter()
            model.train()
            half = self.compute.dtype == torch.bfloat16
            result = backward(
                models.TokenStates(model),
                inputs,
                self.loss_settings,
                chunk_tokens=self.recipe.chunk_tokens,
                pad_id=self.pad_id,
                device=self.args.device,
                autocast=partial(torch.autocast, self.args.device.type, torch.bfloat16)
                if half
                else nullcontext,
                distributed=self.args.world_size > 1,
            )
            step = self.state.global_step + 1
            where = self.place(step)
            if not math.isfinite(result.loss):
                raise RealignError(
                    f"the loss is {result.loss} at {where}: lower the learning rate or use float32"
                )
            if result.statistics["min_cosine"] > COLLAPSED and step > 1:
                raise RealignError(
                    f"the embeddings have collapsed at {where}: all cosines in the batch are above {COLLAPSED}; "
                    "lower the learning rate or raise the temperature"
                )
            seconds = time.perf_counter() - began
            self.extra = {
                **result.statistics,
                "set": inputs.name,
                "tokens": inputs.tokens,  # of all processes
                "tokens_per_second": inputs.tokens / seconds,
                "padding_share": 1 - result.tokens * result.passes / result.padded_tokens,
                "chunks": result.chunks,
                "memory_gib": _peak_memory(self.args.device),
            }
            return torch.tensor(result.loss, device=self.args.device)

        def place(self, step: int) -> str:
            """Name a step and its batch."""
            index, rows = self.items.batches.batches[step - 1]
            batch = f"set {self.items.data.sets[index].name}, rows {', '.join(map(str, rows[:4]))}"
            more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
            return f"step {step} of {self.state.max_steps} ({batch}{more})"

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                if not math.isfinite(logs.get("grad_norm", 0.0)):
                    raise RealignError(
                        f"the gradient norm is {logs['grad_norm']} at {self.place(self.state.global_step)}: "
                        "lower the learning rate or use float32"
                    )
                logs = {**logs, **self.extra}
                self.bar.update(self.state.global_step - self.bar.n)
                self.bar.set_postfix(loss=f"{logs['loss']:.3f}", accuracy=f"{self.extra['accuracy']:.2f}")
            self.state.log_history.append({**logs, "step": self.state.global_step})
            if (
                "loss" in logs
                and self.state.global_step in self.recipe.save_steps
                and self.is_world_process_zero()
            ):
                self.keep(self.state.global_step, logged(self.state.log_history))

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(_trained(self.model), folder / "trained.safetensors")

        def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
            saved = load_file(Path(checkpoint_path) / "trained.safetensors")
            parameters = _trained(self.model)
            if saved.keys() != parameters.keys():
                raise RealignError(
                    f"{checkpoint_path} is of another model or recipe: remove it to start anew"
                )
            with torch.no_grad():
                for name, value in saved.items():
                    parameters[name].copy_(value)

    return Trainer


def cosine_with_warmup(step: int, *, warmup: int, steps: int) -> float:
    """Share of the learning rate at a step (from 0): up linearly, then half a cosine towards 0.

    Unlike transformers' schedule it starts above 0, so that no step of a short run is for nothing.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
