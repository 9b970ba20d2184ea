"""Predictions on one's own images: one COCO file with scores, and pictures; what tools/predict.py calls."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import cv2

from ssod.data.decode import read_image
from ssod.data.image_sources import SUFFIXES
from ssod.data.pseudo_coco import PseudoFile, read_pseudo_coco
from ssod.data.unlabeled import ImageFile
from ssod.engine.offline.label_command import Job, prepare
from ssod.engine.offline.labeling import Status, summary
from ssod.engine.offline.partial import partial_files
from ssod.engine.offline.provenance import check_output
from ssod.engine.records.box_pictures import draw_boxes, palette
from ssod.engine.records.console import ImageCounter
from ssod.engine.records.writing import check_out, make_folder, replacing
from ssod.engine.runner import warnings_to_log
from ssod.engine.stop import StopSignal
from ssod.errors import UserError
from ssod.models.plain import compute_as_mmdet
from ssod.registry import register_all_modules

PREDICTIONS = "predictions.json"
PICTURES = "pictures"
# How images are searched, as `label_images` has it; decimals: of a pixel, all that float32 has.
HOW: dict[str, Any] = dict(most_bad=None, title="predicting", decimals=6, as_alone=True)
CHUNK = 32  # pictures between two looks at whether a signal came
JPEG_QUALITY = 92


def predict(
    config_path: str | Path,
    checkpoint: str | Path,
    source: str | Path,
    out: str | Path,
    min_score: float = 0.3,
    pictures: bool = True,
    resume: bool = False,
    **chosen: Any,
) -> Status:
    """Writes `predictions.json` and `pictures/` to the folder `out`; "stopped" if a signal came first.

    The network computes as mmdet's own detector does for one image at a time. Images that can't be read are
    named and left out, in the file under "skipped". A picture has its image's name below the source's folder.
    What an earlier call with the same arguments has finished stays; with `resume` also what it had begun.
    chosen: the other arguments of `label_command.prepare`. Raises UserError for bad input, or a folder that
    holds anything else.
    """
    register_all_modules()
    folder = Path(out)
    _check_folder(folder, source)
    file = folder / PREDICTIONS
    with warnings_to_log():
        job = prepare(config_path, checkpoint, source, min_score, **chosen)
        print(_network_line(job, checkpoint, chosen.get("which")))
        compute_as_mmdet(job.model)
        stop = StopSignal()
        make_folder(folder)
        if check_output(file, job.provenance):
            print(f"{file} holds these predictions already")
        elif job.label(file, resume, stop=stop, **HOW) == "stopped":
            print(f"stopped: run again with --resume to finish {file}")
            return "stopped"
        if pictures and _draw_missing(job, file, stop) == "stopped":
            print(f"stopped: run again to finish {folder / PICTURES}")
            return "stopped"
    print(summary(file))
    return "done"


def _network_line(job: Job, checkpoint: str | Path, which: str | None) -> str:
    """Which network predicts, and how to have the other one where the file's name suggests it."""
    network, name = job.provenance.network, Path(checkpoint).name
    other = [each for each in job.model.which if each != network and name == f"best_{each}.pth"]
    hint = f" (the file was kept for its {other[0]}: --which {other[0]})" if other and not which else ""
    return f"{network} of {checkpoint}{hint}"


def _check_folder(folder: Path, source: str | Path) -> None:
    """Raises UserError where something else would be overwritten, or pictures be taken for images later."""
    if Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
        raise UserError(f"--out {folder} lies in the folder of the images, {source}: name one outside of it")
    ours = {PREDICTIONS, f".{PREDICTIONS}.new", *(each.name for each in partial_files(folder / PREDICTIONS))}
    check_out(folder, ours | {PICTURES} if any((folder / each).exists() for each in ours) else ours)


# ---------------------------------------------------------------- pictures


