"""What all commands share: how they fail, how they name their version.

A failure is one line on stderr, ``cellseg-infer: error: …``, and an exit code:

===== ==========================================================================
 0    done
 1    an image, a model, the data or the machine is at fault (:class:`CellsegError`)
 2    the command line or the configuration is at fault (:class:`UsageError`, click)
 130  interrupted by the user (128 + SIGINT, as shells count)
 143  ended by the system or a scheduler (128 + SIGTERM)
===== ==========================================================================

Any other exception is a bug of ours and keeps its traceback. This module knows nothing of what a
command does, and imports nothing that would slow ``--help`` down.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from ..common.names import readable
from ..common.spelling import written_as
from ..errors import CellsegError, ModelError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

#: Exit codes after Ctrl-C and after SIGTERM.
INTERRUPTED, TERMINATED = 130, 143
#: Headings of ``--help`` in their order; options of none come first.
GROUPS = ("Results", "Image", "Cells", "Computing", "TensorRT", "Packages", "Advanced")

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def fail(program: str, message: str, exit_code: int) -> SystemExit:
    """Print the one line and return the exception that ends the process.

    Parameters
    ----------
    program
        Name that starts the line, for example ``cellseg-infer``.
    message
        What happened; line breaks become spaces.
    exit_code
        See the module's table.
    """
    click.echo(f"{program}: error: {' '.join(message.split())}", err=True)
    return SystemExit(exit_code)


class Terminated(KeyboardInterrupt):
    """SIGTERM: the system or a scheduler ends this program; it leaves as after Ctrl-C."""


class Option(click.Option):
    """An option with a heading in ``--help``, one of :data:`GROUPS`."""

    def __init__(self, *arguments: Any, group: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.group = group


def grouped(group: str) -> Callable[..., Callable[[_Decorated], _Decorated]]:
    """Return a ``click.option`` that adds options under a heading of ``--help``."""
    return functools.partial(click.option, cls=Option, group=group)


class Command(click.Command):
    """A click command whose errors, usage errors included, are one line each.

    Use as ``@click.command("cellseg-infer", cls=common.Command)``; the name starts every error line.
    What it prints never fails for the terminal's encoding: letters that this lacks are escaped.

    Parameters
    ----------
    examples
        Command lines at the end of ``--help``, each with what it does.
    subcommands
        Commands that run instead where the first argument is the last word of their name:
        ``cellseg-train mean`` in ``cellseg-train``. The main one needs no word, as click's groups would want.
    """

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[tuple[str, str]] = (),
        subcommands: Sequence[click.Command] = (),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)
        self.subcommands = {str(command.name).split()[-1]: command for command in subcommands}
        #: Whether the process ends with this command, so that memory and threads need not be given back.
        self.ends_process = False

    def run(self) -> NoReturn:
        """Run as the whole of a process, which then ends at once.

        To take down modules and engines piece by piece, as Python does, takes a quarter of a second, and the
        system does it anyway.
        """
        self.ends_process = True
        code = 0
        try:
            self.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                click.echo(end.code, err=True)
        atexit._run_exitfuncs()  # temporary files, the threads of packages
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):  # nobody reads it any more: as Python says it
                code = code or 120
        os._exit(code)

    def main(self, args: Sequence[str] | None = None, *arguments: Any, **options: Any) -> Any:
        """Run as a program: this command, or the one that the first of `args` names."""
        given = sys.argv[1:] if args is None else list(args)
        command = self.subcommands.get(given[0]) if given else None
        if command is not None:
            return command.main(given[1:], *arguments, **options | {"prog_name": command.name})
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with _terminable():
            return super().main(args, *arguments, **options)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        for group in ("", *GROUPS):
            rows = [
                record
                for option in self.get_params(ctx)
                if isinstance(option, click.Option)
                and getattr(option, "group", "") == group
                and (record := option.get_help_record(ctx))
            ]
            if rows:
                with formatter.section(group or "Options"):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and a line for each of the other commands."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line, what in self.examples:  # a command is never broken into two lines
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                    formatter.write(f"{'':{formatter.current_indent + 4}}{what}\n")
        if self.subcommands:
            with formatter.section("Also"):
                formatter.write_dl(
                    [
                        (str(command.name), command.get_short_help_str(limit=90))
                        for command in self.subcommands.values()
                    ]
                )

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the command line."""
        with self._one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with self._one_line():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        program = self.name or "cellseg"
        try:
            with written_as("command"):
                yield
        except CellsegError as error:
            raise fail(program, str(error), error.exit_code) from error
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            text = error.format_message().rstrip(".")
            raise fail(program, f"{text}; see {program} --help", error.exit_code) from error
        except Terminated as error:
            raise fail(program, "terminated", TERMINATED) from error
        except KeyboardInterrupt as error:
            raise fail(program, "interrupted", INTERRUPTED) from error
        except OSError as error:
            # The one failure of the machine that can strike any write, however well it was prepared.
            if error.errno not in _FULL_DISK:
                raise
            where = error.filename or "the output"
            raise fail(
                program, f"{where}: {error.strerror}; free space or choose another place", 1
            ) from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does: what is half-written is removed, and a line says so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Import and open what a command needs without looking for garbage, of which there is none so early."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()  # what is there now stays
            gc.enable()


def one_line(error: BaseException) -> str:
    """Return what happened: the message of an error of ours, else also what kind of error it is."""
    text = " ".join(str(error).split())
    if isinstance(error, CellsegError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def say_next(*command: str | Path) -> None:
    """Name the command that comes next, with its paths as a shell takes them.

    It goes to stderr: what is printed on stdout may be read by another program.
    """
    click.echo(f"next: {shlex.join(readable(str(word)) for word in command)}", err=True)


def model_options(function: _Decorated) -> _Decorated:
    """Add the options that name a model."""
    for option in (
        click.option("--model", metavar="NAME", help="Packaged model; the default where nothing is named."),
        click.option("--engine", metavar="FILE", type=click.Path(path_type=Path), help="Model file to run."),
    ):
        function = option(function)
    return function


def device_option(function: _Decorated) -> _Decorated:
    """Add the option that says where a model runs."""
    return click.option(
        "--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu or cuda:N."
    )(function)


def chosen_model(engine: Path | None, model: str | None) -> Path:
    """Return the file of the model that the command line names; the default model for nothing.

    Raises
    ------
    UsageError
        Both were given, or there is no packaged model of that name.
    ModelError
        The file is a folder.
    """
    if engine is not None and model is not None:
        raise UsageError("--engine and --model exclude each other; give one of them")
    if engine is not None and engine.is_dir():
        raise ModelError(f"{engine}: is a folder; expected a model written by cellseg-export")
    from ..model.catalog import DEFAULT, default_model

    return engine if engine is not None else default_model(model or DEFAULT)


def version_option() -> Callable[[_Decorated], _Decorated]:
    """Return the ``--version`` option; the version is looked up only when asked for."""
    return click.version_option(package_name="cellseg", message="%(prog)s %(version)s")


def console(*, stderr: bool = False) -> Console:
    """Return a rich console, imported late because ``--help`` must not pay for it."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)
