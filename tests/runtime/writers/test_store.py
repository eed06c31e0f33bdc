"""A zarr store that can be thrown away while zarr writes."""

import asyncio
import threading

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from cellseg.runtime.writers.store import DiscardableStore


def test_holds_what_zarr_writes(tmp_path):
    array = zarr.create_array(DiscardableStore(tmp_path / "a"), data=np.arange(12), chunks=5)
    assert np.array_equal(array[:], np.arange(12))
    assert np.array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], np.arange(12))


@pytest.mark.parametrize("method", ["set", "set_if_not_exists"])
def test_discard_waits_for_writes_and_refuses_those_after(tmp_path, monkeypatch, method):
    under_way, go_on, gone = threading.Event(), threading.Event(), threading.Event()
    write = getattr(LocalStore, method)

    async def slow(self, key, value):
        under_way.set()
        await asyncio.to_thread(go_on.wait, 30)
        await write(self, key, value)

    monkeypatch.setattr(LocalStore, method, slow)
    store = DiscardableStore(tmp_path / "a")
    value = default_buffer_prototype().buffer.from_bytes(b"some bytes")

    def put():
        asyncio.run(getattr(store, method)("0/c/0", value))

    def discard():
        store.discard()
        gone.set()

    threads = [threading.Thread(target=put), threading.Thread(target=discard)]
    threads[0].start()
    assert under_way.wait(30)
    threads[1].start()
    assert not gone.wait(0.2)  # it waits for the write, which would make the folder again
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert gone.is_set()
    assert not (tmp_path / "a").exists()
    with pytest.raises(FileNotFoundError, match="was discarded"):
        put()
    assert not (tmp_path / "a").exists()
