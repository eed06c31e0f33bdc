"""One line, one exit code for every way a command can fail."""

import errno
import os
import shlex
import signal
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cellseg.runtime import errors
from cellseg.runtime.cli import common


def run(error: BaseException | None = None, *arguments: str) -> Result:
    @click.command("cellseg-test", cls=common.Command)
    @common.version_option()
    @click.option("--tile", type=int)
    def main(tile: int | None) -> None:
        if error is not None:
            raise error

    return CliRunner().invoke(main, arguments, prog_name="cellseg-test")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.CellsegError, 1),
        (errors.ImageError, 1),
        (errors.ModelError, 1),
        (errors.OutputError, 1),
        (errors.UsageError, 2),
        (errors.ConfigError, 2),
    ],
)
def test_our_errors_are_one_line(kind: type[errors.CellsegError], code: int) -> None:
    result = run(kind("slide.tif: empty;\n  use another"))
    assert result.stderr == "cellseg-test: error: slide.tif: empty; use another\n"
    assert result.stdout == ""
    assert result.exit_code == code


def test_interrupt() -> None:
    result = run(KeyboardInterrupt())
    assert (result.stderr, result.exit_code) == ("cellseg-test: error: interrupted\n", 130)


def test_full_disk_names_the_file() -> None:
    result = run(OSError(errno.ENOSPC, "No space left on device", "out/cells.csv"))
    assert result.stderr.startswith("cellseg-test: error: out/cells.csv: No space left on device;")
    assert result.exit_code == 1


@pytest.mark.parametrize("bug", [RuntimeError("ours"), OSError(errno.EIO, "Input/output error")])
def test_bugs_keep_their_traceback(bug: Exception) -> None:
    assert run(bug).exception is bug


@pytest.mark.parametrize("arguments", [("--tile", "wide"), ("--tiel", "3"), ("stray",)])
def test_usage_errors_are_one_line_too(arguments: tuple[str, ...]) -> None:
    result = run(None, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("cellseg-test: error: ")
    assert result.stderr.endswith("; see cellseg-test --help\n")
    assert result.stderr.count("\n") == 1


def test_success_and_version() -> None:
    assert run().exit_code == 0
    result = run(None, "--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("cellseg-test 0.")


def test_the_first_word_may_name_another_command() -> None:
    @click.command("cellseg-test count", cls=common.Command)
    @click.argument("number", type=int)
    def count(number: int) -> None:
        """Count to NUMBER."""
        click.echo(f"counted {number}")

    @click.command("cellseg-test", cls=common.Command, subcommands=[count])
    @click.argument("word")
    def main(word: str) -> None:
        """Say WORD."""
        click.echo(f"said {word}")

    def stdout(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0
        return result.stdout

    assert stdout("hello") == "said hello\n"
    assert stdout("count", "3") == "counted 3\n"
    assert stdout("--", "count") == "said count\n"
    assert "cellseg-test count  Count to NUMBER." in stdout("--help")
    assert stdout("count", "--help").startswith("Usage: cellseg-test count ")
    refused = CliRunner().invoke(main, ["count", "x"])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("cellseg-test count: error: ")
    assert refused.stderr.endswith("; see cellseg-test count --help\n")


def test_the_shell_gives_the_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    word = click.command("cellseg-test word", cls=common.Command)(lambda: click.echo("a word"))
    main = click.command("cellseg-test", cls=common.Command, subcommands=[word])(lambda: click.echo("none"))
    for arguments, said in ((["word"], "a word\n"), ([], "none\n")):
        monkeypatch.setattr("sys.argv", ["cellseg-test", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        assert capsys.readouterr().out == said


def test_help_is_grouped_and_ends_with_examples() -> None:
    @click.command("cellseg-test", cls=common.Command, examples=[("cellseg-test --tile 3 a.tif", "Do it.")])
    @click.argument("image")
    @click.option("--plain", is_flag=True, help="Seen first.")
    @click.option("--tile", type=int, cls=common.Option, group="Advanced", help="Seen last.")
    @click.option("--csv", is_flag=True, cls=common.Option, group="Results", help="Seen next.")
    def main(**given: object) -> None: ...

    shown = CliRunner().invoke(main, ["--help"]).stdout
    order = ("Options:", "--plain", "Results:", "--csv", "Advanced:", "--tile")
    places = [shown.index(text) for text in order]
    assert places == sorted(places)
    assert shown.endswith("Examples:\n  cellseg-test --tile 3 a.tif\n      Do it.\n")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX does")
def test_terminated() -> None:
    before = signal.getsignal(signal.SIGTERM)

    @click.command("cellseg-test", cls=common.Command)
    def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            click.echo("cleaned up")

    result = CliRunner().invoke(main)
    assert (result.stdout, result.stderr) == ("cleaned up\n", "cellseg-test: error: terminated\n")
    assert result.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_next_command_can_be_pasted_into_a_shell(capsys) -> None:
    common.say_next("cellseg-view", Path("a b") / "it's", os.fsdecode(b"\xb5m"))
    out, err = capsys.readouterr()
    assert out == ""
    assert shlex.split(err) == ["next:", "cellseg-view", "a b/it's", "µm"]
