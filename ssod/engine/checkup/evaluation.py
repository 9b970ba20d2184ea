"""Checks of classes and evaluators, which stand in many places of a config. One function for each finding."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssod.data.checkup.findings import Finding, fails, lies
from ssod.data.coco_file import shorten
from ssod.engine.checkup.setup import Setup


def num_classes(setup: Setup) -> Iterator[Finding]:
    """The detector's number of classes against the datasets'."""
    for head in setup.box_heads:
        found = head.get("num_classes")
        if found is not None and setup.num_classes and found != setup.num_classes:
            yield fails(
                "num-classes",
                "model.detector",
                f"num_classes={found} in {head.get('type')}, {setup.num_classes} classes in the labeled data",
                f"set num_classes={setup.num_classes}",
            )
            return


def same_classes(setup: Setup) -> Iterator[Finding]:
    """The same classes in the same order in all datasets."""
    labeled = setup.part("labeled")
    for part in setup.declared:
        if labeled is not None and part.classes != labeled.classes:
            say = lies if part.evaluated else fails
            yield say(
                "classes-differ",
                part.where,
                f"classes {shorten(part.classes)}, the labeled dataset's are {shorten(labeled.classes)}",
                "write the classes once, as classes = (...) of the config, or the same in every metainfo",
            )


def evaluator_file(setup: Setup) -> Iterator[Finding]:
    """The evaluator's annotation file against its dataset's."""
    for name in ("val", "test"):
        part = setup.part(name)
        for evaluator in _evaluators(setup, name):
            ann_file = evaluator.get("ann_file")
            if part is not None and ann_file and not _same_file(str(ann_file), part.ann_file):
                yield lies(
                    "evaluator-of-other-file",
                    f"{name}_evaluator",
                    f"ann_file={ann_file}, the dataset's is {part.ann_file}",
                    "name the same file in both",
                )


def evaluator_counts_all(setup: Setup) -> Iterator[Finding]:
    """A dataset that shows a part of the file that its evaluator counts whole."""
    for name in ("val", "test"):
        part = setup.part(name)
        chosen = [
            key
            for key in ("only_ids", "except_ids", "indices")
            if part is not None and part.config.get(key) is not None
        ]
        if chosen and any(each.get("ann_file") for each in _evaluators(setup, name)):
            yield lies(
                "evaluator-counts-more",
                f"{name}_evaluator",
                f"the dataset takes a part ({chosen[0]}) of the file, the evaluator counts all of it: what "
                "is not shown is missed",
                "write the part as a file of its own, for both",
            )


def _evaluators(setup: Setup, name: str) -> list[Any]:
    given = setup.config.get(f"{name}_evaluator") or []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _same_file(one: str, other: str) -> bool:
    """Whether two paths are one file, or files of the same bytes."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return (
            hashlib.sha256(Path(one).read_bytes()).digest()
            == hashlib.sha256(Path(other).read_bytes()).digest()
        )
    except OSError:
        return False


def not_in_test_mode(setup: Setup) -> Iterator[Finding]:
    """An evaluated dataset that filters images."""
    for part in setup.declared:
        if part.evaluated and part.config.get("filter_cfg") and not part.config.get("test_mode"):
            yield lies(
                "evaluation-filters-images",
                part.where,
                f"filter_cfg={dict(part.config['filter_cfg'])} leaves images out of the evaluation",
                "set test_mode=True",
            )


CHECKS: tuple[Callable[[Setup], Iterator[Finding]], ...] = (
    num_classes,
    same_classes,
    evaluator_file,
    evaluator_counts_all,
    not_in_test_mode,
)
