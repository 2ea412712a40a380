"""A process has a name that no other one has, and others on its machine can tell whether it is still alive."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from fedsite.tests.machine import PROJECT
from simulations import processes

NAME = "from simulations import processes; print(processes.name(), flush=True); input()"


def another(*before: str) -> tuple[subprocess.Popen, str]:
    """A process that lives until it is told a line, and what it calls itself."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", NAME],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return process, process.stdout.readline().strip()


def test_a_name_is_of_one_process_and_stays():
    assert processes.name() == processes.name()
    assert processes.host_and_process(processes.name()) == (socket.gethostname(), str(os.getpid()))
    assert not processes.is_dead(processes.name())
    assert not processes.is_dead(f"{processes.name()}:token-of-a-claim")


def test_a_process_is_dead_when_it_has_ended_also_before_anybody_has_fetched_it():
    process, name = another()
    assert not processes.is_dead(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert processes.is_dead(name)
    process.communicate()
    assert processes.is_dead(name)


def test_a_number_that_was_given_again_is_another_process():
    host, number, birth = processes.name().split(":")
    machine, began = birth.split("-")
    assert processes.is_dead(f"{host}:{number}:{machine}-{int(began) + 1 if began.isdigit() else 'earlier'}")
    assert not processes.is_dead(f"{host}:{number}:{machine}-")  # whoever could not say when it began


@pytest.mark.parametrize("name", ["", "host", "host:4194305", "host:4194305:token", "host:x:{}-1", "host:9{}9:{}-1"])
def test_what_cannot_be_known_is_not_dead(name):
    assert not processes.is_dead(name.format(processes.machine(), processes.machine()))


def test_another_host_name_is_no_other_machine(monkeypatch):
    process, name = another()
    process.kill()
    process.communicate()
    monkeypatch.setattr(socket, "gethostname", lambda: "as-the-network-calls-it.example.org")
    assert processes.is_dead(name)


def test_two_containers_of_one_name_are_two_machines():
    """A PID namespace of its own is what a container has, with the kernel, and perhaps the host's name, of another."""
    unshare = shutil.which("unshare")
    alone = [unshare, "--pid", "--fork", "--mount-proc"] if unshare else []
    if not alone or subprocess.run([*alone, "true"], capture_output=True).returncode:
        alone = []  # no container can be made here
        name = f"{socket.gethostname()}:1:{'0' * 12}-1"
    else:
        process, name = another(*alone)
        process.communicate("end")
    host, number, birth = name.split(":")
    assert (host, number) == (socket.gethostname(), "1")
    assert birth.split("-")[0] != processes.machine()
    assert not processes.is_dead(name)
