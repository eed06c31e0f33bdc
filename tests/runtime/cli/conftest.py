"""What the tests of the commands share."""

from click.testing import Result


def refused(program: str, result: Result, *parts: str, code: int = 1) -> None:
    """Check that a command ended with one line on stderr that holds all `parts`, and nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith(f"{program}: error: ")
    assert result.stderr.count("\n") == 1, "more than one line"
    for part in parts:
        assert part in result.stderr
