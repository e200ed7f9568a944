"""Texts that a machine without a hub has: functions of installed libraries, translated catalogues.

Files are found through ``importlib.metadata`` and read as text; no module of a library is imported to
look at it. Only distributions that ``requirements.lock`` pins are read (never the standard library nor
realign), so the texts depend on the lock and not on the Python version.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from realign.errors import RealignError
from realign.texts.splits import Split, digest, normalise, side

CORPUS_VERSION = 1
FUNCTION_PACKAGES = (
    "numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "seaborn", "networkx", "sympy", "polars",
    "torch", "transformers", "datasets", "sentence-transformers", "huggingface_hub", "SQLAlchemy",
)  # fmt: skip
CATALOGUE_PACKAGES = ("Sphinx", "babel")
# Tests and generated or vendored code; transformers' models repeat one another's functions.
SKIPPED_FOLDERS = {
    "tests", "test", "testing", "_testing", "_vendor", "vendored", "externals", "__pycache__", "models",
    "_inductor", "_dynamo", "_refs", "_decomp", "_numpy", "_C", "dialects", "generated",
    "ao", "fx", "onnx", "distributed", "_export", "_functorch", "jit", "quantizers",
}  # fmt: skip
LANGUAGES = (
    "ar", "bn", "ca", "cs", "de", "el", "es", "et", "fa", "fr", "hi", "hu", "id", "it", "ja", "ko", "nl",
    "pl", "pt_BR", "ru", "sv", "tr", "uk_UA", "vi", "zh_CN",
)  # fmt: skip


@dataclass(frozen=True)
class Function:
    """One documented function of an installed library."""

    name: str
    """Bare name; decides the split."""
    package: str
    module: str
    summary: str
    """First paragraph of the docstring, one line, markup removed."""
    description: str
    """Prose after the summary up to the first section; may be empty."""
    parameters: str
    """Text of the parameters section; may be empty."""
    source: str
    """Source without decorators and docstring, dedented."""


@dataclass(frozen=True)
class Message:
    """One English message with its translations by language code."""

    key: str
    text: str
    translations: dict[str, str]


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package, without local build tags such as ``+cpu``.

    Raises:
        RealignError: if one is not installed.
    """
    installed = {}
    for package in packages:
        try:
            installed[package] = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            raise RealignError(
                f"the text corpus needs the package {package}, which is not installed; install requirements.lock"
            ) from None
    return installed


def functions(split: Split | None = None, packages: tuple[str, ...] = ()) -> list[Function]:
    """Return documented functions of installed libraries, without duplicates.

    No two share a summary or a source, and at most three share a bare name. All functions of one bare
    name are on one side of the split, so the same function in two libraries is never on both. Parsing takes
    half a minute; the result is kept in ``REALIGN_CACHE`` where that is set.

    Args:
        split: ``train``, ``eval`` or None for all.
        packages: the libraries; empty is :data:`FUNCTION_PACKAGES`, those that training reads.
    """
    return [
        f
        for f in _functions(os.environ.get("REALIGN_CACHE", ""), packages or FUNCTION_PACKAGES)
        if split is None or side("function", f.name) == split
    ]


@lru_cache(maxsize=4)
def _functions(folder: str, packages: tuple[str, ...]) -> tuple[Function, ...]:
    stamp = json.dumps([CORPUS_VERSION, versions(packages)], sort_keys=True)
    path = Path(folder) / f"functions-{digest([stamp])[:12]}.jsonl" if folder else None
    if path is not None and path.is_file():
        try:
            with path.open(encoding="utf-8") as lines:
                return tuple(Function(**json.loads(line)) for line in lines)
        except (OSError, ValueError, TypeError):
            pass  # a damaged cache is rebuilt
    parsed = tuple(_unique(f for package in packages for f in _parse_package(package)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(asdict(f)) + "\n" for f in parsed)
        part.replace(path)
    return parsed


def _unique(functions: Iterable[Function]) -> Iterator[Function]:
    seen: set[str] = set()
    names: dict[str, int] = {}
    for f in functions:
        texts = {normalise(f.summary), normalise(f.source)} | ({normalise(f.description)} - {""})
        if texts & seen or names.get(f.name, 0) >= 3:
            continue
        seen |= texts
        names[f.name] = names.get(f.name, 0) + 1
        yield f


def _parse_package(package: str) -> list[Function]:
    files = metadata.distribution(package).files or []
    paths = sorted(
        (str(f), Path(str(f.locate())))
        for f in files
        if f.suffix == ".py" and not SKIPPED_FOLDERS & set(f.parts[:-1]) and not f.name.startswith("test_")
    )
    return [
        function
        for name, path in paths
        for function in parse_source(path.read_bytes(), package, name.removesuffix(".py").replace("/", "."))
    ]


def parse_source(data: bytes, package: str, module: str) -> list[Function]:
    """Return the documented functions in one source file (none where it does not parse)."""
    if b'"""' not in data:
        return []
    try:
        text = data.decode("utf-8")
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return []
    lines = text.splitlines()
    functions = []
    for node in _definitions(tree):
        if node.name.startswith("__"):
            continue
        doc = ast.get_docstring(node)
        if not doc or "%(" in doc or len(node.body) < 2:
            continue  # a template that is filled in at import, or nothing but a docstring
        summary, description, parameters = split_docstring(doc)
        if not 4 <= len(summary.split()) <= 40 or not summary.isascii():
            continue
        source = _source_without_docstring(node, lines)
        if len(source) <= 6000:
            functions.append(Function(node.name, package, module, summary, description, parameters, source))
    return functions


def _definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    # Statements only: functions inside functions are not part of a library's surface.
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.ClassDef | ast.If | ast.Try):
            yield from _definitions(child)


