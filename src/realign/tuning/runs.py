"""A tuning run: its settings, checkpoints to resume from, tables of what happened, adapters and model cards."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from transformers import PrinterCallback, TrainerCallback

from realign import hardware
from realign.config import Backbone, PolicySettings, RLVRSettings, SFTSettings
from realign.errors import UsageError, full_disk_as_sentence
from realign.hardware import Compute
from realign.models import pretrained
from realign.progress import bar
from realign.tuning import adapters, cards
from realign.tuning.processes import rank
from realign.tuning.watch import Watch

if TYPE_CHECKING:
    from peft import PeftModel
    from tqdm import tqdm
    from transformers import PreTrainedTokenizerBase, Trainer

    # model, tokenizer and the trainer arguments that every method shares, to a TRL trainer
    MakeTrainer = Callable[[PeftModel, PreTrainedTokenizerBase, dict[str, Any]], Trainer]

CONTENTS = "contents.json"  # in a checkpoint: size and sha256 of its files, written when it is whole


def begin(out: Path, base: Backbone, settings: RLVRSettings | SFTSettings) -> Path:
    """Open a run's directory, or an unfinished run of the same settings to go on with.

    Returns the directory of the trainer's state, which is removed at the end.

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
    _write(written, asked)
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
        "save_total_limit": 2,  # the one before stays until this one is known to be whole
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not cpu,
    }


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
        self.bar: tqdm | None = None
        self.watch = Watch()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut the tables back to the step that the run resumes from, and measure the base at step 0."""
        self.started = time.perf_counter()
        self.writes = state.is_world_process_zero
        start = state.global_step
        if not self.writes:
            return
        for name in ("log.csv", "validation.csv"):
            _keep_rows(self.out / name, start)
        for step in (*self.settings.save_steps, self.settings.steps):
            if step <= start and self._folder(step).is_dir():
                self.saved[step] = self._folder(step)
        self.bar = bar(
            self.settings.steps,
            desc=type(self.settings).__name__.removesuffix("Settings").lower(),
            unit="step",
            initial=start,
        )
        self.watch.look_back(self.out / "log.csv")
        if start == 0:
            self._validate(0)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write one row a step; ``seconds`` is wall time since the step before, validation left out.

        Raises:
            RealignError: what the row says makes going on useless, see :class:`Watch`.
        """
        if not self.writes or logs is None or "train_runtime" in logs:
            return
        now = time.perf_counter()
        row = {name: logs.get(key, "") for name, key in self.columns.items()}
        row = {"step": state.global_step, **row, "seconds": round(now - self.started, 3)}
        self._append("log.csv", row)
        self.watch.see(row)
        if self.settings.validate_every and state.global_step % self.settings.validate_every == 0:
            self._validate(state.global_step)
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Save an adapter if this step is one of ``save_steps``, and always at the last."""
        step = state.global_step
        if not self.writes:
            return
        if self.bar is not None:
            self.bar.update(1)
        if step in (*self.settings.save_steps, self.settings.steps):
            self.saved[step] = adapters.save_adapter(model, self._folder(step), self.base)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write down what a checkpoint is made of, once it is whole."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process has written its part
        if self.writes:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            _write(folder / CONTENTS, json.dumps(_contents(folder)))

    def _folder(self, step: int) -> Path:
        return self.out / ("final" if step == self.settings.steps else f"step-{step}")

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


def tune(
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    out: Path,
    make_trainer: MakeTrainer,
    columns: dict[str, str],
    *,
    local: Path | None,
    compute: Compute | None,
    evaluation: PolicySettings | None,
    start: Path | None = None,
) -> dict[int, Path]:
    """Run a trainer, from its last checkpoint if there is one, and return the adapter directories by step.

    Arguments and files are those of :func:`realign.tuning.rlvr.run`; further ``make_trainer`` builds the
    method's trainer, ``columns`` maps names in log.csv to the trainer's, and ``start`` is an adapter to go
    on from.
    """
    compute = compute or hardware.resolve()
    saved = _train(base, settings, out, make_trainer, columns, local, compute, start)
    cards.write(saved, base, settings, evaluation, local=local, compute=compute)
    if rank() == 0:  # not before: a run that is killed while its adapters are measured is not tuned again
        shutil.rmtree(out / "state")
    return saved


def _train(
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    out: Path,
    make_trainer: MakeTrainer,
    columns: dict[str, str],
    local: Path | None,
    compute: Compute,
    start: Path | None,
) -> dict[int, Path]:
    """Train and save; the model is gone from memory when this returns, before adapters are measured."""
    state = begin(out, base, settings)
    model, tokenizer = adapters.load_policy(base, settings, compute, local, start)
    with pretrained.quiet(), full_disk_as_sentence(out):
        trainer = make_trainer(model, tokenizer, trainer_options(settings, compute, state))
        recorder = Recorder(out, base, settings, columns, adapters.validator(model, tokenizer, settings))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(recorder)
        # transformers would put another copy of the adapter, in float32, in the place of the one that is stepped.
        trainer._load_from_checkpoint = partial(_restore, trainer)  # type: ignore[method-assign]
        try:
            trainer.train(resume_from_checkpoint=last_checkpoint(state))
        finally:
            recorder.close()
    return recorder.saved


def last_checkpoint(state: Path) -> str | None:
    """Return the newest checkpoint that is whole: all its files are as they were when it was finished."""
    for folder in sorted(
        state.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True
    ):
        try:
            if json.loads((folder / CONTENTS).read_text(encoding="utf-8")) == _contents(folder):
                return str(folder)
        except (OSError, ValueError):
            pass  # not finished, or damaged: the one before is as good
    return None


def _contents(folder: Path) -> dict[str, str]:
    """Return the sha256 of a checkpoint's files by name."""
    files = (f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(CONTENTS))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _write(file: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _keep_rows(file: Path, last: int) -> None:
    """Cut a table back to a step; what a kill left of a row or of the whole table is dropped."""
    if not file.is_file():
        return
    try:
        table = pd.read_csv(file)
        rows = table[table.step <= last].drop_duplicates("step")
    except (ValueError, AttributeError):  # pandas' own errors of empty and cut files are ValueErrors
        rows = pd.DataFrame()
    if rows.empty:
        file.unlink()
    else:
        _write(file, rows.to_csv(index=False))


def _restore(trainer: Trainer, checkpoint: str, model: object = None) -> None:
    """Copy a saved adapter into the parameters that are there, in their dtype."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(trainer.model, load_file(Path(checkpoint) / "adapter_model.safetensors"))
