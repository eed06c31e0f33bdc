import subprocess
import sys

import pytest

SCRIPT = """
import platform
from cellseg.runtime.common.heap import steady_heap
taken = steady_heap()
assert taken == (platform.libc_ver()[0] == "glibc"), taken
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of glibc")
def test_glibc_takes_it() -> None:
    """In a process of its own: it holds for the rest of the process's life."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
