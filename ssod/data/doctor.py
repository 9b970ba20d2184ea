"""What is wrong with the data of a config, gathered in one go: what tools/doctor.py says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ssod.data.checkup import boxes, images, records
from ssod.data.checkup.findings import Finding, fact, ranked
from ssod.data.checkup.parts import Part, Reader, dataset_configs, described, refused
from ssod.data.checkup.same_images import leaks, near_duplicates
from ssod.registry import DATASETS


def read_parts(config: Any) -> tuple[list[Part], list[Finding]]:
    """The parts of a config that can be read, and what is wrong with the others."""
    reader, parts, findings = Reader(), [], []
    for name, dataset in dataset_configs(config):
        read = reader.read(described(name, dataset))
        if isinstance(read, Finding):
            findings.append(read)
        else:
            parts.append(read)
    return parts, findings


def examine_data(parts: Sequence[Part], near: bool = False, decode_all: bool = False) -> list[Finding]:
    """The findings about the parts, ranked; facts last.

    near: looks for near-duplicates, too, for which every image is decoded · decode_all: decodes every image.
    Datasets in which nothing was found that would fail are built, as training does.
    """
    findings: list[Finding] = []
    for part in parts:
        found = list(examine_part(part, decode_all))
        if part.ann_file and not any(one.severity == "fails" for one in found):
            found += list(_refusals(part))
        findings += found
    findings += images.orientations(parts)
    findings += leaks(parts)
    if near:
        findings += near_duplicates(parts)
    findings += counts(parts)
    return ranked(findings)


def examine_part(part: Part, decode_all: bool = False) -> Iterator[Finding]:
    """The findings about one part."""
    for check in records.CHECKS:
        yield from check(part)
    arrays = boxes.boxes_of(part)
    for check_boxes in boxes.CHECKS:
        yield from check_boxes(part, arrays)
    seen = images.look_at(part, decode_all)
    for check_images in images.CHECKS:
        yield from check_images(part, seen)


def _refusals(part: Part) -> Iterator[Finding]:
    """What the dataset itself objects to, where no check above has seen it."""
    try:
        DATASETS.build({**part.config, "pipeline": []})
    except Exception as error:  # whatever it is, training would meet it, too
        yield refused(part, error)


def counts(parts: Sequence[Part]) -> Iterator[Finding]:
    """How many images and boxes there are, and how the classes are spread over the parts, side by side."""
    sizes: dict[str, dict[str, int]] = {}
    histogram: dict[str, dict[str, int]] = {}
    for part in parts:
        sizes[part.name] = {"images": len(part.images)}
        if part.has_boxes and part.ann_file:
            per_class = records.box_counts(part)
            sizes[part.name]["boxes"] = sum(per_class.get(name, 0) for name in part.classes)
            for name in part.classes:
                histogram.setdefault(name, {})[part.name] = per_class.get(name, 0)
    text = "; ".join(
        f"{name} {', '.join(f'{number:,} {what}' for what, number in numbers.items())}"
        for name, numbers in sizes.items()
    )
    yield fact("counts", "data", text, **sizes)
    yield fact("class-histogram", "data", "boxes of each class", **histogram)
