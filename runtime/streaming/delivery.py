"""Finished strips on their way to whoever writes them, each in a thread of its own.

A slow writer holds up the others only when a strip waits for it that they have had already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..common.threads import Channel, Flow
from ..instances import Strip
from ..instances.full_resolution import FullResolution
from .setup import Sink

#: Strips that may wait for each writer.
WAITING = 1
#: Name of the stage of a sink that has none.
WRITE = "write"


class Delivery:
    """Stages that take strips: one for each sink, and one that rescales them where that is needed.

    Parameters
    ----------
    flow
        Gets the stages.
    sinks
        Take every strip, in order. The stage is called as the sink's attribute ``stage`` says.
    back
        How strips become strips of the slide.
    *marks
        Say more of the cells of each strip of the slide, one after the other: their class, their region.
    """

    def __init__(
        self,
        flow: Flow,
        sinks: Iterable[Sink],
        back: FullResolution | None,
        *marks: Callable[[Strip], Strip],
    ) -> None:
        self._back, self._marks = back, marks
        self._first: Channel[Strip] | None = None
        self._channels: list[Channel[Strip]] = []
        if back is not None:
            self._first = flow.channel(WAITING)
            flow.stage("rescale", self._rescale)
        for sink in sinks:
            channel: Channel[Strip] = flow.channel(WAITING)
            self._channels.append(channel)
            name = getattr(sink, "stage", WRITE)
            same = sum(stage.partition("-")[0] == name for stage in flow.clocks)
            flow.stage(f"{name}-{same + 1}" if same else name, _serving(sink, channel))

    def put(self, strip: Strip) -> None:
        """Hand over the next strip, as soon as there is room."""
        if self._first is not None:
            self._first.put(strip)
        else:
            self._share(strip)

    def _share(self, strip: Strip) -> None:
        """Hand a strip of the slide to all sinks."""
        for mark in self._marks:
            strip = mark(strip)
        for channel in self._channels:
            channel.put(strip)

    def close(self) -> None:
        """Say that there are no more."""
        for channel in self._channels if self._first is None else [self._first]:
            channel.close()

    def _rescale(self) -> None:
        assert self._first is not None
        assert self._back is not None
        for strip in self._first:
            self._share(self._back.strip(strip))
        for channel in self._channels:
            channel.close()


def _serving(sink: Sink, channel: Channel[Strip]) -> Callable[[], None]:
    """Return the work of a sink's stage."""

    def work() -> None:
        for strip in channel:
            sink.write(strip)
            del strip  # while this waits for the next one, its memory can be used again

    return work
