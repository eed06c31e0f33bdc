"""Open results, listen on the loopback address, and serve until the user ends it."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from ..errors import OutputError, UsageError
from .scene import Scene
from .server import application, new_token

#: The only address that is ever listened on.
LOOPBACK = "127.0.0.1"


def serve(folders: Sequence[Path], image: str | None, port: int, *, announce: Callable[[str], None]) -> None:
    """Serve results until interrupted.

    Parameters
    ----------
    folders
        Of results.
    image
        Where the image of the only one is, if not where it was.
    port
        0 for any that is free.
    announce
        Called with the address, token included, once it is listened on.

    Raises
    ------
    UsageError
        The port is taken or may not be used, or a folder holds no result.
    DataError
        A result cannot be read.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listen(port)))
        scenes = [stack.enter_context(Scene(folder, image)) for folder in folders]
        token = new_token()
        config = uvicorn.Config(
            application(scenes, token),
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
        )
        announce(f"http://{LOOPBACK}:{listener.getsockname()[1]}/{token}/")
        uvicorn.Server(config).run([listener])


def _listen(port: int) -> socket.socket:
    """Return a socket that listens."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is taken; choose another with --port, or leave it out") from None
        if error.errno == errno.EACCES:
            raise UsageError(f"port {port} needs more rights; choose one above 1023") from None
        raise OutputError(f"port {port}: {error.strerror}") from None
    listener.listen(128)
    return listener
