import numpy as np
import pytest
from numpy.typing import NDArray

from cellseg.export import sizes
from cellseg.export.assemble import Exported
from cellseg.runtime.backends import Backend
from cellseg.runtime.errors import BackendError
from cellseg.runtime.model.spec import Head, ModelSpec


class Clock:
    """A clock that only engines move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(Backend):
    """An engine that needs a stated time for each batch and refuses large tiles."""

    name, device, largest = "timed", "cpu", 768

    def __init__(self, clock: Clock) -> None:
        spec = ModelSpec(
            name="t", architecture="MCUNET", channels=1, heads=(Head(name="mask"),), multiple=8, halo=64,
            receptive_field=60,
        )  # fmt: skip
        super().__init__(spec)
        self.clock = clock

    def _prepare(self, tile: int, batch: int) -> None:
        if tile > self.largest:
            raise BackendError("out of memory")

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> "Timed":
        # 10 ms a batch and 100 ns a pixel: larger batches are faster.
        self.clock.now += 0.01 + batch[..., 0].size * 1e-7
        return self

    def result(self) -> NDArray[np.uint8]:
        return np.zeros(0, np.uint8)


def test_candidates_fit_the_halo_and_the_multiple() -> None:
    found = list(sizes.candidates(96, 32))
    assert {tile for tile, _ in found} == {512, 768, 1024, 1216, 1536, 2048}
    assert (1536, 2) not in found
    assert (512, 4) in found


def test_the_fastest_per_useful_pixel_comes_first() -> None:
    clock = Clock()
    rates = sizes.measure(Timed(clock), 64, clock)
    assert (rates[0].tile, rates[0].batch) == (768, 4)
    assert {rate.tile for rate in rates} == {384, 512, 768}  # beyond, the engine refuses
    expected = 4 * 0.768**2 / (0.01 + 4 * 768**2 * 1e-7)
    assert rates[0].computed == pytest.approx(expected, rel=0.2)
    assert rates[0].useful == pytest.approx(rates[0].computed * (1 - 128 / 768) ** 2)
    assert [rate.useful for rate in rates] == sorted((rate.useful for rate in rates), reverse=True)


def test_a_size_that_was_disturbed_once_is_not_lost() -> None:
    clock = Clock()
    engine = Timed(clock)
    quiet = {(rate.tile, rate.batch): rate.useful for rate in sizes.measure(engine, 64, clock)}
    submit, disturbed = engine._submit, 0

    def slow_at_first(batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Timed:
        nonlocal disturbed
        if (engine.tile, engine.batch) == (768, 4) and disturbed < 3:
            disturbed += 1
            clock.now += 0.05  # as when another process takes the core for a while
        return submit(batch, planes)

    engine._submit = slow_at_first  # type: ignore[method-assign]
    rates = sizes.measure(engine, 64, clock)
    assert disturbed == 3
    assert rates[0].useful == pytest.approx(quiet[768, 4])


def test_the_least_memory_wins_among_equals() -> None:
    rates = [sizes.Rate(1536, 1, 0, 2.29), sizes.Rate(1024, 1, 0, 2.28), sizes.Rate(512, 1, 0, 2.1)]
    assert sizes.choose(rates) == rates[1]
    assert sizes.choose(rates[2:]) == rates[2]


def test_an_engine_that_runs_none_is_named() -> None:
    clock = Clock()
    backend = Timed(clock)
    backend.largest = 100
    with pytest.raises(BackendError, match="none of the tile sizes"):
        sizes.measure(backend, 64, clock)
    assert not list(sizes.candidates(2000, 8))


def test_a_real_engine_is_measured(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellseg.export import assemble

    monkeypatch.setattr(sizes, "TILES", (96, 128))
    monkeypatch.setattr(sizes, "SECONDS", 0.0)
    said: list[str] = []
    spec = assemble._with_fastest(exported.path, exported.spec.model_copy(update={"halo": 16}), said.append)
    assert spec.tile in (96, 128)
    assert len(said) == 2 + 2 * len(sizes.BATCHES)
