import numpy as np

from cellseg.runtime.evaluate import evaluate


def test_pairs_of_label_images() -> None:
    truth = np.zeros((20, 20), np.int32)
    truth[2:6, 2:6], truth[10:15, 10:15] = 1, 2
    found = np.where(truth == 1, 70_001, 0)
    assert evaluate([(truth, truth)])["ap50"] == 1
    assert evaluate([(truth, found)])["ap50"] == 0.5
