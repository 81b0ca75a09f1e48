"""The search: which point to try next, by Optuna. Resumable: a journal beside the pictures holds the trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.commands.tune.space import Lever, Point
from diffgen.errors import DiffgenError
from diffgen.types import canonical

ACCEPTED = 0.5  # the least share of accepted images: others would take more than twice as long
SPARE = (0.02, 0.04, 0.07)  # shares of the objects
RANDOM = 16  # points before the search begins to learn


@dataclass(frozen=True, slots=True)
class Tried:
    """A condition at a point. `ratio` is its distance to the target (1: that of the original recipe), `truth` the share
    of labelled objects that are found again, `accepted` the share of images that pass the checks."""

    condition: str
    point: Point
    ratio: float
    truth: float
    accepted: float

    def allowed(self, least: float) -> bool:
        return self.truth >= least and self.accepted >= ACCEPTED


Try = Callable[[str, Point], Tried | None]  # None: stopped


class Search:
    """Tries points of one space. `name` identifies what the trials depend on: with another name the search starts over. With
    another `least` it keeps its trials."""

    def __init__(
        self, journal: Path, name: str, levers: Sequence[Lever], conditions: Sequence[str], least: float
    ) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._levers, self._conditions, self._least = optuna, levers, conditions, least
        journal.parent.mkdir(parents=True, exist_ok=True)
        try:
            storage = JournalStorage(JournalFileBackend(str(journal)))
            self._study = optuna.create_study(storage=storage, study_name=f"{name} {least:.4f}", load_if_exists=True)
            if not self._study.trials:
                self._study.add_trials(self._with_another_limit(storage, name))
        except Exception as error:  # a damaged journal can raise anything  # noqa: BLE001
            raise DiffgenError(f"{journal}: cannot read the trials: {error}", "remove the file to start over") from None
        left = [trial for trial in self._study.trials if trial.state == optuna.trial.TrialState.RUNNING]
        for trial in left:  # a run that was stopped in the middle: its pictures are made already, so try it first
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            if trial.params:
                self._study.enqueue_trial(trial.params)

    def _with_another_limit(self, storage: Any, name: str) -> list[Any]:
        """The trials of this search with another `least`, the most that there are."""
        names = [one for one in self._optuna.get_all_study_names(storage) if one.startswith(f"{name} ")]
        studies = [self._optuna.load_study(study_name=one, storage=storage).trials for one in names]
        trials = [trial for trial in max(studies, key=len) if "tried" in trial.user_attrs]
        return [
            self._optuna.trial.create_trial(
                value=trial.value,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
                constraints=self._violations(Tried(**trial.user_attrs["tried"])),
            )
            for trial in trials
        ]

    def _violations(self, one: Tried) -> dict[str, float]:
        """By how much a point fails each limit, if above 0."""
        return {"truth": self._least - one.truth, "accepted": ACCEPTED - one.accepted}

    @property
    def tried(self) -> list[Tried]:
        return [Tried(**trial.user_attrs["tried"]) for trial in self._study.trials if "tried" in trial.user_attrs]

    def suggest(self, points: Sequence[tuple[str, Point]]) -> None:
        """Points to try first; those that were tried already are not tried again."""
        for condition, point in points:
            places = {lever.name: _place(lever, point[lever.name]) for lever in self._levers}
            self._study.enqueue_trial({"condition": condition, **places}, skip_if_exists=True)

    def run(self, budget: int, attempt: Try, told: Callable[[int, Tried], None]) -> bool:
        """Try points until `budget` are tried. Returns False if it was stopped."""
        while (done := len(self.tried)) < budget:
            # A new sampler for each trial, so that a resumed search continues like one that was never stopped.
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=done, multivariate=True, n_startup_trials=RANDOM
            )
            trial = self._study.ask()
            condition = trial.suggest_categorical("condition", list(self._conditions))
            result = attempt(condition, {lever.name: _suggested(trial, lever) for lever in self._levers})
            if result is None:
                return False
            attributes = {name: getattr(result, name) for name in Tried.__slots__}
            trial.set_user_attr("tried", attributes)
            for name, by in self._violations(result).items():
                trial.set_constraint(name, by)
            self._study.tell(trial, result.ratio)
            told(done + 1, result)
        return True

    def best(self) -> list[Tried]:
        """The nearest point of each condition, and the nearest of all that find more objects again than they must, by each
        of SPARE: what holds for a few small pictures need not hold for more."""
        ranked = sorted(self.tried, key=lambda one: one.ratio)
        wanted = [(condition, 0.0) for condition in self._conditions] + [(None, spare) for spare in SPARE]
        chosen: dict[str, Tried] = {}
        for condition, spare in wanted:
            for one in ranked:
                if one.allowed(self._least + spare) and condition in (None, one.condition):
                    chosen.setdefault(canonical([one.condition, one.point]), one)
                    break
        return list(chosen.values())


def _suggested(trial: Any, lever: Lever) -> Any:
    """Numbers by their place in the grid, so that the search knows which are near."""
    if lever.ordered:
        return lever.values[trial.suggest_int(lever.name, 0, len(lever.values) - 1)]
    return trial.suggest_categorical(lever.name, list(lever.values))


def _place(lever: Lever, value: Any) -> Any:
    """A value as the sampler sees it: the index of the nearest number in the grid, or the word itself."""
    if not lever.ordered:
        return value
    return min(range(len(lever.values)), key=lambda i: abs(lever.values[i] - value))