def _source_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    # The original lines rather than ast.unparse, whose output changes between Python versions.
    first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
    kept = lines[node.lineno - 1 : first - 1] + lines[last : node.end_lineno]
    margin = len(kept[0]) - len(kept[0].lstrip())
    return "\n".join(k[margin:].rstrip() for k in kept if k.strip())


SECTION = re.compile(
    r"^(parameters?|other parameters|args|arguments|returns?|yields?|raises|examples?|notes?|references|"
    r"see also|attributes|warnings?|methods|keyword args|shape|usage|todo|explanation|inputs?|outputs?)\s*:{0,2}\s*$",
    re.IGNORECASE,
)


def split_docstring(doc: str) -> tuple[str, str, str]:
    """Split a docstring (numpydoc, Google, Sphinx or plain) into summary, description and parameters.

    Returns:
        Three strings of plain prose; the last two may be empty. Code, directives and all other
        sections are left out (``Explanation`` sections count as description).
    """
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in doc.splitlines():
        bare = line.strip()
        head = SECTION.match(bare)
        if head and not line.startswith(" "):
            current = "" if head[1].lower() == "explanation" else head[1].lower()
            sections.setdefault(current, []).append("")
        elif bare.startswith(":param"):
            sections.setdefault("parameters", []).append(re.sub(r"^:param\s+", "", bare))
            current = "parameters"
        elif bare.startswith(":") and re.match(r":(return|rtype|raises|type)", bare):
            current = "other"
            sections.setdefault("other", [])
        elif not re.fullmatch(r"[-=~^*]{3,}", bare):
            sections[current].append(line)
    paragraphs = [p for p in (_prose(p) for p in re.split(r"\n\s*\n", "\n".join(sections[""]))) if p]
    summary = paragraphs[0] if paragraphs else ""
    first, dot, rest = summary.partition(". ")
    if dot and len(first.split()) >= 4:
        summary, paragraphs[1:1] = first + ".", [rest]
    names = ("parameters", "parameter", "args", "arguments")
    parameters = _plain(" ".join(" ".join(x) for k, x in sections.items() if k in names))
    return summary, " ".join(paragraphs[1:]), parameters


def _prose(paragraph: str) -> str:
    lines = paragraph.strip("\n").splitlines()
    if not lines or lines[0].lstrip().startswith((">>>", "..", "```", "|", "+-")):
        return ""
    if len(lines[0]) - len(lines[0].lstrip()) >= 4:
        return ""  # an indented block is code or a formula
    return _plain(" ".join(lines))


def _plain(text: str) -> str:
    text = re.sub(r":[\w:+-]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", text)  # roles
    text = re.sub(r"`{1,2}([^`]*)`{1,2}_{0,2}", r"\1", text)
    return " ".join(text.replace("::", ":").split())


def catalogues(split: Split | None = None) -> list[Message]:
    """Return English messages with translations into up to 25 languages.

    They come from Sphinx's gettext catalogues (two words or more, translated, not fuzzy). The split is by
    message, so no translation of one message is on two sides; a text that two messages share is kept
    with the first only.
    """
    return [m for m in _catalogues() if split is None or side("message", m.key) == split]


@lru_cache(maxsize=1)
def _catalogues() -> tuple[Message, ...]:
    from babel.messages.pofile import read_po

    root = next(
        Path(str(f.locate())).parents[2]
        for f in metadata.distribution("Sphinx").files or []
        if f.parts[-4:] == ("locale", "ja", "LC_MESSAGES", "sphinx.po")
    )
    table: dict[str, dict[str, str]] = {}
    for language in LANGUAGES:
        with (root / language / "LC_MESSAGES" / "sphinx.po").open("rb") as stream:
            for entry in read_po(stream, locale=language):
                if isinstance(entry.id, str) and isinstance(entry.string, str) and not entry.fuzzy:
                    table.setdefault(entry.id, {})[language] = entry.string
    return _messages(table)


def _messages(table: Mapping[str, Mapping[str, str]]) -> tuple[Message, ...]:
    owner: dict[str, str] = {}
    messages = []
    for text, translations in sorted(table.items()):
        if len(text.split()) < 2 or not re.search(r"[a-zA-Z]{3}", text):
            continue
        if owner.setdefault(normalise(text), text) != text:
            continue
        own = {
            language: " ".join(value.split())
            for language, value in translations.items()
            if value
            and normalise(value) != normalise(text)
            and owner.setdefault(normalise(value), text) == text
        }
        if own:
            messages.append(Message(text, " ".join(text.split()), own))
    return tuple(messages)
