"""Steps timed in turns, and what is said of the times: medians, spreads, ratios round by round."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Protocol


class Stepping(Protocol):
    """Something whose steps can be timed: `prepare` is not, `step` is."""

    name: str

    def prepare(self, seed: int) -> None:
        """Makes ready for a step that depends on nothing but the seed."""

    def step(self) -> Any:
        """One training step."""


def interleave(
    contestants: Sequence[Stepping],
    rounds: int,
    wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds of each contestant's step in each round, by name.

    Every round runs all of them, the first one of a round being the second of the one before: what slows the
    machine for a while slows all of them. A round before the first is not counted: it makes optimizer state,
    picks kernels and fills caches.
    wait: returns when the device has nothing left to do · say: is told of each round.
    """
    seconds: dict[str, list[float]] = {each.name: [] for each in contestants}
    for turn in range(rounds + 1):
        first = turn % len(contestants)
        say(f"round {turn} of {rounds}" if turn else "a round that does not count")
        for each in (*contestants[first:], *contestants[:first]):
            each.prepare(turn)
            wait()
            began = clock()
            each.step()
            wait()
            if turn:
                seconds[each.name].append(clock() - began)
    return seconds


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and largest of some values, and the values."""
    return {"median": median(values), "low": min(values), "high": max(values), "rounds": list(values)}


def ratio(seconds: Mapping[str, Sequence[float]], over: str, under: str) -> dict[str, Any]:
    """The summary of one contestant's seconds over another's, divided round by round."""
    return summary([a / b for a, b in zip(seconds[over], seconds[under], strict=True)])


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """The summaries of all ratios that say something, such as "method/supervised", by name.

    A method to a supervised step, and ours to mmdet's: the other way round, and mmdet's on one set of kernels
    to itself on another, are left out.
    """
    ours = [name for name in seconds if name.startswith("method")]
    ours += [name for name in seconds if name == "supervised"]
    theirs = [name for name in seconds if name.startswith("mmdet_")]
    pairs = [(name, "supervised") for name in ours if name != "supervised"]
    pairs += [(own, other) for own in ours for other in theirs if (own, other[:12]) != WRONG]
    methods = [name for name in theirs if name.startswith("mmdet_method")]
    pairs += [(name, name.replace("method", "supervised")) for name in methods]
    pairs = [pair for pair in pairs if set(pair) <= set(seconds)]
    return {f"{over}/{under}": ratio(seconds, over, under) for over, under in pairs}


WRONG = ("supervised", "mmdet_method")  # the cheaper work over the dearer one
