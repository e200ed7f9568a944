"""`make lab` in a real browser: a chapter opens as a notebook, runs, shows a table, and saving leaves a clone clean."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from playwright.sync_api import Page, expect

from realign import paths

CHAPTER = "rq4_mechanism.py"  # its first table says how siblings were tuned: nothing is computed for it
OUTPUTS = ".jp-Notebook .jp-OutputArea-output"


def git(clone: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *who, *arguments], cwd=clone, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone holds that `make lab` needs, under git, the chapters with the smoke profile."""
    folder = tmp_path / "clone"
    made = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints")
    shutil.copytree(paths.root() / "notebooks", folder / "notebooks", ignore=made)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", ".gitignore"):
        shutil.copy(paths.root() / name, folder / name)
    (folder / "data").mkdir()
    for file in (paths.root() / "data").glob("*.toml"):
        shutil.copy(file, folder / "data" / file.name)
    chapter = folder / "notebooks" / CHAPTER
    source = chapter.read_text(encoding="utf-8")
    assert 'profile = "laptop"' in source
    chapter.write_text(source.replace('profile = "laptop"', 'profile = "smoke"'), encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a clone")
    return folder


@pytest.fixture
def lab(clone: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `make lab`'s server, on a free port of this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": False, "allow_root": True}
    (tmp_path / "jupyter").mkdir()
    (tmp_path / "jupyter" / "jupyter_server_config.json").write_text(
        json.dumps({"ServerApp": settings, "IdentityProvider": {"token": "lab"}})
    )
    places = {
        "JUPYTER_CONFIG_DIR": "jupyter", "JUPYTER_DATA_DIR": "share", "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython", "REALIGN_STORE": "store",
    }  # fmt: skip
    environment = {**os.environ, **{name: str(tmp_path / place) for name, place in places.items()}}
    environment |= {"REALIGN_ROOT": str(clone), "REALIGN_FRESH": "1"}
    # The environment is the one that runs this test; make is told that it is ready.
    command = ["make", "-o", f"{sys.prefix}/.ready", "lab", f"VENV={sys.prefix}"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=clone, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{address}/api/status?token=lab", server, tmp_path / "lab.log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def wait_until_it_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(log.read_text(errors="replace")[-2000:])


def run_until_a_table(page: Page) -> None:
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=40_000)
    page.locator(".jp-Notebook .jp-Cell").first.click()
    table = page.locator(f"{OUTPUTS} table")
    for _ in range(8):
        page.keyboard.press("Shift+Enter")
    expect(table.first).to_contain_text("reason", timeout=40_000)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_a_chapter_opens_runs_and_saves_in_jupyterlab_and_the_clone_stays_clean(
    clone: Path, lab: str
) -> None:
    chapter = clone / "notebooks" / CHAPTER
    before = chapter.stat().st_mtime_ns
    with browser.chromium() as opened:
        page = opened.new_page(viewport={"width": 1280, "height": 1600})
        page.goto(f"{lab}/lab/tree/{CHAPTER}?token=lab")
        page.locator(".jp-Notebook").wait_for(timeout=40_000)  # not as a text file
        run_until_a_table(page)
        assert not page.locator(f"{OUTPUTS}[data-mime-type='application/vnd.jupyter.error']").count()
        page.keyboard.press("Control+s")
        end = time.monotonic() + 15
        while chapter.stat().st_mtime_ns == before and time.monotonic() < end:
            page.wait_for_timeout(200)
    assert chapter.stat().st_mtime_ns != before, "it was not saved"
    assert git(clone, "status", "--porcelain") == ""
