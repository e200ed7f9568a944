"""Processes that end with the one that started them, whatever ends it: a signal, a kill, a crash."""

from __future__ import annotations

import os
import select
import time
from threading import Thread


def end_with(pid: int) -> None:
    """End this process at once when another one ends, or if it is gone already; what it writes is cut off.

    Args:
        pid: of a process on this machine, usually the one that started this one.
    """
    Thread(target=_watch, args=(pid, os.getppid()), name=f"ends with {pid}", daemon=True).start()


def _watch(pid: int, parent: int) -> None:
    try:
        watched = select.poll()
        watched.register(os.pidfd_open(pid), select.POLLIN)
        watched.poll()
    except ProcessLookupError:
        pass
    except (AttributeError, OSError):  # not Linux, or an old one
        while _alive(pid) and os.getppid() == parent:
            time.sleep(0.5)
    os._exit(1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
