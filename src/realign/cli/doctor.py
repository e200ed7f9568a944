"""What `realign doctor` looks at: everything around the code that can keep a run from working."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from urllib.parse import urlparse

from realign import hardware, paths

LOCK_LINE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")


def locked_versions() -> dict[str, str]:
    """Return package -> version as pinned in requirements.lock."""
    lines = (paths.root() / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return {m[1].lower().replace("_", "-"): m[2] for m in map(LOCK_LINE.match, lines) if m}


def differences() -> dict[str, tuple[str, str]]:
    """Return package -> (locked, installed or 'missing') where the two are not the same."""
    found = {}
    for name, wanted in locked_versions().items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "missing"
        if installed.partition("+")[0] != wanted:  # a build such as 2.13.0+cpu is that version
            found[name] = (wanted, installed)
    return found


def hub_reachable(seconds: float = 3.0) -> tuple[bool, str]:
    """Return whether the model hub answers on its port, and the reason when not."""
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return False, "HF_HUB_OFFLINE=1 is set"
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or "huggingface.co"
    try:
        with socket.create_connection((host, 443), timeout=seconds):
            return True, host
    except OSError as error:
        return False, f"{host}: {error.strerror or error}"


def lines() -> Iterator[str]:
    """Yield the lines of the report; imports torch."""
    import torch

    compute = hardware.resolve()
    machine = hardware.describe()
    place = next(each for each in (paths.artifacts(), *paths.artifacts().parents) if os.path.lexists(each))
    writable = place.is_dir() and os.access(place, os.W_OK)
    free = shutil.disk_usage(place if place.is_dir() else place.parent).free / 2**30
    reachable, reason = hub_reachable()
    yield f"python      {platform.python_version()} at {sys.executable}"
    yield f"torch       {torch.__version__}, {torch.get_num_threads()} threads"
    yield f"machine     {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, GPU: {machine['gpu'] or 'none'}"
    yield f"device      {compute.device} (auto)"
    yield f"dtype       {str(compute.dtype).removeprefix('torch.')} (auto: {compute.reason}); HRSA reads in float32"
    yield f"store       {paths.artifacts()} ({'writable' if writable else 'NOT WRITABLE'}), {free:.0f} GiB free"
    yield f"hub         {'reachable' if reachable else 'not reachable'} ({reason}); profiles smoke and laptop do not need it"
    changed = differences()
    yield f"versions    {'as in requirements.lock' if not changed else f'{len(changed)} differ from requirements.lock'}"
    for name, (wanted, installed) in sorted(changed.items()):
        yield f"            {name}: locked {wanted}, installed {installed}"
