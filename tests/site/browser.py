"""A real Chromium, driven over its debugging protocol: open a page, collect everything that goes wrong."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-port=0", "--window-size=1280,1600"),
)


def executable() -> str | None:
    """Debian's Chromium, or any other on the path."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Visit:
    """What one page did: requests by address, failures, messages of the console."""

    url: str
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


class Browser:
    """One tab of a headless Chromium."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._last = 0
        self._visit = Visit("")
        self._pending: dict[str, str] = {}
        self._loaded = False
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are recorded."""
        self._last += 1
        mine = self._last
        self._socket.send(json.dumps({"id": mine, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == mine:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._record(message)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page (promises are awaited)."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def open(self, url: str, timeout: float = 30) -> Visit:
        """Open a page and wait until it has loaded and asked for nothing for half a second."""
        self._visit, self._pending, self._loaded = Visit(url), {}, False
        self.call("Page.navigate", url=url)
        end, quiet = time.monotonic() + timeout, time.monotonic()
        while time.monotonic() < end:
            self.evaluate("new Promise(done => setTimeout(done, 50))")
            if not self._loaded or self._pending:
                quiet = time.monotonic()
            elif time.monotonic() - quiet > 0.5:
                return self._visit
        raise TimeoutError(f"{url} did not come to rest; still waiting for {list(self._pending.values())}")

    def _record(self, message: dict[str, Any]) -> None:
        kind, data, visit = message.get("method"), message.get("params", {}), self._visit
        if kind == "Network.requestWillBeSent":
            visit.requests.append(data["request"]["url"])
            self._pending[data["requestId"]] = data["request"]["url"]
        elif kind == "Network.responseReceived" and data["response"]["status"] >= 400:
            visit.failed.append(f"{data['response']['status']} {data['response']['url']}")
        elif kind == "Network.loadingFinished":
            self._pending.pop(data["requestId"], None)
        elif kind == "Network.loadingFailed":
            address = self._pending.pop(data["requestId"], "?")
            if not data.get("canceled"):
                visit.failed.append(f"{data['errorText']} {address}")
        elif kind == "Runtime.exceptionThrown":
            visit.console.append(str(data["exceptionDetails"].get("exception", data["exceptionDetails"])))
        elif kind == "Runtime.consoleAPICalled" and data["type"] in ("error", "assert"):
            visit.console.append(" ".join(str(a.get("value", a)) for a in data["args"]))
        elif kind == "Log.entryAdded" and data["entry"]["level"] == "error":
            visit.console.append(f"{data['entry']['text']} {data['entry'].get('url', '')}")
        elif kind == "Page.loadEventFired":
            self._loaded = True


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with an empty profile and give one tab; its process ends with the block."""
    import websocket

    command = executable()
    assert command is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _port(process, Path(profile) / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                tab = next(t for t in json.load(answer) if t["type"] == "page")
            socket = websocket.create_connection(
                tab["webSocketDebuggerUrl"], timeout=30, suppress_origin=True, http_no_proxy=["127.0.0.1"]
            )
            yield Browser(socket)
            socket.close()
        finally:
            process.terminate()
            process.wait(timeout=20)


def _port(process: subprocess.Popen[bytes], file: Path, timeout: float = 30) -> int:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if file.is_file() and (found := re.match(r"\d+", file.read_text())):
            return int(found[0])
        time.sleep(0.05)
    raise RuntimeError(f"Chromium did not start (exit code {process.poll()})")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on localhost and give its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
