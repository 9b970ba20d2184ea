"""Whether the images of a run's parts are kept apart: looked at once, before training starts."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ssod.data.leaks import Leak, find_leaks, paths_of
from ssod.engine.faults.data_in_use import sources_of
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.mistakes import mistakes_in_config
from ssod.errors import UserError
from ssod.registry import DATASETS

NAMED = 3  # pairs that a message names
TESTED = ("val", "test")


def check_leaks(runner: Any, policy: DataPolicy) -> dict[str, Any]:
    """`{"count": n, "pairs": {"labeled and val": n, ...}, "text": ...}` of images that lie in two parts.

    Labeled images may not be unlabeled, too, nor may either be validated or tested on. Copies between the two
    tested parts are no leak. Raises UserError for leaks that the policy does not allow.
    """
    found = find_leaks(parts_of(runner))
    leaks = [leak for leak in found if not {leak.part, leak.other_part} <= set(TESTED)]
    counts = Counter(f"{leak.part} and {leak.other_part}" for leak in leaks)
    text = _told(leaks, counts) if leaks else ""
    if leaks and not policy.allow_leaks:
        raise UserError(f"{text}; take them out of one part, or set data_policy.allow_leaks=True")
    return {"count": len(leaks), "pairs": dict(counts), "text": text}


def parts_of(runner: Any) -> dict[str, list[str]]:
    """The images' paths of each part of a run: labeled, unlabeled, val and test."""
    labeled, *others = sources_of(runner.train_dataloader)
    parts = {"labeled": paths_of(labeled), "unlabeled": [path for each in others for path in paths_of(each)]}
    if runner.val_loop is not None:
        parts["val"] = paths_of(runner.val_loop.dataloader.dataset)
    test = (runner.cfg.get("test_dataloader") or {}).get("dataset")
    if test and test != (runner.cfg.get("val_dataloader") or {}).get("dataset"):
        parts["test"] = _test_paths(test)
    return {part: paths for part, paths in parts.items() if paths}


def _test_paths(config: Mapping[str, Any]) -> list[str]:
    """The test images' paths; none where they are not there, which hurts no training."""
    try:
        with mistakes_in_config():
            return paths_of(DATASETS.build({**config, "pipeline": []}))
    except UserError:
        return []


def _told(leaks: list[Leak], counts: Counter[str]) -> str:
    """One line: how many, between which parts, and the first few."""
    sums = ", ".join(f"{count} between {pair}" for pair, count in counts.items())
    named = "; ".join(f"{each.path} = {each.other_path}" for each in leaks[:NAMED])
    return f"the same image lies in two parts of the data, {sums}: {named}{'; ...' * (len(leaks) > NAMED)}"
