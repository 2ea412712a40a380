"""Many schedules of faults: whatever goes wrong when, runs end as if nothing had."""

import os
import subprocess
import sys

from fedsite.tests.machine import PROJECT

SCHEDULES = 80


def test_it_ends_as_if_nothing_had_gone_wrong():
    shards = os.cpu_count() or 1
    each = -(-SCHEDULES // shards)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "simulations.tests.schedules", str(shard * each), str(each)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for shard in range(shards)
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * shards, "\n".join(said)
