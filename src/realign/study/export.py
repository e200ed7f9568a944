"""A trained model as a directory of its own, with its scores in the model card."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from realign import paths
from realign.evaluation import run
from realign.training.model import scored

if TYPE_CHECKING:
    from realign.study import Study


def export_model(study: Study, model: str, folder: Path) -> None:
    """Copy a trained model out of the store, its scores on the profile's suites in the model card.

    Both are looked up in the store or made. A model in the store is never changed, so its own card has none.

    Args:
        study: whose model it is.
        model: ``ROLE:SEED`` or ``ROLE:SEED@STEP``.
        folder: a new or empty directory.

    Raises:
        UsageError: the name is not that of a trained model, or the folder is not empty or cannot be made.
    """
    name = study.models.trained_name(model)
    assert name.seed is not None
    paths.check_new(folder, "the model")
    training, place = study.train.place(name.role, name.seed, name.step)
    frames = [study.evaluate.score(str(name), suite) for suite in study.profile.suites]
    tasks = run.task_means(pd.concat(frames, ignore_index=True))
    source = study.graph.run(training).path / place
    text = (source / "README.md").read_text(encoding="utf-8")
    facts = {"profile": study.profile.name, "dtype": study.profile.dtype, "mteb": version("mteb")}
    card = scored(text, tasks, run.suite_means(tasks), facts)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "README.md").write_text(card, encoding="utf-8")
