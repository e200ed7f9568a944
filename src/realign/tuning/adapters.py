"""What RLVR and SFT share: a base with LoRA, the state of a run, checkpoints as small adapters, and a log."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from realign.behaviour import policy
from realign.behaviour import problems as problem_sets
from realign.config import Backbone, LoRA, PolicySettings, RLVRSettings, SFTSettings
from realign.errors import UsageError
from realign.hardware import Compute
from realign.models import loading
from realign.progress import bar

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase


def rank() -> int:
    """Return which of the processes that ``accelerate launch`` started this is (0 without it)."""
    return int(os.environ.get("RANK", "0"))


def share(count: int, what: str) -> int:
    """Return this process's part of a step's batch, so that the batch does not depend on the number of processes.

    Raises:
        UsageError: if the processes cannot share it evenly.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if count % processes:
        raise UsageError(f"{count} {what} a step cannot be shared evenly by {processes} processes")
    return count // processes


def lora_config(lora: LoRA) -> LoraConfig:
    """Return the peft configuration: all linear layers but the head."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def load_policy(
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    compute: Compute,
    local: Path | None,
    start: Path | None = None,
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load the base to be tuned, with a fresh LoRA (or the saved one in ``start``) in the model's own dtype.

    Eager attention, and logits from contiguous states: what is fast in bfloat16 on a CPU.
    """
    from peft import PeftModel, get_peft_model

    if base.kind == "adapter":
        raise UsageError(f"{base.source}: tuning starts from a base, not from an adapter")
    model, tokenizer = loading.load_lm(
        base, dtype=compute.dtype, device=compute.device, local=local, attn_implementation="eager"
    )
    head = model.get_output_embeddings()
    # A slice of the states makes this product several times slower on a CPU.
    head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
    if start is not None:
        return PeftModel.from_pretrained(
            model, str(start), is_trainable=True, autocast_adapter_dtype=False
        ), tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return get_peft_model(model, lora_config(settings.lora), autocast_adapter_dtype=False), tokenizer


def begin(out: Path, base: Backbone, settings: RLVRSettings | SFTSettings) -> Path:
    """Open a run's directory, or an unfinished run of the same settings to go on with.

    Returns the directory of the trainer's state; :func:`train` removes it at the end.

    Raises:
        UsageError: if ``out`` holds an unfinished run of another base or other settings.
    """
    asked = json.dumps({"base": base.source, **settings.model_dump(mode="json")}, sort_keys=True)
    state = out / "state"
    if rank() > 0:
        return state
    written = state / "settings.json"
    if written.is_file() and written.read_text(encoding="utf-8") != asked:
        raise UsageError(
            f"{out} holds an unfinished run with other settings: remove it, or name another place"
        )
    state.mkdir(parents=True, exist_ok=True)
    written.write_text(asked, encoding="utf-8")
    return state


def unfinished(out: Path) -> bool:
    """Whether a run in ``out`` was not begun, or not brought to its end."""
    return (out / "state").exists() or not (out / "final").is_dir()


def trainer_options(settings: RLVRSettings | SFTSettings, compute: Compute, work: Path) -> dict[str, Any]:
    """Return the trainer arguments that RLVR and SFT share, every surprising default set explicitly."""
    cpu = compute.device.type == "cpu"
    return {
        "output_dir": str(work),
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": settings.warmup_steps,
        "seed": settings.seed,
        "use_cpu": cpu,
        "bf16": False,  # the model itself is in the dtype that was chosen; adapters too, with float32 copies in MasterAdamW
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "steps",  # the trainer's state, to resume from; adapters are saved by Recorder
        "save_steps": settings.checkpoint_every,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not cpu,
    }


def save_adapter(model: PeftModel, folder: Path, base: Backbone) -> Path:
    """Save a LoRA adapter in bfloat16: its configuration and weights, nothing else, no machine paths."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Any = model.peft_config["default"]
    kept = config.base_model_name_or_path, config.inference_mode, config.target_modules
    config.base_model_name_or_path, config.inference_mode = base.source, True
    config.target_modules = sorted(config.target_modules)  # a set would be written in random order
    config.save_pretrained(str(folder))
    config.base_model_name_or_path, config.inference_mode, config.target_modules = kept
    return folder


class BaseOf:
    """A tuned model with its adapter switched off, callable like the base: no second copy in memory."""

    def __init__(self, model: PeftModel) -> None:
        """``model`` holds the one adapter being tuned."""
        self.model = model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def __call__(self, **inputs: Any) -> Any:
        """Return the base's output."""
        with self.model.disable_adapter():
            return self.model(**inputs)