def _draw_missing(job: Job, file: Path, stop: StopSignal) -> Status:
    """Draws the pictures that are not there, or older than the predictions."""
    content, begun = read_pseudo_coco(file), file.stat().st_mtime_ns
    folder = file.with_name(PICTURES)
    found = _boxes_of(content)
    colours = dict(zip((each["id"] for each in job.categories), palette(len(job.categories)), strict=True))
    kept = {image["id"] for image in content.images}
    names = picture_names(job.images.images)
    images = [(image, folder / name) for image, name in zip(job.images.images, names, strict=True)]
    images = [each for each in images if each[0].id in kept]
    missing = [(image, path) for image, path in images if not _is_fresh(path, begun)]

    def draw(task: tuple[ImageFile, Path]) -> None:
        image, path = task
        boxes, texts, kinds = found.get(image.id, ((), (), ()))
        drawn = draw_boxes(read_image(image.path), boxes, texts, [colours[kind] for kind in kinds])
        _write(path, drawn)

    counter = ImageCounter("drawing", len(images), len(images) - len(missing))
    with ThreadPoolExecutor(max(job.num_workers, 1)) as pool, counter, stop.listening():
        for start in range(0, len(missing), CHUNK):
            if stop.agreed():
                return "stopped"
            chunk = missing[start : start + CHUNK]
            list(pool.map(draw, chunk))
            counter.advance(len(chunk))
    return "stopped" if stop.agreed() else "done"


def _boxes_of(content: PseudoFile) -> Mapping[Any, tuple[list[Any], list[str], list[Any]]]:
    """For each image with any: its boxes' corners, their texts and their categories."""
    names = {each["id"]: each["name"] for each in content.categories}
    found: dict[Any, tuple[list[Any], list[str], list[Any]]] = {}
    for one in content.annotations:
        x, y, width, height = one["bbox"]
        boxes, texts, kinds = found.setdefault(one["image_id"], ([], [], []))
        boxes.append((x, y, x + width, y + height))
        texts.append(f"{names[one['category_id']]} {one['score']:.2f}")
        kinds.append(one["category_id"])
    return found


def _is_fresh(path: Path, begun: int) -> bool:
    try:
        return path.stat().st_mtime_ns >= begun
    except OSError:
        return False


def picture_names(images: Sequence[ImageFile]) -> list[str]:
    """For each image the name of its picture, its own below the folder that all lie in; no two are the same.

    One of a kind that can't be written (.gif) gets .jpg behind its name. Where the name is another image's,
    or the same image comes twice, a number follows: a_2.jpg.
    """
    own = list(_names(images))
    made = [name if name.lower().endswith(SUFFIXES) else f"{name}.jpg" for name in own]
    reserved, taken = set(own), {*own, *made}
    names: dict[str, None] = {}  # in order
    for name, wanted in zip(own, made, strict=True):
        if wanted in names or (wanted != name and wanted in reserved):
            path = PurePosixPath(wanted)
            numbered = (str(path.with_name(f"{path.stem}_{number}{path.suffix}")) for number in count(2))
            wanted = next(each for each in numbered if each not in taken)
            taken.add(wanted)
        names[wanted] = None
    return list(names)


def _names(images: Sequence[ImageFile]) -> Iterator[str]:
    named = [Path(image.file_name) for image in images]
    if not any(name.is_absolute() or ".." in name.parts for name in named):
        yield from (name.as_posix() for name in named)
        return
    paths = [os.path.abspath(image.path) for image in images]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    yield from (Path(os.path.relpath(path, common)).as_posix() for path in paths)


def _write(path: Path, picture: Any) -> None:
    """Writes a picture whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, coded = cv2.imencode(path.suffix, picture, _options(path.suffix.lower()))
    with replacing(path) as partial:  # cv2.imwrite says nothing of a full disk
        partial.write_bytes(coded.tobytes())


def _options(suffix: str) -> list[int]:
    if suffix in (".jpg", ".jpeg"):
        return [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return [cv2.IMWRITE_WEBP_QUALITY, JPEG_QUALITY] if suffix == ".webp" else []
