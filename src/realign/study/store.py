"""Content-addressed artifact store: what was asked for names the result, wherever it was computed.

An artifact is a directory ``<root>/<stage>/<slug>-<key12>/`` with its files and ``manifest.json``.
It is built in a temporary directory and renamed, under a lock per key, so a kill leaves nothing
half-written and two processes compute once. Every file's digest stands in the manifest; a damaged
artifact is set aside (never used, never deleted) and built again. A second, read-only layer
(data/results) holds published artifacts under the same keys.
"""

from __future__ import annotations

import errno
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from realign.errors import RealignError, is_full_disk
from realign.hardware import peak_memory_gib
from realign.models.sources import sha256

MANIFEST = "manifest.json"
RECORDED = ("torch", "transformers", "sentence-transformers", "peft", "trl", "mteb", "numpy", "realign")


Build = Callable[[Path], dict[str, Any] | None]
"""Writes the files of an artifact into a folder; returns what was used (device, dtype, seed, ...)."""


def canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | set | frozenset):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


@dataclass(frozen=True)
class Request:
    """What is asked for. ``config`` and ``inputs`` must be JSON; equal requests have equal keys."""

    stage: str
    version: int
    slug: str
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Sha256 over stage, stage version, config, input keys and outside digests."""
        parts = {
            "stage": self.stage,
            "version": self.version,
            "config": self.config,
            "inputs": self.inputs,
            "outside": self.outside,
        }
        return hashlib.sha256(canonical(parts).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Place of the artifact relative to a layer's root."""
        return Path(self.stage) / f"{self.slug}-{self.key[:12]}"


@dataclass(frozen=True)
class Artifact:
    """A finished, verified artifact: its directory, manifest and layer ('local' or 'published')."""

    path: Path
    manifest: dict[str, Any]
    layer: str

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f["bytes"] for f in self.manifest["files"].values())


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the git commit of the code (with '+' when modified), else the package version."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return metadata.version("realign")


@lru_cache(maxsize=1)
def recorded_versions() -> dict[str, str]:
    """Return the installed versions of the packages that shape results."""
    versions = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


class Store:
    """Two layers of artifacts: ``root`` (read and written) and ``published`` (read only)."""

    def __init__(self, root: Path, published: Path | None = None) -> None:
        self.root = root
        self.published = published
        self._verified: dict[Path, dict[str, Any]] = {}

    def find(self, request: Request) -> Artifact | None:
        """Return the finished artifact of a request, local layer first, or None.

        A damaged local artifact is moved aside to ``<folder>.damaged-<n>``; a damaged published one
        is reported and passed over.
        """
        for layer, base in (("local", self.root), ("published", self.published)):
            if base is None:
                continue
            path = base / request.folder
            if not path.is_dir():
                continue
            damage = self.damage(path, request.key)
            if damage is None:
                return Artifact(path, self._verified[path], layer)
            if layer == "local":
                aside = self.set_aside(path)
                print(f"realign: {path} is damaged ({damage}); moved to {aside.name}", file=sys.stderr)
            else:
                print(f"realign: published {path} is damaged ({damage}); passed over", file=sys.stderr)
        return None

    def get(self, request: Request, build: Build) -> Artifact:
        """Return the artifact of a request, building it once if it is not there.

        Args:
            request: what is asked for.
            build: writes the files into the directory it is given; what it returns (what was used:
                device, dtype, seed, ...) is recorded under ``used`` in the manifest.

        Raises:
            RealignError: when the store cannot be written or the disk is full.
        """
        if artifact := self.find(request):
            return artifact
        with _disk_errors(self.root):
            locks = self.root / ".locks"
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / f"{request.key}.lock"):
                if artifact := self.find(request):  # another process built it while we waited
                    return artifact
                return self._build(request, build)

    def work(self, request: Request) -> Path:
        """Return a directory that survives a kill, for a stage that can resume; removed on success."""
        with _disk_errors(self.root):
            path = self.root / ".work" / f"{request.stage}-{request.key[:12]}"
            path.mkdir(parents=True, exist_ok=True)
        return path

    def _build(self, request: Request, build: Build) -> Artifact:
        target = self.root / request.folder
        temporary = self.root / ".tmp" / f"{request.stage}-{request.key[:12]}"
        shutil.rmtree(temporary, ignore_errors=True)  # what a kill left; the lock is ours
        temporary.mkdir(parents=True)
        started, clock = time.time(), time.perf_counter()
        try:
            used = build(temporary) or {}
            manifest = {
                "stage": request.stage,
                "stage_version": request.version,
                "slug": request.slug,
                "key": request.key,
                "config": json.loads(canonical(request.config)),
                "inputs": json.loads(canonical(request.inputs)),
                "outside": dict(sorted(request.outside.items())),
                "used": used,
                "versions": recorded_versions(),
                "code": code_version(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "wall_seconds": round(time.perf_counter() - clock, 2),
                "peak_memory_gib": peak_memory_gib(),
                "files": _inventory(temporary),
            }
            text = json.dumps(manifest, indent=1, sort_keys=True, default=_plain) + "\n"
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(self.root / ".work" / f"{request.stage}-{request.key[:12]}", ignore_errors=True)
        self._verified[target] = manifest
        return Artifact(target, manifest, "local")

    def damage(self, path: Path, key: str) -> str | None:
        """Return what is wrong with an artifact, or None; its files are hashed once per process."""
        if path in self._verified:
            return None
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if manifest["key"] != key:
                return "its manifest belongs to another request"
            for name, facts in manifest["files"].items():
                file = path / name
                if not file.is_file():
                    return f"{name} is missing"
                if file.stat().st_size != facts["bytes"] or sha256(file) != facts["sha256"]:
                    return f"{name} does not match its digest"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"its manifest cannot be read: {error}"
        self._verified[path] = manifest
        return None

    def set_aside(self, path: Path) -> Path:
        """Move a local artifact to ``<folder>.damaged-<n>``, where it is not found again."""
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        with _disk_errors(self.root):
            path.rename(aside)
        return aside

    def listing(self) -> Iterator[Artifact]:
        """Yield every artifact of both layers, unverified, in a stable order."""
        for layer, base in (("local", self.root), ("published", self.published)):
            if base is None or not base.is_dir():
                continue
            for file in sorted(base.glob(f"*/*/{MANIFEST}")):
                if ".damaged-" in file.parent.name or file.parts[-3].startswith("."):
                    continue
                try:
                    yield Artifact(file.parent, json.loads(file.read_text(encoding="utf-8")), layer)
                except (OSError, ValueError):
                    continue

    def publish(self, artifact: Artifact, destination: Path) -> Path:
        """Copy an artifact into a published layer, whole or not at all; return its new place."""
        target = destination / artifact.path.parent.name / artifact.path.name
        if target.exists():
            return target
        temporary = target.with_name(target.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        with _disk_errors(destination):
            shutil.copytree(artifact.path, temporary)
            temporary.rename(target)
        return target


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable store into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RealignError):
            raise
        if is_full_disk(error):
            raise RealignError(
                f"the disk that holds {place} is full: free some space, or set REALIGN_STORE to another disk"
            ) from error
        refused = isinstance(error, FileExistsError | NotADirectoryError | PermissionError)
        if isinstance(error, OSError) and (refused or error.errno == errno.EROFS):
            raise RealignError(
                f"the store {place} cannot be written ({error.strerror}): "
                "set REALIGN_STORE to a directory you own"
            ) from error
        raise
