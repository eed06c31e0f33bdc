"""What image decoders written in C say on standard error instead of to their caller.

libpng and libjpeg, as OpenCV builds them, print their complaints straight to file descriptor 2. For
libjpeg that is the only sign of damage: it fills what it cannot decode and reports success. This
module knows nothing of pictures.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

#: How the complaints begin (libpng's ``pngerror.c``, the warnings in libjpeg's ``jerror.h``, OpenCV's log).
_COMPLAINT = re.compile(
    rb"libpng (error|warning): |Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|"
    rb"Inconsistent progression|Unknown Adobe color|Warning: unknown JFIF|\[ ?(WARN|ERROR):"
)
#: The descriptor belongs to the whole process: one listener at a time.
_LOCK = threading.Lock()


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collect the decoders' complaints about what is decoded inside, instead of letting them print.

    For the shortest of times: the descriptor is the whole process's. What other threads print
    meanwhile is passed on afterwards. Where there is no standard error, nothing is collected.

    Yields
    ------
    list of str
        Filled on leaving: one complaint an item.
    """
    heard: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_LOCK)
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            real = os.dup(2)
        except OSError:
            yield heard
            return
        stack.callback(os.close, real)
        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            os.dup2(real, 2)
            file.seek(0)
            for line in file:
                if _COMPLAINT.match(line):
                    heard.append(line.decode(errors="replace").strip())
                else:
                    os.write(real, line)
