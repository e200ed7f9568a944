"""What is asked for and what is stored: keys of requests, manifests, and what is wrong with a folder."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from realign.models.sources import sha256

MANIFEST = "manifest.json"
# What file systems and desktops leave in any folder.
_STRAY = re.compile(r"\.DS_Store|Thumbs\.db|\.nfs.*|\.fuse_hidden.*")


def canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=plain)


def plain(value: Any) -> Any:
    """Turn settings, tuples and sets into JSON; for ``json.dumps(default=...)``."""
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
        """Place of the artifact relative to a layer's root; a slug cannot lead out of its stage."""
        name = re.sub(r"[^A-Za-z0-9_.+@=-]", "_", self.slug)[:150]
        return Path(self.stage) / f"{name}-{self.key[:12]}"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its directory, manifest and layer ('local' or 'published')."""

    path: Path
    manifest: dict[str, Any]
    layer: str

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f["bytes"] for f in self.manifest["files"].values())


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with a digest of all its other fields; whoever changes one has to seal it again."""
    fields = json.loads(json.dumps({k: v for k, v in manifest.items() if k != "digest"}, default=plain))
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return {**fields, "digest": hashlib.sha256(text.encode()).hexdigest()}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write a manifest, sealed, into an artifact's folder; return it as it will be read."""
    manifest = sealed(manifest)
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest; its files are not looked at.

    Raises:
        ValueError: it cannot be read, or it is not the manifest of an artifact.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"its manifest cannot be read: {error}") from None
    kinds = {"stage": str, "stage_version": int, "slug": str, "key": str, "code": str, "started": str}
    kinds |= dict.fromkeys(("config", "inputs", "outside", "used", "files"), dict)
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is not a table")
    for name, kind in kinds.items():
        if not isinstance(manifest.get(name), kind):
            raise ValueError(f"its manifest has no {name}, or another kind of value there")
    if not isinstance(manifest.get("wall_seconds"), int | float):
        raise ValueError("its manifest has no wall_seconds, or another kind of value there")
    try:
        known = datetime.fromisoformat(manifest["started"]).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise ValueError("its manifest does not say when it was made")
    for name, facts in manifest["files"].items():
        if not isinstance(facts, dict) or not isinstance(facts.get("bytes"), int) or "sha256" not in facts:
            raise ValueError(f"its manifest has no size and digest of {name}")
    return manifest


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of an artifact but its manifest, by path inside the folder."""
    return {name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for name, p in _files(folder).items()}


def check(folder: Path, key: str) -> dict[str, Any]:
    """Return the manifest of an artifact whose files and manifest are what they were when it was made.

    The key is computed again from the request in the manifest, the set of files is compared, and so is the
    digest of the manifest. Artifacts made before manifests had a digest are accepted without it.

    Raises:
        ValueError: anything differs; says what.
    """
    manifest = read_manifest(folder)
    if manifest["key"] != key:
        raise ValueError("its manifest belongs to another request")
    names = ("stage", "stage_version", "slug", "config", "inputs", "outside")
    if Request(*(manifest[name] for name in names)).key != key:
        raise ValueError("its manifest does not match its key")
    if "digest" in manifest and sealed(manifest)["digest"] != manifest["digest"]:
        raise ValueError("its manifest does not match its digest")
    files = _files(folder)
    for name in sorted(files.keys() ^ manifest["files"].keys()):
        raise ValueError(f"{name} is {'not part of it' if name in files else 'missing'}")
    for name, facts in manifest["files"].items():
        if files[name].stat().st_size != facts["bytes"] or sha256(files[name]) != facts["sha256"]:
            raise ValueError(f"{name} does not match its digest")
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {n: p for n, p in files.items() if n != MANIFEST and not _STRAY.fullmatch(p.name)}
