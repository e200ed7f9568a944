"""A file of a package index, fetched by its name and digest without pip, which would run set-up code of the package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from realign import progress
from realign.errors import RealignError

PYPI = "https://pypi.org/simple"
JSON = "application/vnd.pypi.simple.v1+json"
TIMEOUT_SECONDS = 60
TRIES = 5
"""How often a download whose connection is cut is taken up where it stopped."""


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(project: str, file: str, expected: str, target: Path) -> None:
    """Download a file of a project from pip's index to ``target``; what a killed download left is taken up.

    Raises:
        RealignError: the index cannot be reached, does not have the file, or has another one of that name.
    """
    part = target.with_name(f"{target.name}.part")
    settings = _pip_settings()
    try:
        address = _address(project, file, settings)
        for _ in range(2):  # what an interrupted download left may be damaged: then once more from its start
            left = part.is_file()
            _download(address, part, settings)
            if (digest := sha256(part)) == expected:
                part.replace(target)
                return
            part.unlink()
            if not left:
                break
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise RealignError(
            f"cannot fetch {file} from the package index ({str(reason)[:160] or type(error).__name__}); run the same "
            f"command again with a network, or copy the file from elsewhere to {target}"
        ) from None
    raise RealignError(
        f"{file} of the package index has sha256 {digest[:12]}..., not the pinned {expected[:12]}...: point pip at "
        "an index that has the file that is named"
    )


def _pip_settings() -> dict[str, str]:
    """Return pip's own settings by name, those of the environment last: ``{"index-url": ..., "cert": ...}``."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = re.findall(r"^(\w+|:env:)\.([\w-]+)='(.*)'$", answer, re.MULTILINE)
    order = {"global": 0, ":env:": 2}
    return {name: value for section, name, value in sorted(lines, key=lambda each: order.get(each[0], 1))}


def _open(address: str, settings: dict[str, str], headers: dict[str, str] | None = None) -> IO[bytes]:
    scheme = urlsplit(address).scheme
    if scheme not in ("http", "https", "file"):
        raise ValueError(f"{scheme or 'no'} address")
    certificates = settings.get("cert") if scheme == "https" else None
    context = ssl.create_default_context(cafile=certificates) if certificates else None
    request = urllib.request.Request(address, headers=headers or {})
    stream: IO[bytes] = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context)
    return stream


class _Links(HTMLParser):
    """Links of an HTML page of an index (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link."""
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _address(project: str, file: str, settings: dict[str, str]) -> str:
    """Return where the index has a file: by its simple API, JSON (PEP 691) or HTML (PEP 503)."""
    indexes = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
    failure: Exception | None = None
    for index in indexes:
        page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
        if page.startswith("file:"):
            page += "index.html"
        try:
            with _open(page, settings, {"Accept": f"{JSON}, text/html;q=0.1"}) as answer:
                links = _links(answer)
        except (OSError, HTTPException) as error:
            failure = failure or error
            continue
        for link in links:
            address = urldefrag(urljoin(page, link)).url
            if unquote(urlsplit(address).path).rpartition("/")[2] == file:
                return address
    raise failure or ValueError(f"it has no file of that name for {project}")


def _links(answer: Any) -> list[str]:
    text = answer.read().decode()
    if JSON in answer.headers.get("Content-Type", ""):
        return [entry["url"] for entry in json.loads(text)["files"]]
    parser = _Links()
    parser.feed(text)
    return parser.links


def _download(address: str, part: Path, settings: dict[str, str]) -> None:
    """Add to ``part`` what it lacks of a file; a cut connection is taken up as long as more of the file comes."""
    for left in reversed(range(TRIES)):
        try:
            if _rest(address, part, settings):
                return
        except urllib.error.HTTPError:
            raise
        except (OSError, HTTPException):
            if not left:
                raise
    raise ValueError(f"the connection was cut {TRIES} times")


def _rest(address: str, part: Path, settings: dict[str, str]) -> bool:
    """Fetch the rest of a file in one request, and return whether all of it has come."""
    have = part.stat().st_size if part.is_file() else 0
    try:
        answer: Any = _open(address, settings, {"Range": f"bytes={have}-"} if have else None)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # as long as the file, or longer: its digest was wrong, or it was never compared
        return False
    with answer:
        if getattr(answer, "status", 200) != 206:  # a server that knows no ranges begins again
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as sink,
            progress.bar(total, desc=part.name.removesuffix(".part"), unit="B", initial=have) as bar,
        ):
            while block := answer.read(1 << 18):
                sink.write(block)
                bar.update(len(block))
            sink.flush()
            os.fsync(sink.fileno())
        return total is None or part.stat().st_size >= total
