import pytest
import torch

from cellseg.train.config import TrainConfig, parse
from cellseg.train.models import build_model
from cellseg.train.running.schedule import Ema, Schedule


def config(**changes: object) -> TrainConfig:
    return parse({"learning_rate": 1.0, "init_channel_number": 2, "model_deep": 1, **changes}, "test")


@pytest.mark.parametrize(("patience", "decays_at"), [(4, 2), (5, 3), (20, 10)])
def test_a_plateau_decays_once_at_half_the_patience_and_then_ends(patience: int, decays_at: int) -> None:
    """As in the original: patience counts down; with half of it left the rate falls to a tenth, once."""
    schedule = Schedule(config(patience=patience), 1000)
    assert schedule.observe(0.5)
    rates = []
    while not schedule.exhausted:
        assert not schedule.observe(0.5)
        rates.append(schedule.rate(10))
    assert len(rates) == patience
    assert rates == [pytest.approx(1.0 if i + 1 < decays_at else 0.1) for i in range(patience)]


def test_a_better_score_restores_patience_but_not_the_rate() -> None:
    schedule = Schedule(config(patience=4), 1000)
    for score in (0.5, 0.4, 0.4):
        schedule.observe(score)
    assert schedule.rate(0) == pytest.approx(0.1)
    assert schedule.observe(0.6)
    assert schedule.waited == 0
    assert schedule.rate(0) == pytest.approx(0.1)


def test_warm_up_and_cosine() -> None:
    schedule = Schedule(config(warmup=9, schedule="cosine"), 100)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[50] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    for _ in range(30):
        schedule.observe(0)
    assert schedule.rate(50) == rates[50]  # no decay on a plateau on top of the cosine


def test_state_comes_back() -> None:
    schedule, other = Schedule(config(patience=4), 10), Schedule(config(patience=4), 10)
    for score in (0.5, 0.4, 0.4):
        schedule.observe(score)
    other.load(schedule.state())
    assert other.state() == schedule.state()


def test_the_average_follows_the_weights_and_copies_the_counters() -> None:
    torch.manual_seed(0)
    model = build_model(config())
    average = Ema(model, 0.5)
    weight, start = model.heads.heads["mask"].weight, average.model.heads.heads["mask"].weight.clone()
    with torch.no_grad():
        weight += 1
        model(torch.rand(1, 3, 8, 8))
    average.update(step=1000)
    torch.testing.assert_close(average.model.heads.heads["mask"].weight, start + 0.5)
    counters = [v for name, v in average.model.state_dict().items() if name.endswith("num_batches_tracked")]
    assert all(int(counter) == 1 for counter in counters)
    assert not any(p.requires_grad for p in average.model.parameters())
    average.update(step=0)  # early steps count for more: decay 0.1
    torch.testing.assert_close(average.model.heads.heads["mask"].weight, start + 0.95)
