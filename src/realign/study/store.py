"""Artifacts by key in two layers: made once, whole or not at all, and set aside when damaged."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from realign.config import rules_digest
from realign.errors import RealignError, UsageError, full_disk_as_sentence
from realign.hardware import peak_memory_gib
from realign.study.artifact import (
    MANIFEST,
    Artifact,
    Request,
    canonical,
    check,
    inventory,
    read_manifest,
    write_manifest,
)

RECORDED = ("torch", "transformers", "sentence-transformers", "peft", "trl", "mteb", "numpy", "realign")


Build = Callable[[Path], dict[str, Any] | None]
"""Writes the files of an artifact into a folder; returns what was used (device, dtype, seed, ...)."""


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
    """Two layers of artifacts: ``root`` (read and written) and ``published`` (read only).

    Raises:
        UsageError: ``root`` lies in ``published``.
    """

    def __init__(self, root: Path, published: Path | None = None) -> None:
        self.root = root
        self.published = published
        if published is not None:
            place, top = (Path(os.path.realpath(each)) for each in (root, published))
            if place == top or top in place.parents:
                raise UsageError(f"the store {root} lies in the published results, which are read only")
        self._verified: dict[Path, dict[str, Any]] = {}

    def find(self, request: Request) -> Artifact | None:
        """Return the finished artifact of a request, local layer first, or None.

        A damaged local artifact is moved aside to ``<folder>.damaged-<n>``; a damaged published one
        is reported and passed over.
        """
        path = self.root / request.folder
        if os.path.lexists(path):
            if self.damage(path, request.key) is None:
                return Artifact(path, self._verified[path], "local")
            with self._locked(request):
                if artifact := self._sound(request):
                    return artifact
        if self.published is None or not (path := self.published / request.folder).is_dir():
            return None
        if damage := self.damage(path, request.key):
            print(f"realign: published {path} is damaged ({damage}); passed over", file=sys.stderr)
            return None
        return Artifact(path, self._verified[path], "published")

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
        with self._locked(request):
            return self._sound(request) or self._build(request, build)

    def retry(self, request: Request, failed: Callable[[Artifact], bool]) -> None:
        """Set a local artifact aside if it is one of a failure; of several processes only one does it."""
        known = self.find(request)
        if known is None or known.layer != "local" or not failed(known):
            return
        with self._locked(request):
            again = self._sound(request)  # another process may have set it aside and made a good one
            if again is not None and failed(again):
                self._set_aside(again.path)

    @contextmanager
    def _locked(self, request: Request) -> Iterator[None]:
        """Hold the lock of a key: whoever builds an artifact or moves one away does it alone."""
        with _disk_errors(self.root), self._lock(request.key):
            yield

    def _lock(self, name: str) -> FileLock:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock")

    def _sound(self, request: Request) -> Artifact | None:
        """Return the local artifact, looked at again under the lock; a damaged one is set aside."""
        path = self.root / request.folder
        self._verified.pop(path, None)
        if not os.path.lexists(path):
            return None
        if damage := self.damage(path, request.key):
            aside = self._set_aside(path)
            print(f"realign: {path} is damaged ({damage}); moved to {aside.name}", file=sys.stderr)
            return None
        return Artifact(path, self._verified[path], "local")

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
        target.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before the work
        if temporary.stat().st_dev != target.parent.stat().st_dev:
            raise RealignError(f"{target.parent} must lie on the same disk as {self.root}")
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
                "rules": rules_digest(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "wall_seconds": round(time.perf_counter() - clock, 2),
                "peak_memory_gib": peak_memory_gib(),
                "files": inventory(temporary),
            }
            manifest = write_manifest(temporary, manifest)
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
            self._verified[path] = check(path, key)
        except (OSError, ValueError, TypeError) as error:
            return str(error)
        return None

    def _set_aside(self, path: Path) -> Path:
        """Move a local artifact to ``<folder>.damaged-<n>``, where it is not found again."""
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
            number += 1
        path.rename(aside)
        self._verified.pop(path, None)
        return aside

    def listing(self) -> Iterator[Artifact]:
        """Yield every artifact of both layers, unverified, in a stable order; a broken manifest is reported."""
        for layer, base in (("local", self.root), ("published", self.published)):
            if base is None or not base.is_dir():
                continue
            for file in sorted(base.glob(f"*/*/{MANIFEST}")):
                if ".damaged-" in file.parent.name or file.parts[-3].startswith("."):
                    continue
                try:
                    yield Artifact(file.parent, read_manifest(file.parent), layer)
                except ValueError as error:
                    print(f"realign: {file.parent} is damaged ({error})", file=sys.stderr)

    def publish(self, artifact: Artifact, destination: Path) -> Path:
        """Copy an artifact into a published layer, whole or not at all; return its new place.

        One that is there and damaged is replaced.
        """
        target, key = destination / artifact.path.parent.name / artifact.path.name, artifact.manifest["key"]
        scratch = destination / ".tmp"
        with _disk_errors(destination), self._lock("publish"):
            self._verified.pop(target, None)
            if os.path.lexists(target) and self.damage(target, key) is None:
                return target
            shutil.rmtree(scratch, ignore_errors=True)
            copy, old = scratch / "new", scratch / "old"
            shutil.copytree(artifact.path, copy)
            self._verified.pop(copy, None)
            if damage := self.damage(copy, key):  # since it was looked up
                raise RealignError(f"{artifact.path} is damaged ({damage}): run the same command again")
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(target):
                target.rename(old)
            copy.rename(target)
            shutil.rmtree(scratch, ignore_errors=True)
        return target


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or an unwritable store into one sentence."""
    try:
        with full_disk_as_sentence(place, "free some space, or set REALIGN_STORE to another disk"):
            yield
    except OSError as error:
        refused = isinstance(error, FileExistsError | NotADirectoryError | PermissionError)
        if refused or error.errno in (errno.EROFS, errno.ELOOP):
            raise RealignError(
                f"the store {place} cannot be written ({error.strerror}): "
                "set REALIGN_STORE to a directory you own"
            ) from error
        raise
