"""What all commands share: how they fail, how they name their version.

A failure is one line on stderr, ``cellseg-infer: error: …``, and an exit code:

===== ==========================================================================
 0    done
 1    an image, a model, the data or the machine is at fault (:class:`CellsegError`)
 2    the command line or the configuration is at fault (:class:`UsageError`, click)
 130  interrupted by the user (128 + SIGINT, as shells count)
===== ==========================================================================

Any other exception is a bug of ours and keeps its traceback. This module knows nothing of what a
command does, and imports nothing that would slow ``--help`` down.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..common.spelling import written_as
from ..errors import CellsegError

if TYPE_CHECKING:
    from rich.console import Console

#: Exit code after Ctrl-C.
INTERRUPTED = 130

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


class Command(click.Command):
    """A click command whose errors, usage errors included, are one line each.

    Use as ``@click.command("cellseg-infer", cls=common.Command)``; the name starts every error line.

    Parameters
    ----------
    words
        Commands that run instead where the first argument is the last word of their name:
        ``cellseg-train mean`` in ``cellseg-train``. The main one needs no word, as click's groups would want.
    """

    def __init__(self, *arguments: Any, words: Sequence[click.Command] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.words = {str(command.name).split()[-1]: command for command in words}

    def main(self, args: Sequence[str] | None = None, *arguments: Any, **options: Any) -> Any:
        """Run as a program: this command, or the one that the first of `args` names."""
        given = sys.argv[1:] if args is None else list(args)
        command = self.words.get(given[0]) if given else None
        if command is None:
            return super().main(args, *arguments, **options)
        return command.main(given[1:], *arguments, **options | {"prog_name": command.name})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line for each of the other commands."""
        super().format_epilog(ctx, formatter)
        if self.words:
            with formatter.section("Also"):
                formatter.write_dl(
                    [
                        (str(command.name), command.get_short_help_str(limit=90))
                        for command in self.words.values()
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


def version_option() -> Callable[[_Decorated], _Decorated]:
    """Return the ``--version`` option; the version is looked up only when asked for."""
    return click.version_option(package_name="cellseg", message="%(prog)s %(version)s")


def console(*, stderr: bool = False) -> Console:
    """Return a rich console, imported late because ``--help`` must not pay for it."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)
