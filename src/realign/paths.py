"""Where the project, its data and its artifacts lie."""

from __future__ import annotations

import os
from pathlib import Path

from realign.errors import RealignError, UsageError


def root() -> Path:
    """Return the project root: ``REALIGN_ROOT``, else the nearest parent with data/families.toml.

    Searched from the working directory, then from the installed package (an editable install).
    """
    if value := os.environ.get("REALIGN_ROOT"):
        return Path(value).expanduser().resolve()
    here = Path.cwd().resolve()
    for start in (here, Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "data" / "families.toml").is_file():
                return folder
    raise RealignError(f"no realign project around {here}: run inside a clone, or set REALIGN_ROOT to one")


def data() -> Path:
    """Return the project's data folder."""
    return root() / "data"


def artifacts() -> Path:
    """Return the writable artifact store: ``REALIGN_STORE``, else ``artifacts`` in the root."""
    value = os.environ.get("REALIGN_STORE")
    return Path(value).expanduser().resolve() if value else root() / "artifacts"


def resolve(location: str) -> Path:
    """Resolve a location in a configuration: absolute as it is, relative against the root.

    Raises:
        UsageError: for ``~NAME/...`` where there is no such user.
    """
    try:
        path = Path(location).expanduser()
    except RuntimeError:
        raise UsageError(
            f"'{location}' begins with the home of a user that there is not: write it out"
        ) from None
    return path if path.is_absolute() else root() / path
