"""Siblings of a base: LoRA adapters by RLVR (TRL's GRPO) and SFT on reasoning_gym problems."""

from __future__ import annotations

from pathlib import Path

from realign.config import Backbone, PolicySettings, RLVRSettings, SFTSettings
from realign.hardware import Compute
from realign.tuning import rlvr, sft


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
    if isinstance(settings, RLVRSettings):
        return rlvr.run(base, settings, out, local=local, compute=compute, evaluation=evaluation)
    return sft.run(base, settings, out, local=local, compute=compute, evaluation=evaluation)
