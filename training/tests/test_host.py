"""Processors and memory: a container's limits are seen, in both versions of cgroups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import host


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """`cgroups(own, {file: text})`: the files that a kernel would show."""
    monkeypatch.setattr(host, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host, "OWN_CGROUPS", tmp_path / "own")

    def lay(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return lay


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/pod/box\n", {"pod/box/cpu.max": "100000 100000\n"}),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "50000 100000\n"}),
        ("0::/\n", {"cpu.max": "99999 100000\n"}),
        (
            "4:cpu,cpuacct:/box\n",
            {"cpu,cpuacct/box/cpu.cfs_quota_us": "100000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"},
        ),
        ("4:cpu:/box\n1:name=systemd:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "10000", "cpu/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_quota_of_one_processor_is_one_thread(cgroups, monkeypatch, own, files):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    cgroups(own, files)
    assert host.processors() == 1


@pytest.mark.parametrize(
    ("own", "files", "processors"),
    [
        ("0::/box\n", {"box/cpu.max": "250000 100000\n"}, 3),
        ("0::/box\n", {"box/cpu.max": "max 100000\n"}, 8),
        ("4:cpu:/box\n", {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, 8),
        ("0::/box\n", {}, 8),
    ],
)
def test_a_larger_quota_is_rounded_up(cgroups, monkeypatch, own, files, processors):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    cgroups(own, files)
    assert host.processors() == processors


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/pod/box\n", {"pod/box/memory.max": "max\n", "pod/memory.max": "1073741824\n"}, 2**30),
        ("4:memory:/box\n", {"memory/box/memory.limit_in_bytes": "1073741824\n"}, 2**30),
        ("4:memory:/box\n", {"memory/box/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_a_container_s_memory_is_its_limit(cgroups, own, files, limit):
    cgroups(own, files)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert host.memory_bytes() == (limit or physical)


def test_it_reads_this_machine():
    assert 1 <= host.processors() <= (os.cpu_count() or 1)
    assert host.memory_bytes() > 2**28


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux pins processes to processors")
def test_it_heeds_the_affinity():
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from training import host; print(host.processors())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "1\n", done.stderr
