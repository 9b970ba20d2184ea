"""Checks of a COCO file's records: keys, ids, references, classes. One function for each finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from ssod.data.checkup.findings import Finding, count, fails, hurts, lies, note, some
from ssod.data.checkup.parts import Part
from ssod.data.coco_file import ANNOTATION_KEYS, CLASSES_OF, IMAGE_KEYS, check_classes, shorten
from ssod.errors import UserError

FEW_BOXES = 10  # of a class in the labeled images, below which it is worth a note


def incomplete_records(part: Part) -> Iterator[Finding]:
    """Records without a key that the datasets read."""
    for section, records, keys in (
        ("images", part.images_in_file, IMAGE_KEYS),
        ("annotations", part.annotations, ANNOTATION_KEYS),
    ):
        bad = [i for i, one in enumerate(records) if not _has(one, keys)]
        if bad and part.ann_file:
            yield fails(
                "incomplete-record",
                part.where,
                f"{count(len(bad), 'record')} of '{section}' (index {some(bad)}) without one of "
                f"{', '.join(keys)}",
                "write the file again with all keys",
                records=len(bad),
            )


def _has(record: object, keys: Iterable[str]) -> bool:
    return isinstance(record, dict) and all(record.get(key) is not None for key in keys)


def duplicate_ids(part: Part) -> Iterator[Finding]:
    """Two images, or two annotations, with one id."""
    for section, records in (("image", part.images_in_file), ("annotation", part.annotations)):
        twice = _repeated(one.get("id") for one in records if isinstance(one, dict))
        if twice:
            yield fails(
                f"duplicate-{section}-id",
                part.where,
                f"{count(len(twice), 'id')} given to more than one {section}: {some(twice)}",
                f"number the {section}s again",
                ids=twice[:100],
            )


def _repeated(values: Iterable[object]) -> list[object]:
    """The values that come more than once, None left out."""
    return [value for value, times in Counter(values).items() if times > 1 and value is not None]


def images_listed_twice(part: Part) -> Iterator[Finding]:
    """A file name that two images of the part have."""
    twice = _repeated(one.get("file_name") for one in part.images)
    if twice:
        say = lies if part.evaluated else hurts
        effect = "its boxes count twice" if part.evaluated else "it is drawn twice as often"
        yield say(
            "image-listed-twice",
            part.where,
            f"{count(len(twice), 'file name')} in more than one image record, so that {effect}: "
            f"{some(twice)}",
            "keep one record, with all boxes of the image",
            files=twice[:100],
        )


def annotations_of_unknown_images(part: Part) -> Iterator[Finding]:
    """Annotations whose image the file does not list."""
    known = {one.get("id") for one in part.images_in_file if isinstance(one, dict)}
    bad = [one.get("id") for one in part.annotations if _record(one) and one.get("image_id") not in known]
    if bad:
        yield hurts(
            "annotation-of-unknown-image",
            part.where,
            f"{count(len(bad), 'annotation')} of images that are not in the file (ids {some(bad)}): unused",
            "add the image records, or remove the annotations",
            annotations=len(bad),
        )


def unknown_categories(part: Part) -> Iterator[Finding]:
    """Annotations of a category that the file does not list: mmdet drops them without a word."""
    known = {one.get("id") for one in part.categories}
    bad = [one for one in part.annotations if _record(one) and one.get("category_id") not in known]
    if bad:
        ids = sorted({str(one.get("category_id")) for one in bad})
        say = lies if part.evaluated else hurts
        effect = "the metric does not see them" if part.evaluated else "they are taught as background"
        yield say(
            "unknown-category",
            part.where,
            f"{count(len(bad), 'box')} of category {some(ids)}, which the file does not list: {effect}",
            "add the category to the file, or correct the boxes",
            boxes=len(bad),
        )


def _record(one: object) -> bool:
    return isinstance(one, dict)


def classes_of_the_file(part: Part) -> Iterator[Finding]:
    """Classes that are no categories of the file, or in another order: labels would be wrong."""
    if not part.has_boxes or not part.ann_file:
        return
    try:
        check_classes(part.ann_file, part.classes, part.categories)
    except UserError as error:
        mend = f"write {CLASSES_OF} as the file has them, in its order"
        yield fails("classes-not-of-file", part.where, error.one_line, mend)


def unused_categories(part: Part) -> Iterator[Finding]:
    """Categories with boxes that are not among the classes."""
    counts = box_counts(part, every=True)
    names = [name for name in counts if name not in part.classes and counts[name]]
    if part.has_boxes and names and set(part.classes) <= counts.keys():
        number = sum(counts[name] for name in names)
        yield note(
            "category-left-out",
            part.where,
            f"{count(number, 'box')} of {shorten(names)} are not used: these are not among the classes",
            "add them to classes and num_classes, if they should be found",
            boxes=number,
        )


def classes_without_boxes(part: Part) -> Iterator[Finding]:
    """Classes that can't be learned or measured, for the lack of any box."""
    counts = box_counts(part)
    empty = [name for name in part.classes if counts.get(name) == 0]
    if not part.has_boxes or not empty or not sum(counts.get(name, 0) for name in part.classes):
        return
    if part.evaluated:
        yield note(
            "class-not-evaluated",
            part.where,
            f"no box of {shorten(empty)}: COCO's AP is the mean over the other classes",
            "add images with them, or name the classes that count when you report AP",
        )
    else:
        yield hurts(
            "class-without-labels",
            part.where,
            f"no box of {shorten(empty)} in the labeled images: a class without a label is never found",
            "choose the labeled images so that each class comes (a stratified split), or drop the class",
        )


def classes_with_few_boxes(part: Part) -> Iterator[Finding]:
    """Classes with a handful of labels."""
    counts = box_counts(part)
    few = [f"{name} ({counts[name]})" for name in part.classes if 0 < counts.get(name, 0) < FEW_BOXES]
    if part.name == "labeled" and few:
        yield note(
            "class-with-few-labels",
            part.where,
            f"{count(len(few), 'class')} with fewer than {FEW_BOXES} labeled boxes: {some(few)}",
            "expect little of them, or label more",
        )


def no_labels(part: Part) -> Iterator[Finding]:
    """A part with boxes to be read, and not one of the classes'."""
    counts = box_counts(part)
    known = [name for name in part.classes if name in counts]  # others are another finding
    if part.has_boxes and known and part.images and not any(counts[name] for name in known):
        say = lies if part.evaluated else fails
        yield say(
            "no-box",
            part.where,
            f"not one box in {count(len(part.images), 'image')}",
            "name the file with the boxes",
        )


def no_images(part: Part) -> Iterator[Finding]:
    """A part without any image."""
    if not part.images:
        chosen = " after only_ids, except_ids and indices" if part.images_in_file else ""
        yield fails("no-image", part.where, f"no image{chosen}", "name a file with images")


def box_counts(part: Part, every: bool = False) -> dict[str, int]:
    """How many boxes each category has: in the part's images, or in `every` image of the file."""
    names = {one.get("id"): str(one.get("name")) for one in part.categories}
    images = {one["id"] for one in part.images}
    counts = Counter(
        names.get(one.get("category_id"), "")
        for one in part.annotations
        if _record(one) and (every or one.get("image_id") in images)
    )
    return {name: counts[name] for name in names.values()}


CHECKS: tuple[Callable[[Part], Iterator[Finding]], ...] = (
    no_images,
    incomplete_records,
    duplicate_ids,
    images_listed_twice,
    annotations_of_unknown_images,
    unknown_categories,
    classes_of_the_file,
    unused_categories,
    classes_without_boxes,
    classes_with_few_boxes,
    no_labels,
)
