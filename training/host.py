"""What this machine gives to this process: processors and memory, a container's limits included. Stdlib only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def processors() -> int:
    """Those that this process may use at once: by its affinity, and by a container's share of time, rounded up."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; also hears PYTHON_CPU_COUNT
        allowed = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *_quotas()]))


def memory_bytes() -> int:
    """The machine's memory, or a container's limit where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_memory_limits()])


def _quotas() -> Iterator[int]:
    """Whole processors that each enclosing cgroup grants, where it limits them."""
    for folder in _folders("cpu"):
        quota, period = _numbers(folder / "cpu.max")  # version 2: "150000 100000" or "max 100000"
        if quota is None:
            quota, _ = _numbers(folder / "cpu.cfs_quota_us")  # version 1: -1 without a limit
            period, _ = _numbers(folder / "cpu.cfs_period_us")
        if quota and period and quota > 0:
            yield -(-quota // period)


def _memory_limits() -> Iterator[int]:
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit, _ = _numbers(folder / name)
            if limit:
                yield limit


def _folders(controller: str) -> Iterator[Path]:
    """Of the cgroup that this process is in, and of all around it, which limit it too."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = next((each for each in (CGROUPS / controllers, CGROUPS / controller) if each.is_dir()), CGROUPS)
        inner = (root if controllers else CGROUPS) / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(CGROUPS):
                break
            yield folder


def _numbers(path: Path) -> tuple[int | None, int | None]:
    """The first two words of a file as numbers; None for a word that is none ("max"), or is not there."""
    try:
        words = path.read_text().split()
    except OSError:
        return None, None
    first, second = (*words, "", "")[:2]
    return (int(first) if first.lstrip("-").isdigit() else None), (int(second) if second.isdigit() else None)
