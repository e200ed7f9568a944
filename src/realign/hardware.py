"""The machine: one decision about device and dtype, memory, and processes that end with another one."""

from __future__ import annotations

import os
import platform
import resource
import select
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from realign.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Compute:
    """Where and in which precision a model runs, and why."""

    device: torch.device
    dtype: torch.dtype
    reason: str


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this CPU (empty where the system does not tell)."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def resolve(device: str = "auto", dtype: str = "auto") -> Compute:
    """Turn the policy ``auto`` into what this hardware does well.

    bfloat16 on CUDA devices that compute in it and on CPUs with AVX512-BF16 or AMX; float32
    elsewhere. float16 is never chosen: it overflows, and CPUs emulate it slowly.

    Raises:
        UsageError: for a device that is not there or a dtype that is not offered.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"device '{device}' was asked for but torch {torch.__version__} sees no GPU; use 'cpu'"
        )
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device '{device}' (use 'auto', 'cpu' or 'cuda')") from None
    if dtype not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"unknown dtype '{dtype}' (use 'auto', 'float32' or 'bfloat16')")
    if dtype != "auto":
        return Compute(place, getattr(torch, dtype), "asked for")
    if place.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Compute(place, torch.bfloat16, "this GPU computes in bfloat16")
        return Compute(place, torch.float32, "this GPU has no bfloat16 units")
    fast = sorted(f for f in ("avx512_bf16", "amx_bf16") if f in cpu_flags())
    if fast:
        return Compute(place, torch.bfloat16, f"this CPU has {' and '.join(fast)}")
    return Compute(place, torch.float32, "this CPU has neither AVX512-BF16 nor AMX")


def peak_memory_gib() -> float:
    """Return this process's peak resident memory so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 3)


def describe() -> dict[str, Any]:
    """Describe the machine for manifests and benchmarks: CPU, cores, memory, GPU, system."""
    import torch

    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    memory = None
    if hasattr(os, "sysconf"):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


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
