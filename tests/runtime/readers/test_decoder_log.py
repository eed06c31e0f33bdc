"""Complaints that decoders print straight to file descriptor 2."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cellseg.runtime.readers.decoder_log import listening


def say(text):
    os.write(2, text.encode())


def test_complaints_are_heard_and_all_else_is_passed_on(capfd):
    with listening() as heard:
        say("libpng error: bad adaptive filter value\nsomebody else's line\n")
        say("Corrupt JPEG data: bad Huffman code\n")
    assert heard == ["libpng error: bad adaptive filter value", "Corrupt JPEG data: bad Huffman code"]
    say("after\n")
    assert capfd.readouterr().err == "somebody else's line\nafter\n"


def test_standard_error_is_given_back_after_an_error(capfd):
    def fail():
        with listening():
            say("libpng warning: x\n")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    say("after\n")
    assert capfd.readouterr().err == "after\n"


def test_many_threads(capfd):
    start = threading.Barrier(4)

    def work(number):
        start.wait()
        for i in range(50):
            with listening() as heard:
                say(f"libpng error: {number} {i}\n")
            assert heard == [f"libpng error: {number} {i}"]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert capfd.readouterr().err == ""


def test_without_a_standard_error():
    code = (
        "import os; os.close(2)\n"
        "from cellseg.runtime.readers.decoder_log import listening\n"
        "with listening() as heard: pass\n"
        "print(heard)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
