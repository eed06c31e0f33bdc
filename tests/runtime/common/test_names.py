import doctest

from cellseg.runtime.common import names


def test_examples() -> None:
    assert doctest.testmod(names).failed == 0


def test_names_become_text() -> None:
    assert names.readable("a\ud800b") == "a?b"  # no byte stands behind this one
    assert names.readable("plain") == "plain"
