"""The one function that serves the command, the ablation and Python."""

import numpy as np
import pytest

from cellseg.runtime.errors import UsageError
from cellseg.runtime.model.spec import SplitSettings
from cellseg.runtime.testing.local_engine import local_spec
from cellseg.runtime.tuning.cases import Case
from cellseg.runtime.tuning.trials import goal, try_settings
from cellseg.runtime.tuning.tune import TuneOptions, tune

from .test_search import CASES

SPEC = local_spec(1, heads=("mask",), split=SplitSettings(mask_threshold=200, min_area=120))


def test_it_finds_better_settings_and_says_how_far_it_is() -> None:
    told: list[tuple[str, int, int]] = []
    found = tune(CASES, SPEC, TuneOptions(trials=24, jobs=1), lambda *each: told.append(each))
    assert goal(found.after) > goal(found.before)
    assert found.before == try_settings(CASES, SPEC.heads, SPEC.split)
    assert {part for part, _, _ in told} == {"trying", "fitting"}
    assert all(done <= total for _, done, total in told)
    assert tune(CASES, SPEC, TuneOptions(trials=24, jobs=1)) == found  # whoever looks on
    plain = tune(CASES, SPEC, TuneOptions(trials=24, jobs=1, rules=False))
    assert plain.split.join is plain.split.score is None
    fixed = tune(CASES, SPEC, TuneOptions(trials=24, jobs=1, rules=False, fixed=("mask_threshold",)))
    assert fixed.split.mask_threshold == 200


def test_a_model_keeps_its_own_settings_where_nothing_is_better() -> None:
    good = tune(CASES, SPEC, TuneOptions(trials=24, jobs=1))
    again = tune(
        CASES, SPEC.model_copy(update={"split": good.split}), TuneOptions(trials=1, jobs=1, rules=False)
    )
    assert again.split == good.split
    assert again.after == again.before


def test_nothing_to_tune() -> None:
    with pytest.raises(UsageError, match="no picture to tune on"):
        tune([], SPEC)
    with pytest.raises(UsageError, match="fix='colour': this model has the settings mask_threshold, "):
        tune(CASES, SPEC, TuneOptions(fixed=("colour",)))
    empty = Case("all", np.zeros((1, 32, 32), np.uint8), np.zeros((32, 32), np.int32))
    assert tune([empty], SPEC, TuneOptions(trials=2, jobs=1)).after["all"]["cells_pred"] == 0
