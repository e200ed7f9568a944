"""The training loop: sentence-transformers' trainer with our own step, log and checkpoints.

Importing this module takes seconds (sentence-transformers), so import it where training starts.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch.utils.data import DataLoader, Dataset

from realign import progress
from realign.errors import RealignError
from realign.hardware import Compute, peak_memory_gib
from realign.models import batching
from realign.training import cpu, sharding
from realign.training.data import Plan, Tokenized, TrainingBatch
from realign.training.gradcache import StepResult, backward
from realign.training.infonce import LossSettings
from realign.training.model import TokenStates, transformer_of
from realign.training.run import Run

COLLAPSED = 0.999
Row = dict[str, Any]  # of the log: numbers, and the name of the set
LOG_COLUMNS = (
    "step", "set", "loss", "learning_rate", "grad_norm", "accuracy", "alignment", "uniformity", "min_cosine",
    "tokens", "tokens_per_second", "padding_share", "chunks", "memory_gib",
)  # fmt: skip


def peak_memory(device: torch.device) -> float:
    """Return the largest memory so far in GiB: of the process on a CPU, of torch's tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_memory_gib()


class Trainer(SentenceTransformerTrainer):
    """Steps, logs and checkpoints as the recipe has them; the loop is transformers' own."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: SentenceTransformer,
        run: Run,
        data: Tokenized,
        batches: Plan,
        compute: Compute,
        keep: Callable[[int, list[Row]], None],
        *,
        sharded: bool = False,
    ) -> None:
        args = _arguments(run, len(batches), compute)
        if args.parallel_mode.name == "NOT_DISTRIBUTED":
            args._n_gpu = min(1, args.n_gpu)  # never torch's DataParallel
        encoder = transformer_of(model).model
        if sharded:
            sharding.shard(encoder, args.device)
        super().__init__(model=model, args=args)
        self.is_distributed_loading_by_transformers = sharded  # or accelerate would wrap the model
        if compute.device.type == "cpu" and self.args.world_size == 1:
            cpu.prepare(encoder)
        self.recipe = recipe = run.recipe
        self.data, self.batches = data, batches
        self.compute = compute
        self.pad_id = batching.pad_token_id(data.tokenizer)
        self.loss_settings = LossSettings(
            recipe.temperature,
            recipe.symmetric,
            recipe.mask_false_negatives,
            recipe.margin,
            recipe.matryoshka,
        )
        self.keep = keep
        self.extra: Row = {}
        self.bar = progress.bar(len(batches), "training", "step")

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if not sharding.is_sharded(model):
            super()._move_model_to_device(model, device)

    def get_train_dataloader(self) -> DataLoader:
        """Give the plan as it is, tokenised step by step: every process sees a batch and encodes its share."""
        plan = cast("Dataset[tuple[int, list[int]]]", self.batches)
        return DataLoader(plan, batch_size=1, shuffle=False, collate_fn=lambda one: self.data.batch(*one[0]))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Set the learning rate's course (:func:`cosine_with_warmup`)."""
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
        """Leave counting to the benchmark."""
        return 0

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Hand batches on: there are no labels to count."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def training_step(  # type: ignore[override]  # our data loader gives batches of our own
        self, model: torch.nn.Module, inputs: TrainingBatch, num_items_in_batch: object = None
    ) -> torch.Tensor:
        """Add a batch's gradients; stop the run if its loss or its vectors say that it has failed."""
        began = time.perf_counter()
        model.train()
        sharded = self.is_distributed_loading_by_transformers
        # cast weights are not cached where no process may hold them all
        half = partial(torch.autocast, self.args.device.type, torch.bfloat16, cache_enabled=not sharded)
        result = backward(
            # (sentence-transformers calls the encoder's forward alone, which gathers no sharded weights)
            transformer_of(model).model if sharded else TokenStates(model),
            inputs,
            self.loss_settings,
            chunk_tokens=self.recipe.chunk_tokens,
            pad_id=self.pad_id,
            device=self.args.device,
            autocast=half if self.compute.dtype == torch.bfloat16 else nullcontext,
            distributed=self.args.world_size > 1,
        )
        self._stop_if_failed(result, self.state.global_step + 1)
        self.extra = {
            **result.statistics,
            "set": inputs.name,
            "tokens": inputs.tokens,  # of all processes
            "tokens_per_second": inputs.tokens / (time.perf_counter() - began),
            "padding_share": 1 - result.tokens * result.passes / result.padded_tokens,
            "chunks": result.chunks,
            "memory_gib": peak_memory(self.args.device),
        }
        return torch.tensor(result.loss, device=self.args.device)

    def _stop_if_failed(self, result: StepResult, step: int) -> None:
        if not math.isfinite(result.loss):
            raise RealignError(
                f"the loss is {result.loss} at {self.place(step)}: lower the learning rate or use float32"
            )
        if result.statistics["min_cosine"] > COLLAPSED and step > 1:
            raise RealignError(
                f"the embeddings have collapsed at {self.place(step)}: all cosines in the batch are above "
                f"{COLLAPSED}; lower the learning rate or raise the temperature"
            )

    def place(self, step: int) -> str:
        """Name a step and its batch."""
        index, rows = self.batches[step - 1]
        batch = f"set {self.data.sets[index].name}, rows {', '.join(map(str, rows[:4]))}"
        more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
        return f"step {step} of {self.state.max_steps} ({batch}{more})"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record a step, show it, and keep the model where the recipe says so."""
        if "loss" in logs:
            if not math.isfinite(logs.get("grad_norm", 0.0)):
                raise RealignError(
                    f"the gradient norm is {logs['grad_norm']} at {self.place(self.state.global_step)}: "
                    "lower the learning rate or use float32"
                )
            logs = {**logs, **self.extra}
            self.bar.update(self.state.global_step - self.bar.n)
            shown = {"loss": f"{logs['loss']:.3f}", "accuracy": f"{self.extra['accuracy']:.2f}"}
            self.bar.set_postfix(shown, refresh=False)
        self.state.log_history.append({**logs, "step": self.state.global_step})
        if "loss" in logs and self.state.global_step in self.recipe.save_steps:
            self.keep(self.state.global_step, logged(self.state.log_history))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        state = {name: sharding.whole(p) for name, p in self.trained().items()}
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(state, folder / "trained.safetensors")

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        saved = load_file(Path(checkpoint_path) / "trained.safetensors")
        parameters = self.trained()
        if saved.keys() != parameters.keys():
            raise RealignError(f"{checkpoint_path} is of another model or recipe: remove it to start anew")
        with torch.no_grad():
            for name, value in saved.items():
                parameters[name].copy_(sharding.part(value, parameters[name]))

    # The optimiser's state is gathered before it is written, so a run can resume with another number of processes.
    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = sharding.optimizer_state(self.optimizer)
        if self.args.should_save:
            both = {"optimizer": state, "scheduler": self.lr_scheduler.state_dict()}
            torch.save(both, Path(output_dir) / "optimizer.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            saved = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", weights_only=True)
            sharding.load_optimizer_state(self.optimizer, saved["optimizer"])
            self.lr_scheduler.load_state_dict(saved["scheduler"])

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the parameters that are trained, by name."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}


def _arguments(run: Run, steps: int, compute: Compute) -> SentenceTransformerTrainingArguments:
    recipe = run.recipe
    return SentenceTransformerTrainingArguments(
        output_dir=str(run.work),
        max_steps=steps,
        per_device_train_batch_size=1,  # one item of the plan is one whole batch
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        optim="adamw_torch_fused",
        seed=run.seeds.dropout,
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


def cosine_with_warmup(step: int, *, warmup: int, steps: int) -> float:
    """Share of the learning rate at a step (from 0): linear warm-up, then half a cosine towards 0.

    Unlike transformers' schedule it starts above 0, so that the first step of a short run trains too.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def logged(history: list[Row]) -> list[Row]:
    """Return the entries of a trainer's history that are optimiser steps."""
    return [row for row in history if "accuracy" in row]


def last_checkpoint(work: Path) -> str | None:
    """Return the newest complete checkpoint; a newer one that a kill left half-written is removed.

    The trainer writes its state last, so a checkpoint with a readable state is complete.
    """
    folders = sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for folder in folders:
        try:
            json.loads((folder / "trainer_state.json").read_text())
            return str(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None
