"""The GPU's way of drawing orders, compiled for the processor."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from training.card.draws import CODE, MOST_PREFIX, PURPOSE
from training.shuffles import of_clients

COMPILER = shutil.which("c++")
WRAPPED = """
#include <cstdint>
%s
extern "C" int64_t place(const int64_t* v) {
  return place_in_order<int64_t>(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}
"""


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_it_draws_what_the_processor_draws(tmp_path):
    (tmp_path / "place.cpp").write_text(WRAPPED % CODE)
    library = tmp_path / "place.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, tmp_path / "place.cpp"], check=True)
    place = ctypes.CDLL(library).place
    place.restype = ctypes.c_int64

    def order(seed, round_number, client, size, epochs):
        start = f"{seed}/{PURPOSE}/{round_number}/".encode()
        words = np.frombuffer(start.ljust(MOST_PREFIX, b"\0"), "<i8")
        values = (np.array([client, slot, size, len(start), *words]) for slot in range(epochs * size))
        return [place(value.ctypes.data_as(ctypes.c_void_p)) for value in values]

    for seed, round_number, size, epochs in ((0, 1, 5, 1), (2**32 - 1, 10_000, 10, 7), (7, 12, 228, 1), (7, 3, 1, 2)):
        clients = np.array([1, 9, 10, 4711, 999_999, 1_000_000])
        expected = of_clients(seed, round_number, clients, size, epochs).reshape(len(clients), -1)
        found = [order(seed, round_number, int(client), size, epochs) for client in clients]
        assert found == expected.tolist()
