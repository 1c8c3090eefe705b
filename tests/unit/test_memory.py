"""What a long run keeps in memory besides the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rft_ilab.policy.local.memory import give_back

# Decoding and training see a new number of rows in nearly every step.
MANY_SHAPES = """
import rft_ilab.policy.local
import ctypes, torch

class Info(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in "arena a b c mapped d e used f g".split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Info

def held():
    info = libc.mallinfo2()
    return (info.used + info.mapped) / 1e6

weight = torch.zeros(1536, 576, dtype=torch.bfloat16)

def product(rows):
    torch.nn.functional.linear(torch.zeros(rows, 576, dtype=torch.bfloat16), weight)

product(1)
before = held()
for rows in range(2, 902):
    product(rows)
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_kernels_of_shapes_that_are_gone_are_forgotten() -> None:
    """900 shapes in bf16 are 500 MB with the defaults of oneDNN and torch; where bf16 has no kernels, next to none."""
    ours = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 200.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_between_pieces_in_use_is_given_back() -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    blocks = [b"x" * 60_000 for _ in range(5000)]
    in_use = blocks[::100]
    del blocks
    before = resident()
    give_back()
    assert before - resident() > 200 and len(in_use) == 50
