"""Archives are fetched by name and digest, resumed after a cut, and read without running anything of theirs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from realign import paths
from realign.errors import RealignError
from realign.texts import archives, fetch
from realign.texts.archives import Archive

TASKS = "data-1.0/tasks"
MEMBERS = {
    f"{TASKS}/one/task.json": b'{"a": 1}',
    f"{TASKS}/two/task.json": b"2" * 300_000,
    "data-1.0/setup.py": b"1/0",
}


def tar(members: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as file:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
        for entry in more:
            file.addfile(entry)
    return sink.getvalue()


def wheel(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return sink.getvalue()


def archive(
    content: bytes, file: str = "data-1.0.tar.gz", members: tuple[str, ...] = (f"{TASKS}/",)
) -> Archive:
    return Archive("Some_Data", "1.0", file, hashlib.sha256(content).hexdigest(), "mit", members)


class Index:
    """A package index on this machine: JSON or HTML pages, ranges, and connections that can be cut."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.html = self.no_ranges = False
        self.cut_after: list[
            int
        ] = []  # of each coming answer, the bytes that are sent before the connection ends
        self.asked: list[tuple[str, str]] = []  # path, range


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    state = Index()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range", "")))
            if self.path == "/simple/some-data/":
                names = [f"../../files/{name}" for name in state.files]
                if state.html:
                    page = "".join(f'<a href="{n}#sha256=0">{n}</a>' for n in names).encode()
                else:
                    page = str({"files": [{"url": n} for n in names]}).replace("'", '"').encode()
                return self.answer(200, page, "text/html" if state.html else fetch.JSON)
            content = state.files.get(self.path.removeprefix("/files/"))
            if content is None:
                return self.answer(404, b"", "text/plain")
            asked = self.headers.get("Range")
            if asked and not state.no_ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    return self.answer(416, b"", "text/plain")
                return self.answer(206, content[start:], "application/gzip")
            return self.answer(200, content, "application/gzip")

        def answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            is_file = self.path.startswith("/files/")
            self.wfile.write(body[: state.cut_after.pop(0)] if is_file and state.cut_after else body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("REALIGN_CACHE", str(tmp_path / "cache"))
    address = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setattr(fetch, "_pip_settings", lambda: {"index-url": address})
    yield state
    server.shutdown()
    server.server_close()


def place(name: str = "") -> Path:
    return paths.cache_dir() / "archives" / name


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
def test_needed_members_are_read_and_nothing_else_is_written(index: Index, html: bool) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"], index.html = content, html
    mine = archive(content)
    assert archives.names(mine) == [f"{TASKS}/one/task.json", f"{TASKS}/two/task.json"]
    assert archives.names(mine, "*/two/*") == [f"{TASKS}/two/task.json"]
    assert archives.read(mine, f"{TASKS}/one/task.json") == MEMBERS[f"{TASKS}/one/task.json"]
    assert not list(place().rglob("setup.py"))
    with pytest.raises(RealignError, match=r"unknown member of data-1\.0\.tar\.gz 'data-1\.0/setup\.py'"):
        archives.read(mine, "data-1.0/setup.py")
    assert len(index.asked) == 2, "the page and the file, once"


def test_a_wheel_is_read_in_the_same_way(index: Index) -> None:
    content = wheel({"data/v0.json": b"[]", "data/code.py": b"1/0"})
    index.files["data-1.0-py3-none-any.whl"] = content
    mine = archive(content, "data-1.0-py3-none-any.whl", ("data/*.json",))
    assert archives.read(mine, "data/v0.json") == b"[]"
    assert archives.names(mine) == ["data/v0.json"]


def test_a_cut_connection_is_taken_up_where_it_ended(index: Index) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"], index.cut_after = content, [100, 50]
    assert archives.read(archive(content), f"{TASKS}/one/task.json")
    assert [asked for path, asked in index.asked if path.startswith("/files/")] == [
        "",
        "bytes=100-",
        "bytes=150-",
    ]


def test_what_a_killed_download_left_is_taken_up(index: Index) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"] = content
    place().mkdir(parents=True)
    place("data-1.0.tar.gz.part").write_bytes(content[:70])
    archives.read(archive(content), f"{TASKS}/one/task.json")
    assert index.asked[-1][1] == "bytes=70-"
    assert not place("data-1.0.tar.gz.part").exists()


@pytest.mark.parametrize("left", [b"x" * 70, b"x" * 10_000], ids=["other bytes", "longer than the file"])
def test_a_damaged_rest_of_a_download_is_thrown_away(index: Index, left: bytes) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"] = content
    place().mkdir(parents=True)
    place("data-1.0.tar.gz.part").write_bytes(left)
    assert archives.read(archive(content), f"{TASKS}/one/task.json")


def test_a_server_without_ranges_begins_again(index: Index) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"], index.cut_after, index.no_ranges = content, [100], True
    assert archives.read(archive(content), f"{TASKS}/one/task.json")


def test_another_file_of_the_name_is_refused_and_not_kept(index: Index) -> None:
    index.files["data-1.0.tar.gz"] = tar({f"{TASKS}/one/task.json": b"other"})
    with pytest.raises(RealignError, match=r"has sha256 \w{12}\.\.\., not the pinned \w{12}"):
        archives.names(archive(tar(MEMBERS)))
    assert [path.suffix for path in place().rglob("*") if path.is_file()] == [".lock"]


def test_a_file_that_the_index_lacks_is_one_sentence(index: Index) -> None:
    with pytest.raises(
        RealignError, match=r"cannot fetch data-1\.0\.tar\.gz .*no file of that name for Some_Data"
    ):
        archives.names(archive(tar(MEMBERS)))


def test_without_a_network_the_sentence_says_what_to_do(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_pip_settings", lambda: {"index-url": "http://127.0.0.1:9/simple"})
    with pytest.raises(
        RealignError, match=r"cannot fetch .*refused.*with a network, or copy the file .* to .*archives"
    ):
        archives.names(archive(tar(MEMBERS)))


def test_a_file_that_was_copied_here_needs_no_network(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tar(MEMBERS)
    place().mkdir(parents=True)
    place("data-1.0.tar.gz").write_bytes(content)
    monkeypatch.setattr(fetch, "_pip_settings", lambda: pytest.fail("asked the index"))
    assert archives.read(archive(content), f"{TASKS}/one/task.json")


def test_a_damaged_member_or_archive_is_made_again(index: Index) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"] = content
    mine, name = archive(content), f"{TASKS}/two/task.json"
    archives.read(mine, name)
    (copy,) = place().rglob("two/task.json")
    copy.write_bytes(b"damaged")
    assert archives.read(mine, name) == MEMBERS[name]
    copy.unlink()
    place("data-1.0.tar.gz").write_bytes(content[:50])
    assert archives.read(mine, name) == MEMBERS[name]
    assert [path for path, _ in index.asked].count("/files/data-1.0.tar.gz") == 2


def test_another_need_keeps_what_was_needed_before(index: Index) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"] = content
    one, two = (dataclasses.replace(archive(content), members=(f"{TASKS}/{x}/*",)) for x in ("one", "two"))
    assert archives.names(one) == [f"{TASKS}/one/task.json"]
    assert archives.names(two) == [f"{TASKS}/two/task.json"]
    archives._index_of.cache_clear()
    (copy,) = place().rglob("one/task.json")
    written = copy.stat().st_mtime_ns
    assert archives.read(one, f"{TASKS}/one/task.json")
    assert copy.stat().st_mtime_ns == written


def link(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    ("content", "file"),
    [
        (tar({f"{TASKS}/../../../evil": b"1"}), "data-1.0.tar.gz"),
        (tar({}, link(f"{TASKS}/passwd")), "data-1.0.tar.gz"),
        (wheel({f"{TASKS}/../../evil": b"1"}), "data-1.0-py3-none-any.whl"),
    ],
    ids=["parent folder", "link", "parent folder in a wheel"],
)
def test_a_member_that_is_no_plain_file_inside_is_refused(index: Index, content: bytes, file: str) -> None:
    index.files[file] = content
    with pytest.raises(RealignError, match="is no plain file inside the archive"):
        archives.names(archive(content, file))
    assert not list(paths.cache_dir().rglob("evil"))


def test_a_member_above_the_limit_is_refused(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"] = content
    monkeypatch.setattr(archives, "MEMBER_BYTES", 1000)
    with pytest.raises(RealignError, match="or is too large"):
        archives.names(archive(content))


def test_a_file_with_the_pinned_digest_that_is_no_archive_is_one_sentence(index: Index) -> None:
    index.files["data-1.0.tar.gz"] = b"no archive"
    with pytest.raises(RealignError, match=r"data-1\.0\.tar\.gz cannot be read"):
        archives.names(archive(b"no archive"))


def test_two_processes_at_once_fetch_the_archive_once(index: Index) -> None:
    content = tar(MEMBERS)
    index.files["data-1.0.tar.gz"] = content
    program = (
        "import sys; from realign.texts import archives, fetch\n"
        f"fetch._pip_settings = lambda: {fetch._pip_settings()!r}\n"
        f"mine = archives.{archive(content)!r}\n"
        f"sys.stdout.write(archives.read(mine, {TASKS + '/one/task.json'!r}).decode())"
    )
    start = functools.partial(subprocess.Popen, [sys.executable, "-c", program], stdout=subprocess.PIPE)
    both = [start(), start()]
    assert [process.communicate()[0] for process in both] == [MEMBERS[f"{TASKS}/one/task.json"]] * 2
    assert [path for path, _ in index.asked].count("/files/data-1.0.tar.gz") == 1


def test_pips_own_settings_say_which_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/mine/")
    assert fetch._pip_settings()["index-url"] == "http://127.0.0.1:9/mine/"
