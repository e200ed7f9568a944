"""Siblings of a base: RLVR (TRL's GRPO) and SFT on reasoning_gym problems, and how they behave."""

from __future__ import annotations

from pathlib import Path

from realign.config import Backbone, PolicySettings, RLVRSettings, SFTSettings
from realign.hardware import Compute


def run(
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    out: Path,
    *,
    local: Path | None = None,
    compute: Compute | None = None,
    evaluation: PolicySettings | None = None,
) -> dict[int, Path]:
    """Tune a sibling by the method of its settings; see :func:`realign.tuning.rlvr.run`."""
    from realign.tuning import rlvr, sft

    if isinstance(settings, RLVRSettings):
        return rlvr.run(base, settings, out, local=local, compute=compute, evaluation=evaluation)
    return sft.run(base, settings, out, local=local, compute=compute, evaluation=evaluation)