def training_problems(
    settings: RLVRSettings | SFTSettings, tokenizer: PreTrainedTokenizerBase, count: int
) -> list[problem_sets.Problem]:
    """Return ``count`` distinct training problems of a run, prompted as its tokenizer allows."""
    return problem_sets.load(
        settings.task,
        settings.task_options,
        "train",
        count,
        settings.seed,
        chat=policy.has_chat_markers(tokenizer),
        style=settings.style,
    )


def validator(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, settings: RLVRSettings | SFTSettings
) -> Callable[[], dict[str, Any]]:
    """Return a function that measures the model as a policy on validation problems.

    Its result has accuracies (greedy, and sampled once) with Wilson intervals, entropy, KL to the base
    and completion length; see :func:`realign.behaviour.policy.measure`.
    """
    asked = PolicySettings(
        task=settings.task,
        task_options=settings.task_options,
        problems=settings.validation_problems,
        samples=1,
        max_new_tokens=settings.max_new_tokens,
        style=settings.style,
        seed=settings.seed,
    )
    found = policy.problems_of(asked, tokenizer, "validation")

    def measure() -> dict[str, Any]:
        training = model.training
        model.eval()
        tuned, base = cast("Any", model), cast("Any", BaseOf(model))
        result = policy.measure_model(tuned, tokenizer, found, asked, base=base)
        model.train(training)
        return {k: v for k, v in result.items() if k != "rows"}

    return measure


class Recorder(TrainerCallback):
    """Writes ``log.csv`` and ``validation.csv`` row by row, saves adapters, shows progress.

    Rows and adapters of an unfinished run up to the step it resumes from are kept.
    """

    def __init__(
        self,
        out: Path,
        base: Backbone,
        settings: RLVRSettings | SFTSettings,
        columns: dict[str, str],
        validate: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """``columns`` maps names in log.csv to the trainer's names; ``validate`` fills validation.csv."""
        self.out, self.base, self.settings, self.columns = out, base, settings, columns
        self.validate = validate
        self.saved: dict[int, Path] = {}
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut the tables back to the step that the run resumes from, and measure the base at step 0."""
        self.started = time.perf_counter()
        self.writes = state.is_world_process_zero
        start = state.global_step
        if not self.writes:
            return
        for name in ("log.csv", "validation.csv"):
            if (self.out / name).is_file():
                rows = pd.read_csv(self.out / name)
                rows[rows.step <= start].to_csv(self.out / name, index=False)
        for step in self.settings.save_steps:
            if step <= start and (folder := self.out / f"step-{step}").is_dir():
                self.saved[step] = folder
        self.bar = bar(
            self.settings.steps,
            desc=type(self.settings).__name__.removesuffix("Settings").lower(),
            unit="step",
            initial=start,
        )
        if start == 0:
            self._validate(0)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write one row a step; ``seconds`` is wall time since the step before, validation left out."""
        if not self.writes or logs is None or "train_runtime" in logs:
            return
        now = time.perf_counter()
        row = {name: logs.get(key, "") for name, key in self.columns.items()}
        self._append("log.csv", {"step": state.global_step, **row, "seconds": round(now - self.started, 3)})
        if self.settings.validate_every and state.global_step % self.settings.validate_every == 0:
            self._validate(state.global_step)
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Save an adapter if this step is one of ``save_steps``, and always at the last."""
        step = state.global_step
        last = step == self.settings.steps
        if not self.writes:
            return
        self.bar.update(1)
        if last or step in self.settings.save_steps:
            folder = self.out / ("final" if last else f"step-{step}")
            self.saved[step] = save_adapter(model, folder, self.base)

    def _validate(self, step: int) -> None:
        if self.validate is not None and self.settings.validate_every:
            self._append("validation.csv", {"step": step, **self.validate()})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        file, added = self.out / name, pd.DataFrame([row])
        if file.is_file() and list(pd.read_csv(file, nrows=0)) != list(row):
            # A run that another version of this code began: its table gains the columns of this one.
            pd.concat([pd.read_csv(file), added]).to_csv(file, index=False)
        else:
            added.to_csv(file, mode="a", header=not file.is_file(), index=False)

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def train(trainer: Trainer, recorder: Recorder) -> dict[int, Path]:
    """Run a trainer, from its last state if there is one, and return the adapter directories by step."""
    state = Path(str(trainer.args.output_dir))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(recorder)
    # transformers would put another copy of the adapter, in float32, in the place of the one that is stepped.
    trainer._load_from_checkpoint = lambda place, model=None: _restore(trainer.model, Path(place))  # type: ignore[method-assign, assignment]
    level = logging.getLogger("transformers.trainer").level
    try:
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)))
    finally:
        recorder.close()
        logging.getLogger("transformers.trainer").setLevel(level)
    if recorder.writes:
        shutil.rmtree(state)
    return recorder.saved


def _restore(model: Any, checkpoint: Path) -> None:
    """Copy a saved adapter into the parameters that are there, in their dtype."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"))
