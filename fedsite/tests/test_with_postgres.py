"""PostgreSQL for tests."""

import os
import signal
import subprocess
import sys
import time

from fedsite.tests.machine import PROJECT


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fedsite.tests.with_postgres", *command],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ASK = """
import os, sys, psycopg2
cursor = psycopg2.connect(os.environ["DATABASE_URL"]).cursor()
cursor.execute("SELECT current_setting('data_directory'), pg_backend_pid(), version()")
print(*cursor.fetchone(), sep="\\n", flush=True)
"""


def test_it_gives_a_real_server_and_the_commands_status():
    asking = start(sys.executable, "-c", ASK + "sys.exit(7)")
    out, err = asking.communicate()
    folder, _, version = out.splitlines()
    assert version.startswith("PostgreSQL"), err
    assert asking.returncode == 7
    assert not os.path.exists(folder)


def test_it_leaves_nothing_behind_when_it_is_told_to_end():
    waiting = start(sys.executable, "-c", ASK + "import time; time.sleep(600)")
    folder, backend, _ = (waiting.stdout.readline().strip() for _ in range(3))
    assert os.path.exists(f"{folder}/postmaster.pid")
    waiting.send_signal(signal.SIGTERM)
    waiting.communicate()
    assert waiting.returncode == 128 + signal.SIGTERM
    assert not os.path.exists(folder)
    assert gone(int(backend))


def gone(process: int) -> bool:
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_it_explains_itself_without_a_command():
    asking = start()
    _, err = asking.communicate()
    assert asking.returncode == 2
    assert "COMMAND" in err


def test_it_imports_no_django():
    code = "import sys, fedsite.tests.with_postgres; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
