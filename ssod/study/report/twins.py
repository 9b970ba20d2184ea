"""The supervised twin of a run: the same labeled images, seed and number of iterations."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

from ssod.study.report.rows import SAME, check_same
from ssod.study.report.sections import section_of
from ssod.study.results import NETWORKS, Run

TESTED = {what: SAME[what] for what in ("test score thresholds", "evaluators")}


class Twins:
    """The supervised runs of a report, found by what they share with another run."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.unclear: list[str] = []  # sentences on runs for which several twins serve equally well
        self._by_key: dict[Hashable, list[Run]] = defaultdict(list)
        for run in runs:
            if run.is_supervised and run.split.get("ids_sha256"):
                self._by_key[_key(run)].append(run)

    def of(self, run: Run) -> Run | None:
        """The run's twin; None where there is none, or where several serve equally well.

        Raises UserError where the twins were tested in another way: the difference would be none of training.
        """
        if run.is_supervised:
            return None
        there = [each for each in self._by_key[_key(run)] if _same_detector(run, each)]
        candidates = [each for each in there if each.tested == run.tested]
        if there and not candidates:
            for what, read in TESTED.items():
                check_same(f"{run.name} beside its supervised twin", what, [run, there[0]], read)
        ranked = sorted(candidates, key=lambda each: _distance(run, each))
        if len(ranked) > 1 and _distance(run, ranked[0]) == _distance(run, ranked[1]):
            names = f"{ranked[0].name} and {ranked[1].name}"
            self.unclear.append(f"{run.name} is compared with no twin: {names} serve equally well.")
            return None
        return ranked[0] if ranked else None


def _key(run: Run) -> Hashable:
    return section_of(run), run.split.get("ids_sha256"), run.result["seed"], run.result["iterations"]


def _same_detector(run: Run, other: Run) -> bool:
    """Whether both train the same kind of detector, as far as their configs are known."""
    kinds = {each.telling.get("model.detector.type") for each in (run, other)} - {None}
    return len(kinds) < 2


def _distance(run: Run, other: Run) -> tuple[bool, int, int]:
    """How unlike a twin a run is: of another sweep, options of the detector that differ, and of all."""
    one, two = run.telling, other.telling
    differ = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    in_detector = sum(name.startswith("model.detector.") for name in differ)
    return run.place.get("sweep") != other.place.get("sweep"), in_detector, len(differ)


def counterpart(twin: Run, network: str) -> str | None:
    """The twin's network that a method's is compared with: the same one, else the only one it has."""
    there = twin.networks
    return network if network in there else next((name for name in NETWORKS if name in there), None)
