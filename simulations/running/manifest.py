"""On what a run was trained: versions and machine, kept beside its hashes and part of none of them. No Django.

Equal configurations give equal bits on one kind of machine: where two runs differ, this tells whether they may.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

VERSION = "0.2.0"  # of fedsite; pyproject.toml says the same
KIND = ("torch", "numpy", "machine", "processor", "instructions", "device", "gpu")  # what rounding may depend on


def of_this_process(device: str) -> dict[str, Any]:
    """Of a process that trains on `device`. It loads PyTorch."""
    import numpy
    import torch

    from training import host

    return {
        "fedsite": VERSION,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": host.processors() if torch.get_num_threads() == 1 else 1,
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None,
    }


def _processor() -> str:
    """Its name as its maker says it; the architecture where nobody tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def same_kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether what one computes the other computes to the last bit."""
    return all(one.get(name) == other.get(name) for name in KIND)


def in_words(manifest: Mapping[str, Any]) -> str:
    """In a line, for a log and a page."""
    processor = f"{manifest['processor']} ({manifest['machine']}, {manifest['instructions']})"
    threads = f"{manifest['threads']} thread{'s' if manifest['threads'] != 1 else ''}"
    return (
        f"fedsite {manifest['fedsite']}, PyTorch {manifest['torch']}, Python {manifest['python']} on "
        f"{manifest['system']}, {manifest['gpu'] or processor}, {threads}"
    )
