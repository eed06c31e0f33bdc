"""Tune how a model's planes are split into cells, on pictures whose cells are known.

Settings of the splitter are tried on the planes, through the same splitter that the runtime uses
(:mod:`.search`). Afterwards the splitter may cut finer, and rules fitted to the same pictures join the pieces
and score the cells (:mod:`.rules`). Whether that is any better is seen on pictures that the rules were not
fitted to, each fifth in its turn.

A model that brings rules of its own, learned on more pictures than most people have, keeps them unless what
was found here is better by more than chance and by more than a little: pictures of one folder resemble each
other more than those to come, above all such as the network was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..common.spelling import option
from ..common.threads import cores
from ..errors import UsageError
from ..model.spec import ModelSpec, SplitSettings
from .cases import Case
from .search import search, with_rules
from .settings import FINER, initial_settings, names_for, oversegment
from .trials import Figures, goal, lead, runner, score_each

#: Told which part of the work (``trying``, ``fitting``) has done how many of how many steps.
Tell = Callable[[str, int, int], None]

#: A model's own rules give way to others that are better by this beyond the error. Leads of .011 to .021,
#: three to five errors, on tiles of five and ten patients' tissue became losses on that of other patients.
WORTH = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """How to tune."""

    #: Settings to try.
    trials: int = 300
    #: Of the search: equal seeds give equal results, whatever the number of processes.
    seed: int = 0
    #: How groups of pictures count: by their pictures at 0, all the same at 1.
    balance: float = 0.5
    #: Fit rules that join pieces and score cells.
    rules: bool = True
    #: Settings to leave as they are.
    fixed: tuple[str, ...] = ()
    #: Processes; ``None``: as many as there are cores.
    jobs: int | None = None

    def names(self, spec: ModelSpec) -> list[str]:
        """Return the settings that are searched for a model.

        Raises
        ------
        UsageError
            One that is to be left does not matter to this model.
        """
        known = names_for(spec.heads)
        for name in self.fixed:
            if name not in known:
                raise UsageError(f"{option('fix', name)}: this model has the settings {', '.join(known)}")
        return [name for name in known if name not in self.fixed]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it."""

    #: The best settings; the model's own where nothing was better.
    split: SplitSettings
    #: Figures of each group of pictures with the model's own settings and with the best.
    before: Figures
    after: Figures
    #: By how much what was found is better (of :func:`~.trials.goal`) than a model's own rules, and the
    #: standard error of that; ``None`` where it had none, or nothing else was found.
    lead: tuple[float, float] | None = None


def tune(
    cases: Sequence[Case],
    spec: ModelSpec,
    options: TuneOptions | None = None,
    tell: Tell = lambda part, done, total: None,
) -> Tuned:
    """Find the splitter's settings and rules that suit a model and a kind of picture.

    Parameters
    ----------
    cases
        Pictures with known cells: planes as :func:`~.cases.predict_planes` gives them, and true labels of
        their size. Rules need two at least.
    spec
        The model: its heads, and the settings to start from.
    options
        How; see :class:`TuneOptions`.
    tell
        Called as the work goes on.

    Returns
    -------
    Tuned
        Its figures are optimistic on the cases themselves; measure on others.

    Raises
    ------
    UsageError
        There is no case, or no setting of a name that is to be left.
    """
    wanted = options or TuneOptions()
    names = wanted.names(spec)
    if not cases:
        raise UsageError("there is no picture to tune on; give one at least")
    processes = min(wanted.jobs or cores(), max(wanted.trials, len(FINER)))
    bare = spec.split.model_copy(update={"join": None, "score": None})
    with runner(cases, spec.heads, processes) as run:
        tried = _Counter(tell, "trying", wanted.trials)
        first = initial_settings(bare, spec.heads, names)
        best, after, begun = search(
            bare, names, wanted.trials, wanted.seed, run.score, lambda _: tried(), first, wanted.balance
        )
        if wanted.rules and len(cases) > 1:  # what was fitted to one is to be tried on another
            candidates = oversegment(best, names)
            fitted = _Counter(tell, "fitting", len(candidates))
            best, after = with_rules(best, after, candidates, run, fitted, wanted.balance)
        before = begun if bare == spec.split else next(iter(run.score([spec.split])))
    if goal(before, wanted.balance) > goal(after, wanted.balance):
        return Tuned(spec.split, before, before)
    if bare == spec.split or best == spec.split:
        return Tuned(best, before, after)
    own = score_each(cases, spec.heads, wanted.balance, spec.split, refit=False)
    other = score_each(cases, spec.heads, wanted.balance, best, refit=True)
    gain, error = lead(cases, own, other, wanted.balance)
    if gain - error <= WORTH:
        return Tuned(spec.split, before, before, (gain, error))
    return Tuned(best, before, after, (gain, error))


class _Counter:
    """Counts the steps of a part of the work."""

    def __init__(self, tell: Tell, part: str, total: int) -> None:
        self._tell, self._part, self._total = tell, part, total
        self._done = 0

    def __call__(self) -> None:
        self._done += 1
        self._tell(self._part, self._done, self._total)
