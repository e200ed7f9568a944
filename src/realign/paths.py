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
        return absolute(value)
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
    return absolute(value) if value else root() / "artifacts"


def cache_dir() -> Path:
    """Return the download cache: ``REALIGN_CACHE``, else ``~/.cache/realign``."""
    value = os.environ.get("REALIGN_CACHE")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "realign"


def resolve(location: str) -> Path:
    """Resolve a location in a configuration: absolute as it is, relative against the root.

    Raises:
        UsageError: for ``~NAME/...`` where there is no such user.
    """
    path = Path(_at_home(location))
    return path if path.is_absolute() else root() / path


def absolute(text: str, folder: Path | None = None) -> Path:
    """Return an absolute path without links; a relative one starts in ``folder``, else where we are.

    Raises:
        UsageError: for ``~NAME/...`` where there is no such user.
    """
    # unlike Path.resolve, realpath takes links in a circle as they are: whoever opens the file will say it
    return Path(os.path.realpath((folder or Path()) / _at_home(text)))


def check_new(folder: Path, what: str) -> Path:
    """Return a folder that can be made, or is empty, for results that take long: refused before, not after.

    Raises:
        UsageError: there is something in it, or a file is where it or a folder above it should be.
    """
    above = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"{folder} cannot be made: {above} is no folder that can be written")
    if above == folder and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: name a new directory for {what}")
    return folder


def _at_home(text: str) -> str:
    expanded = os.path.expanduser(text)  # noqa: PTH111 (leaves an unknown user's home as it is)
    if "\0" in text or expanded.startswith("~"):
        what = "holds a null byte" if "\0" in text else "begins with the home of a user that there is not"
        raise UsageError(f"{text!r} {what}: write it out")
    return expanded
