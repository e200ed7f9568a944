"""Contrastive training on sentence-transformers' trainer, with our own loss, batches and checkpoints."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
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


def train(
    backbone: Backbone,
    recipe: Recipe,
    seed: int,
    out: Path,
    *,
    local: Path | None,
    compute: Compute,
    work: Path,
    sets: Sequence[pairs.PairSet] | None = None,
    forbidden: Sequence[str] = (),
) -> Path:
    """Train an embedding model and write it to ``out``.

    Writes ``out/model`` (a sentence-transformers directory with a model card) and ``out/log.csv`` (one
    row a step, :data:`LOG_COLUMNS`). Checkpoints lie in ``work``; the same call after an interruption
    goes on from the last complete one and, on a CPU, ends with the same bits.

    Args:
        backbone: what to start from.
        recipe: how to train. Under several processes (``accelerate launch``) ``batch_size`` is that of all
            of them together.
        seed: of the run; data order, dropout and adapter initialisation have their own, made from it
            and recorded in the model card.
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
    seeds = {"data": seed, "dropout": 10_000 + seed, "adapter": 20_000 + seed}
    sets = list(sets) if sets is not None else load_sets(recipe, seeds["data"])
    overlap.check((t for one in sets for t in one.texts()), [*evaluation_texts(recipe), *forbidden])
    batches = plan(sets, recipe.batch_size, recipe.epochs, seeds["data"])
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
        torch.manual_seed(seeds["adapter"])
        transformer.model = _with_adapter(encoder, recipe)
    data = Tokenized(
        sets,
        tokenizer,
        max_query_tokens=recipe.max_query_tokens,
        max_passage_tokens=recipe.max_passage_tokens,
        instructions=recipe.instructions,
    )
    trainer = _trainer_class()(
        model, recipe, data, batches, compute, work, seeds["dropout"], embedding.pad_token_id(tokenizer)
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for row in trainer.state.log_history if "accuracy" in row]
    pd.DataFrame(rows, columns=list(LOG_COLUMNS)).to_csv(out / "log.csv", index=False)
    if recipe.lora is not None:
        transformer.model = transformer.model.merge_and_unload()
    transformer.model.config.use_cache = True
    facts = {
        "seeds": seeds,
        "sets": {one.name: len(one) for one in sets},
        "steps": len(batches),
        "prefixes": data.prefixes(),
        "device": str(compute.device),
        "dtype": str(compute.dtype),
        "final": {k: rows[-1][k] for k in ("loss", "accuracy")},
    }
    if trainer.is_world_process_zero():
        models.save(model.eval(), out / "model", backbone=backbone, recipe=recipe, facts=facts)
    return out / "model"


def load_sets(recipe: Recipe, seed: int) -> list[pairs.PairSet]:
    """Load the training sets of a recipe and draw its number of queries from them."""
    whole = [pairs.load(name, hard_negatives=recipe.hard_negatives) for name in recipe.data]
    counts = share([len(one) for one in whole], recipe.queries, recipe.sampling)
    return [one.take(n, seed) for one, n in zip(whole, counts, strict=True)]


def evaluation_texts(recipe: Recipe) -> list[str]:
    """Return every text on the evaluation side of the offline sets that a recipe trains on."""
    found: list[str] = []
    if {"docs", "code"} & set(recipe.data):
        for f in corpus.functions("eval"):
            found += [f.summary, f.description, f.source[: pairs.SOURCE_CHARACTERS]]
    if "messages" in recipe.data:
        for m in corpus.catalogues("eval"):
            found += [m.text, *m.translations.values()]
    if "problems" in recipe.data:
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
                recipe.temperature, recipe.symmetric, recipe.mask_false_negatives
            )
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
            where = f"step {step} of {self.state.max_steps} (set {inputs.name}, seed {self.args.seed})"
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
                "tokens": result.tokens,
                "tokens_per_second": result.tokens / seconds,
                "padding_share": 1 - result.tokens * result.passes / result.padded_tokens,
                "chunks": result.chunks,
                "memory_gib": _peak_memory(self.args.device),
            }
            return torch.tensor(result.loss, device=self.args.device)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                if not math.isfinite(logs.get("grad_norm", 0.0)):
                    raise RealignError(
                        f"the gradient norm is {logs['grad_norm']} at step {self.state.global_step}: "
                        "lower the learning rate or use float32"
                    )
                logs = {**logs, **self.extra}
                self.bar.update(self.state.global_step - self.bar.n)
                self.bar.set_postfix(loss=f"{logs['loss']:.3f}", accuracy=f"{self.extra['accuracy']:.2f}")
            self.state.log_history.append({**logs, "step": self.state.global_step})

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
