"""Downloads that succeed, fail, hang and meet.

The real program runs against a closed and against a silent port. Where the bytes are no matter, a small stand-in for
the child program spares the import of torchvision.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from training import datasets, download
from training.download import DownloadError, Wanted
from training.events import Log, TrainingError
from training.tests.listen import told

WANTED = Wanted(label="MNIST", class_name="MNIST", files=("MNIST/raw/a", "MNIST/raw/b", "MNIST/raw/c"))


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def closed_port(monkeypatch):
    """Everything torchvision asks for goes through a proxy that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _through(monkeypatch, port)


@pytest.fixture
def silent_port(monkeypatch):
    """Everything torchvision asks for goes through a proxy that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        _through(monkeypatch, server.getsockname()[1])
        yield server


def _through(monkeypatch, port: int) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Replaces the child program by one that runs these lines, with `folder` the folder to fill."""

    def replace(lines: str) -> None:
        program = tmp_path / "stand_in.py"
        program.write_text(f"import os, sys, time\nfrom pathlib import Path\nfolder = Path(sys.argv[2])\n{lines}")
        monkeypatch.setattr(download, "PROGRAM", program)

    return replace


THREE_FILES = """
raw = folder / "MNIST" / "raw"
raw.mkdir(parents=True)
for name in "abc":
    (raw / name).write_text(name)
    (raw / (name + ".gz")).write_text("not wanted")
    time.sleep(0.3)
"""


def test_it_takes_digits_for_auto_when_nobody_answers(tmp_path, closed_port):
    said, name = told(datasets.find("auto", tmp_path, limit_seconds=60))
    assert name == "digits"
    assert said[0] == Log(message=f"Downloading MNIST to {tmp_path}")
    assert [line.level for line in said[1:]] == ["warning", "warning"]
    assert f"MNIST is not in {tmp_path} and could not be downloaded: " in said[1].message
    assert "Connection refused" in said[1].message
    assert "digits" in said[2].message
    assert contents(tmp_path) == [".MNIST.lock"]


def test_it_fails_for_mnist_by_name_when_nobody_answers(tmp_path, closed_port, stand_in):
    stand_in(
        "import urllib.request\ntry: urllib.request.urlopen('http://example.invalid/')\n"
        "except OSError as error: sys.exit(print(error) or 1)"
    )
    with pytest.raises(TrainingError, match=r"^MNIST is not in .* and could not be downloaded: .*Connection refused"):
        told(datasets.load("mnist", tmp_path / "data", limit_seconds=60))
    assert contents(tmp_path / "data") == [".MNIST.lock"]


def test_it_gives_up_a_server_that_never_answers(tmp_path, silent_port, stand_in):
    stand_in("import urllib.request\nurllib.request.urlopen('http://example.invalid/', timeout=None)")
    with pytest.raises(TrainingError, match="could not be downloaded: not finished after 2 s"):
        told(datasets.load("mnist", tmp_path / "data", limit_seconds=2))
    assert contents(tmp_path / "data") == [".MNIST.lock"]
    asked, _ = silent_port.accept()
    with asked:
        asked.settimeout(30)
        assert asked.recv(4096).startswith(b"GET http://example.invalid/")
        assert asked.recv(4096) == b"", "the child is dead, so its socket is closed"


def test_it_ends_with_its_parent_even_on_a_silent_server(tmp_path, silent_port):
    command = [sys.executable, "-P", str(download.PROGRAM), "MNIST", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        asked, _ = silent_port.accept()  # torchvision is imported and has asked
        with asked:
            child.stdin.close()
            assert child.wait(timeout=60) == 1
            assert child.stdout.read() == b""


def test_it_moves_whole_files_into_place_and_tells_how_far_it_is(tmp_path, stand_in):
    stand_in(THREE_FILES)
    data_dir = tmp_path / "new" / "data"
    said = list(download.download(WANTED, data_dir, 30))
    assert contents(data_dir) == [".MNIST.lock", "MNIST/raw/a", "MNIST/raw/b", "MNIST/raw/c"]
    assert said[0] == f"Downloading MNIST to {data_dir}"
    assert "Downloading MNIST: 2 of 3 files" in said
    assert os.listdir(data_dir / "MNIST") == ["raw"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("print('the disk is full')\nsys.exit(1)", "the disk is full"),
        ("os.kill(os.getpid(), 9)", "the download ended with status -9"),
    ],
)
def test_it_leaves_nothing_of_a_failed_download(tmp_path, stand_in, lines, reason):
    stand_in(THREE_FILES.replace("abc", "ab").replace("0.3", "0.0") + lines)
    with pytest.raises(DownloadError, match=f"^{reason}$"):
        list(download.download(WANTED, tmp_path / "data", 30))
    assert contents(tmp_path / "data") == [".MNIST.lock"]


def test_it_clears_what_a_killed_run_left(tmp_path, stand_in):
    stand_in(THREE_FILES)
    left_behind = tmp_path / "data" / ".MNIST-killed" / "MNIST" / "raw"
    left_behind.mkdir(parents=True)
    (left_behind / "a").write_text("half")
    list(download.download(WANTED, tmp_path / "data", 30))
    assert sorted(os.listdir(tmp_path / "data")) == [".MNIST.lock", "MNIST"]


def test_it_downloads_once_when_two_runs_start_at_once(tmp_path, stand_in):
    stand_in(f"with open({str(tmp_path / 'starts')!r}, 'a') as file: file.write('x')\n" + THREE_FILES)
    said: list[str] = []
    runs = [
        threading.Thread(target=lambda: said.extend(download.download(WANTED, tmp_path / "data", 30))) for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert (tmp_path / "starts").read_text() == "x"
    assert "Waiting for another run that downloads MNIST" in said


def test_it_waits_for_another_run_no_longer_than_its_own_time(tmp_path):
    hold = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / ".MNIST.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        begin = time.monotonic()
        with pytest.raises(DownloadError, match=r"^not finished after 0\.5 s$"):
            list(download.download(WANTED, tmp_path, 0.5))
        assert time.monotonic() - begin >= 0.5
        holder.stdin.close()


def test_it_says_so_when_the_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        TrainingError, match=r"MNIST is not in .* could not be downloaded: .* cannot be written: Not a dir"
    ):
        told(datasets.load("mnist", tmp_path / "file" / "data"))
