"""Small files that claim to be large: refused in one line, before they take memory."""

import gzip
import os
import tracemalloc

import pytest

from cellseg.runtime.common import bounded


def test_brief_is_short_whatever_the_value():
    deep = []
    for _ in range(5000):
        deep = [deep, deep]
    for value in (
        10**9000,
        [10**9000] * 3,
        deep,
        {"a" * 10_000: "b" * 10_000},
        "x" * 10_000,
        list(range(10**5)),
    ):
        assert len(bounded.brief(value)) < 400
    assert bounded.brief(["a", 1, None]) == "['a', 1, None]"


def test_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, kind in {"pipe": "a pipe", "link": "a device", ".": "a folder"}.items():
        with pytest.raises(ValueError, match=f"^it is {kind}, wanted a file$"):
            bounded.read_bytes(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        bounded.read_bytes(tmp_path / "none")


def test_reads_up_to_the_limit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(1000))
    assert bounded.read_bytes(path, 1000) == bytes(1000)
    with pytest.raises(ValueError, match=r"^it has 1,000 bytes; at most 999 are read$"):
        bounded.read_bytes(path, 999)
    # Members one after the other, as our own outlines are packed.
    path.write_bytes(gzip.compress(bytes(600)) + gzip.compress(bytes(400)))
    assert bounded.read_bytes(path, 1000) == bytes(1000)
    with pytest.raises(ValueError, match="unpacks to more than 999 bytes"):
        bounded.read_bytes(path, 999)
    path.write_bytes(gzip.compress(bytes(range(256)) * 9)[:60])
    with pytest.raises((OSError, EOFError, ValueError)):
        bounded.read_bytes(path)


def test_a_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(50 << 20), 9))
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than 1,000,000 bytes"):
        bounded.read_bytes(path, 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "text",
    [b"[" + b"[]," * 3000 + b"1]", b"[" + b'"",' * 9000 + b"1]", b"[" + b"0," * 9000 + b"1]",
     b"{" + b",".join(b'"%d":{}' % n for n in range(2000)) + b"}", b'["' + "π".encode() * 9000 + b'"]'],
    ids=["lists", "strings", "numbers", "tables", "letters"],
)  # fmt: skip
def test_json_is_weighed_before_it_is_parsed(text, monkeypatch):
    """What is allowed is never less than what it takes."""
    tracemalloc.start()
    bounded.parse_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    monkeypatch.setattr(bounded, "BUDGET", int(peak * 0.8))
    tracemalloc.start()
    with pytest.raises(ValueError, match="of memory"):
        bounded.parse_json(text)
    assert tracemalloc.get_traced_memory()[1] < peak / 2
    tracemalloc.stop()


def test_json_that_is_none():
    for text, message in {
        b"[" * 100_000: "nested too deeply",
        b"1" * 5000: "thousands of digits",
        b"{": "Expecting property name",
        b"\xff\xff": "decode",
    }.items():
        with pytest.raises(ValueError, match=message):
            bounded.parse_json(text)


def rows(path, text, **options):
    path.write_bytes(text)
    header, found = bounded.read_table(path, **options)
    return header, list(found)


def test_tables(tmp_path):
    path = tmp_path / "a.csv"
    assert rows(path, b"") == ([], [])
    assert rows(path, b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n3\r\n") == (
        ["a", "b"],
        [(3, {"a": "1", "b": "2"}), (4, {"a": "3"})],
    )
    assert rows(path, b'a\tb\n"x\ny"\t2\n', delimiter="\t")[1] == [(3, {"a": "x\ny", "b": "2"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n1,2,3\n", "line 2 has 3 cells, the first line 2"),
        (b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
        (b"a\n\0\n", "null characters"),
        ("a\nx".encode("utf-16"), "null characters|not in UTF-8"),
        (b"a\n\xe9\n", "not in UTF-8"),
        (b"a\n" + b"x" * 200_000, "line [12]: field larger than field limit"),
        (b"a," * 2000, "2,001 columns"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        rows(tmp_path / "a.csv", text)


def test_endless_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_ROWS", 10)
    assert len(rows(tmp_path / "a.csv", b"a\n" + b"1\n" * 10)[1]) == 10
    with pytest.raises(ValueError, match="more than 10 rows"):
        rows(tmp_path / "a.csv", b"a\n" + b"1\n" * 11)
