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
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

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
    """

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
