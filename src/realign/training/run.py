"""What one training run is: backbone, recipe, seed and places; and over how many processes it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from realign import paths
from realign.config import Backbone, Recipe
from realign.errors import UsageError
from realign.models import sources
from realign.texts import pairs

VARIABLE = "REALIGN_PARALLEL"
_DROPOUT, _INITIALISATION = 10_000, 20_000
LARGEST_SEED = 2**32 - 1 - _INITIALISATION  # numpy's global generator takes 32 bits


class Seeds(NamedTuple):
    """The seeds of a run: order of the data, dropout masks, and new (adapter) weights."""

    data: int
    dropout: int
    initialisation: int


def seeds_of(seed: int) -> Seeds:
    """Return the three seeds of a run, made from the one that names it.

    Raises:
        UsageError: it is not a whole number from 0 to :data:`LARGEST_SEED`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"training seed {seed!r} must be a whole number from 0 to {LARGEST_SEED}")
    return Seeds(seed, _DROPOUT + seed, _INITIALISATION + seed)


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        backbone: what to start from.
        recipe: how to train. ``batch_size`` is that of all processes together.
        seed: names the run; see :func:`seeds_of`.
        out: where to write; made if it is not there.
        work: folder for checkpoints, of this run alone.
        local: directory of the materialised root base (None finds or makes it).
        device: 'auto', 'cpu' or 'cuda'; weights and optimiser are float32, activations ``recipe.dtype``.
    """

    backbone: Backbone
    recipe: Recipe
    seed: int
    out: Path
    work: Path
    local: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        seeds_of(self.seed)

    @property
    def seeds(self) -> Seeds:
        """The seeds of the run's parts."""
        return seeds_of(self.seed)


def public_set(name: str) -> str:
    """Return how files that travel name a training set: one from a file never by an absolute path."""
    if not name.startswith(pairs.FILE):
        return name
    file = paths.resolve(name.removeprefix(pairs.FILE))
    return pairs.FILE + (sources.public_place(file) if file.is_file() else file.name)


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data for keys and cards, see :func:`public_set`."""
    return recipe.model_dump(mode="json") | {"data": [public_set(name) for name in recipe.data]}


def read_flag(flag: str) -> tuple[int, bool]:
    """Read ``ddp:N`` or ``fsdp:N``: the number of processes, and whether the weights are sharded.

    "" is one process, and so is N = 1, which never shards.

    Raises:
        UsageError: for anything else.
    """
    if not flag:
        return 1, False
    method, _, count = flag.partition(":")
    if method not in ("ddp", "fsdp") or not (count.isascii() and count.isdigit()) or int(count) < 1:
        raise UsageError(
            f"parallel '{flag}' must be ddp:N (the model in each process) or fsdp:N (its weights sharded), "
            "for example ddp:4"
        )
    return int(count), method == "fsdp" and int(count) > 1
