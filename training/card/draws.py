"""The orders of a whole cohort's examples, drawn on the GPU: a thread for each place in each client's order.

What it does for a client is what the processor does one after another (training.seeds, training.shuffles): SHA-256 of
the seed, the purpose, the round and the client; the Mersenne Twister from that; the shuffle of torch.randperm. It is
all arithmetic of whole numbers, so the orders are the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.seeds import Purpose
from training.shuffles import MIDDLE, WORDS, Orders, of_clients

FEWEST = 32  # clients; for fewer the processor is as fast
MOST_PREFIX = 32  # bytes
PURPOSE: Purpose = "batches"

# jiterator compiles it with what PyTorch brings along; no compiler is needed on the machine.
CODE = """
template <typename T>
T place_in_order(T client, T slot, T size, T length, T p0, T p1, T p2, T p3) {
  const unsigned int k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  unsigned char block[64];
  for (int i = 0; i < 64; ++i) block[i] = 0;
  T prefix[4] = {p0, p1, p2, p3};
  int n = (int)length;
  for (int i = 0; i < n; ++i) block[i] = (unsigned char)((prefix[i / 8] >> (8 * (i % 8))) & 255);
  int digits = 1;
  for (T rest = client / 10; rest > 0; rest /= 10) ++digits;
  T rest = client;
  for (int i = digits - 1; i >= 0; --i) { block[n + i] = (unsigned char)(48 + rest % 10); rest /= 10; }
  n += digits;
  block[n] = 128;
  block[62] = (unsigned char)((n * 8) >> 8);
  block[63] = (unsigned char)((n * 8) & 255);
  unsigned int w[64];
  for (int i = 0; i < 16; ++i)
    w[i] = ((unsigned int)block[4 * i] << 24) | ((unsigned int)block[4 * i + 1] << 16)
         | ((unsigned int)block[4 * i + 2] << 8) | (unsigned int)block[4 * i + 3];
  for (int i = 16; i < 64; ++i) {
    unsigned int x = w[i - 15], y = w[i - 2];
    unsigned int s0 = ((x >> 7) | (x << 25)) ^ ((x >> 18) | (x << 14)) ^ (x >> 3);
    unsigned int s1 = ((y >> 17) | (y << 15)) ^ ((y >> 19) | (y << 13)) ^ (y >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  unsigned int a = 0x6a09e667, b = 0xbb67ae85, c = 0x3c6ef372, d = 0xa54ff53a;
  unsigned int e = 0x510e527f, f = 0x9b05688c, g = 0x1f83d9ab, h = 0x5be0cd19;
  for (int i = 0; i < 64; ++i) {
    unsigned int s1 = ((e >> 6) | (e << 26)) ^ ((e >> 11) | (e << 21)) ^ ((e >> 25) | (e << 7));
    unsigned int t1 = h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i];
    unsigned int s0 = ((a >> 2) | (a << 30)) ^ ((a >> 13) | (a << 19)) ^ ((a >> 22) | (a << 10));
    unsigned int t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g; g = f; f = e; e = d + t1; d = c; c = b; b = a; a = t1 + t2;
  }
  unsigned int first = a + 0x6a09e667, second = b + 0xbb67ae85;
  unsigned int seed = (second >> 1) | (first << 31);  // the lower half of the first 64 bits, moved by one

  int count = (int)size, epoch = (int)slot / count, draws = (epoch + 1) * (count - 1);
  unsigned int low[229], high[229];
  unsigned int word = seed;
  low[0] = word;
  for (int i = 1; i < 397 + draws; ++i) {
    word = 1812433253u * (word ^ (word >> 30)) + (unsigned int)i;
    if (i <= draws) low[i] = word;
    if (i >= 397) high[i - 397] = word;
  }
  int order[229];
  for (int i = 0; i < count; ++i) order[i] = i;
  for (int i = 0; i < count - 1; ++i) {
    int at = epoch * (count - 1) + i;
    unsigned int mixed = (low[at] & 0x80000000u) | (low[at + 1] & 0x7fffffffu);
    unsigned int y = high[at] ^ (mixed >> 1) ^ ((low[at + 1] & 1u) ? 0x9908b0dfu : 0u);
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    y ^= y >> 18;
    int other = i + (int)(y % (unsigned int)(count - i));
    int here = order[i];
    order[i] = order[other];
    order[other] = here;
  }
  return (T)order[(int)slot % count];
}
"""


class Draws:
    """training.shuffles.of_clients, on a GPU where that is faster and can be done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.places: Callable[..., Any] | None = _compiled() if device.type == "cuda" else None
        self.stream = torch.cuda.Stream(device) if self.places else None  # type: ignore[no-untyped-call]

    def __call__(self, seed: int, round_number: int, clients: NDArray[np.int64], size: int, epochs: int) -> Orders:
        start = f"{seed}/{PURPOSE}/{round_number}/".encode()
        fits = epochs * (size - 1) <= WORDS - MIDDLE and size * epochs < 2**31 and len(start) <= MOST_PREFIX
        if self.places is None or len(clients) < FEWEST or not fits:
            return of_clients(seed, round_number, clients, size, epochs)
        words = np.frombuffer(start.ljust(MOST_PREFIX, b"\0"), "<i8").tolist()
        with torch.cuda.stream(self.stream):  # a round may be under way on the usual one
            rows = torch.from_numpy(clients).to(self.device)[:, None]
            slots = torch.arange(epochs * size, device=self.device)[None]
            parts = {f"p{place}": word for place, word in enumerate(words)}
            found: NDArray[np.int64] = self.places(rows, slots, size=size, length=len(start), **parts).cpu().numpy()
        return found.reshape(len(clients), epochs, size)


def _compiled() -> Callable[..., Any] | None:
    """None where this PyTorch cannot."""
    try:
        from torch.cuda.jiterator import _create_jit_fn

        places = _create_jit_fn(CODE, size=1, length=1, p0=0, p1=0, p2=0, p3=0)
        places(*(torch.ones(1, 1, dtype=torch.int64, device="cuda") for _ in range(2)))
        torch.cuda.synchronize()
    except (ImportError, RuntimeError):
        return None
    return places
