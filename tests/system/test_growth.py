"""Many pictures one after the other, as a service has them: memory must not grow with their number."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
from cellseg.runtime import segment
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

rng = np.random.default_rng(0)
pictures = []
for _ in range(6):
    picture = np.zeros(rng.integers(200, 400, 2), np.uint8)
    for y, x in rng.integers(0, 190, (80, 2)):
        picture[y : y + 9, x : x + 7] = 200
    pictures.append(picture)
engine = LocalEngine(local_spec(2))
for number in range(150):
    segment(pictures[number % 6], engine)
    if number % 6 == 5:
        print(resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux shows it")
def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=True
    )
    found = [float(line) for line in done.stdout.split()]
    assert len(found) == 25
    # Of 90 pictures; it goes up and down by what the heap keeps for the next one.
    assert min(found[-5:]) - min(found[5:10]) < 90 * 0.1, found
