import pytest
import torch

from cellseg.train import checkpoint
from cellseg.train.weights.keep import choose, shares


def test_a_share_of_the_start_stays_in_weights_and_statistics() -> None:
    start = {"weight": torch.tensor([0.0, 4.0]), "count": torch.tensor(3)}
    state = {"weight": torch.tensor([8.0, 0.0]), "count": torch.tensor(7)}
    found = checkpoint.blend(state, start, 0.25)
    assert found["weight"].tolist() == [6.0, 1.0]
    assert found["count"] == 7
    assert checkpoint.blend(state, {}, 0.0) is state


def test_a_checkpoint_gives_the_mean_of_its_start_and_of_its_averaged_weights() -> None:
    saved = {
        "model": {"w": torch.tensor(9.0)},
        "ema": {"w": torch.tensor(2.0)},
        "start": {"w": torch.tensor(0.0)},
    }
    assert checkpoint.weights(saved | {"keep": 0.5})["w"] == 1.0
    assert checkpoint.weights(saved | {"keep": 0.0})["w"] == 2.0
    assert checkpoint.trained(saved | {"keep": 0.5})["w"] == 2.0


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ({0.5: 0.52, 0.25: 0.56, 0.0: 0.55}, 0.5),  # as good as the best, nearly
        ({0.5: 0.10, 0.25: 0.51, 0.0: 0.55}, 0.25),
        ({0.5: 0.01, 0.25: 0.20, 0.0: 0.70}, 0.0),  # a kind that the start has never seen
        ({0.5: -1.2, 0.25: -1.05, 0.0: -1.0}, 0.25),  # losses, negated
        ({0.5: 0.0, 0.25: 0.0, 0.0: 0.0}, 0.5),
    ],
)
def test_the_largest_share_that_does_no_harm(scores: dict[float, float], wanted: float) -> None:
    assert choose(scores) == wanted


def test_nothing_of_the_start_is_always_tried() -> None:
    assert shares(0.5) == (0.5, 0.25, 0.0)
