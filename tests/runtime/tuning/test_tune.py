"""The one function that serves the command, the ablation and Python."""

import numpy as np
import pytest

from cellseg.runtime.errors import UsageError
from cellseg.runtime.evaluation.metrics import score
from cellseg.runtime.model.spec import ScoreRule, SplitSettings
from cellseg.runtime.testing.local_engine import local_spec
from cellseg.runtime.tuning import tune as module
from cellseg.runtime.tuning.cases import Case
from cellseg.runtime.tuning.trials import goal, lead, try_settings
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


def test_rules_from_elsewhere_stay_where_others_are_hardly_better() -> None:
    """They were learned on many pictures, and a few of another kind can be better by chance."""
    fair = SplitSettings(mask_threshold=140, smoothing=1.0, persistence=10, min_area=20)
    sure, never = (ScoreRule(constant=c, inside={"mask": 0.0}, area=0.0, minimum=0.1) for c in (5.0, -40.0))
    own = SPEC.model_copy(update={"split": fair.model_copy(update={"score": sure})})
    few = TuneOptions(trials=40, jobs=1)
    some = tune(CASES[:1], own, few)
    assert goal(tune(CASES[:1], SPEC.model_copy(update={"split": fair}), few).after) > goal(some.before)
    assert some.split == own.split  # what is better on one picture may be so by chance
    assert some.after == some.before
    spoilt = SPEC.model_copy(update={"split": fair.model_copy(update={"score": never})})
    found = tune(CASES, spoilt, TuneOptions(trials=8, jobs=1))
    assert found.split != spoilt.split
    assert found.lead is not None
    assert found.lead[0] > found.lead[1]


@pytest.mark.parametrize(
    ("found", "taken"), [((0.018, 0.0), False), ((0.03, 0.015), False), ((0.03, 0.005), True)]
)
def test_a_small_lead_is_left_however_sure(
    found: tuple[float, float], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that one has resemble each other more than those to come."""
    monkeypatch.setattr(module, "lead", lambda *_: found)
    spoilt = SplitSettings(score=ScoreRule(constant=-40.0, inside={"mask": 0.0}, area=0.0, minimum=0.1))
    own = SPEC.model_copy(update={"split": spoilt})
    result = tune(CASES, own, TuneOptions(trials=4, jobs=1))
    assert (result.split != spoilt) is taken
    assert result.lead == found


def test_a_lead_and_its_error() -> None:
    good, bad = (score(case.truth, case.truth * part) for case, part in ((CASES[0], 1), (CASES[0], 0)))
    assert lead(CASES[:2], [bad, bad], [good, good], 0.5) == pytest.approx((1.0, 0.0))
    gain, error = lead(CASES[:1], [bad], [good], 0.5)
    assert (gain, error) == (1.0, float("inf"))
    # One picture of three is better: a third, and leaving one out gives 0 once and a half twice.
    gain, error = lead(CASES, [bad] * 3, [good, bad, bad], 0.5)
    assert gain == pytest.approx(1 / 3)
    assert error == pytest.approx((2 * ((1 / 3) ** 2 + 2 * (1 / 6) ** 2) / 3) ** 0.5)
