"""Pictures of what the teacher labels: the same few unlabeled images, at every validation."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ssod.data.hidden_truth import HiddenTruth
from ssod.engine.evaluate import unwrap
from ssod.engine.records.writing import replacing
from ssod.engine.saving import random_state
from ssod.errors import RunError
from ssod.registry import HOOKS

Image = npt.NDArray[np.uint8]
FOLDER = "pseudo_labels"
TEACHER_COLOUR = (60, 200, 60)  # BGR
UNUSED_COLOUR = (170, 170, 170)  # a box that supervises nothing
TRUTH_COLOUR = (255, 255, 255)  # dashed, so that it is told from boxes in any light
MASK_COLOURS = ((255, 140, 40), (40, 170, 255), (220, 80, 220), (80, 220, 220))
MIN_HEIGHT = 320  # pixels; smaller views are enlarged, or scores could not be read
MOST_SIDE = 65_500  # pixels of a JPEG's side, as OpenCV writes it
DASH = 6  # pixels, and as many between two dashes
FONT = cv2.FONT_HERSHEY_SIMPLEX


@HOOKS.register_module()
class PseudoLabelPictures(Hook):  # type: ignore[misc]
    """Writes `pseudo_labels/iter_XXXX.jpg` at each validation, of the first few unlabeled images.

    Left the weak view with the teacher's boxes and scores, right the strong view with the projected
    boxes, outlined once for each thing they supervise; the strong view alone where labels come from a
    file. The views are drawn once, with a generator of their own, and stay the same throughout the run. Where
    telemetry knows the hidden truth, it is there as dashed outlines.
    """

    priority = "LOW"

    def __init__(self, num_images: int = 4) -> None:
        self.num_images = num_images
        self.batch: dict[str, Any] | None = None
        self.truth: HiddenTruth | None = None

    def before_train(self, runner: Any) -> None:
        """Draws the views, from the dataset and beside the sampler."""
        if self.num_images > 0 and is_main_process():
            with random_state.preserved():
                random_state.seed_all(0)
                self.batch = fixed_batch(runner.train_dataloader, self.num_images)

    def after_hidden_truth(self, runner: Any, truth: HiddenTruth) -> None:
        """Keeps the hidden truth that telemetry has read: for the eye alone."""
        self.truth = truth

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Draws and writes the picture; nothing for a method without pseudo labels."""
        if self.batch is None:
            return
        model = unwrap(runner.model)
        with random_state.preserved(), torch.no_grad():
            labels = model.pseudo_labels(model.data_preprocessor(self.batch, True)["inputs"])
        if labels is None:
            return
        classes = runner.train_dataloader.dataset.metainfo.get("classes", ())
        folder = Path(runner.work_dir, FOLDER)
        folder.mkdir(exist_ok=True)
        digits = max(4, len(str(runner.max_iters)))
        path = folder / f"iter_{runner.iter:0{digits}d}.jpg"
        write_jpeg(path, shrunk(draw(self.batch, labels, classes, self.truth)), 90)


def fixed_batch(dataloader: Any, num_images: int) -> dict[str, Any] | None:
    """A collated batch of one labeled and the first unlabeled images; None for a supervised run."""
    dataset = dataloader.dataset
    sizes = getattr(dataset, "cumulative_sizes", None)
    if not sizes or len(sizes) < 2:
        return None
    chosen = range(sizes[0], min(sizes[0] + num_images, sizes[1]))
    batch = dict(dataloader.collate_fn([dataset[0], *(dataset[index] for index in chosen)]))
    return batch if "strong" in batch else None


def write_jpeg(path: Path, picture: Image, quality: int) -> None:
    """Writes a picture, at most MOST_SIDE on each side, whole or not at all."""
    done, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RunError(f"a picture of {picture.shape[1]} x {picture.shape[0]} px can't be written to {path}")
    with replacing(path) as partial:  # cv2.imwrite says nothing of a full disk
        partial.write_bytes(coded.tobytes())


def shrunk(picture: Image) -> Image:
    """The picture, smaller where a JPEG can't have its size; no training ends of many or narrow images."""
    scale = MOST_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(int(side * scale), 1) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def draw(
    batch: dict[str, Any], labels: dict[str, Any], classes: Any = (), truth: HiddenTruth | None = None
) -> Image:
    """The picture (H, W, 3) BGR: a row for each image, weak view (if any) left, strong right, a legend.

    truth: drawn as dashed outlines in both views, of the images that it knows.
    """
    masks = labels.get("masks") or {}
    colours = {name: MASK_COLOURS[i % len(MASK_COLOURS)] for i, name in enumerate(masks)}
    rows = []
    for index in range(len(batch["strong"]["inputs"])):
        marks = [(mask[index].cpu(), colours[name]) for name, mask in masks.items()]
        views = {"weak": None, "strong": marks} if "weak" in labels else {"strong": marks}
        drawn = [
            draw_view(
                batch[v]["inputs"][index],
                labels[v],
                index,
                classes,
                m,
                outlines=_truth(batch[v], index, truth),
            )
            for v, m in views.items()
        ]
        rows.append(side_by_side(drawn))
    return stacked([*rows, _legend(colours, "weak" in labels, truth is not None)])


def _truth(view: dict[str, Any], index: int, truth: HiddenTruth | None) -> Any:
    """The true boxes (N, 4) in a view's pixels; none where they are not known."""
    known = None if truth is None else truth.in_view(view["data_samples"][index])
    return () if known is None else known.boxes


def draw_view(
    image: Any,
    labels: Any,
    index: int,
    classes: Any,
    marks: Any,
    title: str | None = None,
    outlines: Any = (),
) -> Image:
    """One view (H, W, 3), BGR, with the boxes of image `index` of `labels`.

    image: (3, h, w) uint8, enlarged to be legible · marks: (mask (K,), colour) pairs, or None for boxes that
    are all of one kind · title: for a view with known boxes; it has MIN_HEIGHT then, and no scores ·
    outlines: (N, 4) boxes to dash below the others.
    """
    pixels: Image = np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0))
    scale = MIN_HEIGHT / pixels.shape[0]
    scale = max(1.0, scale) if title is None else scale
    pixels = np.ascontiguousarray(cv2.resize(pixels, None, fx=scale, fy=scale), dtype=np.uint8)
    for box in outlines:
        _dash(pixels, *(round(float(value) * scale) for value in box))
    boxes = (labels.boxes[index].float().cpu().numpy() * scale).round().astype(int)
    scores, names = labels.scores[index].cpu().tolist(), labels.classes[index].cpu().tolist()
    for slot in np.flatnonzero(labels.valid[index].cpu().numpy()):
        colours = [TEACHER_COLOUR] if marks is None else [c for mask, c in marks if mask[slot]]
        left, top, right, bottom = (int(value) for value in boxes[slot])
        for ring, colour in enumerate(colours or [UNUSED_COLOUR]):
            corner, other = (left + 2 * ring, top + 2 * ring), (right - 2 * ring, bottom - 2 * ring)
            cv2.rectangle(pixels, corner, other, colour, 2)
        name = classes[names[slot]] if names[slot] < len(classes) else str(names[slot])
        text = f"{name} {scores[slot]:.2f}" if title is None else name
        _write(pixels, text, (left, max(top - 4, 11)), (colours or [UNUSED_COLOUR])[0])
    if title is not None:
        _write(pixels, title, (6, pixels.shape[0] - 8), (255, 255, 255))
    return pixels


def _dash(pixels: Image, left: int, top: int, right: int, bottom: int) -> None:
    """Outlines a box with dashes that have a dark rim, to be seen on any ground."""
    sides = (
        ((left, top), (right, top)), ((right, top), (right, bottom)),
        ((right, bottom), (left, bottom)), ((left, bottom), (left, top)),
    )  # fmt: skip
    for colour, width in (((0, 0, 0), 3), (TRUTH_COLOUR, 1)):
        for (x, y), (other_x, other_y) in sides:
            length = abs(other_x - x) + abs(other_y - y)
            for begin in range(0, length, 2 * DASH):
                ends = [min(place, length) / max(length, 1) for place in (begin, begin + DASH)]
                points = [(round(x + (other_x - x) * t), round(y + (other_y - y) * t)) for t in ends]
                cv2.line(pixels, points[0], points[1], colour, width)


def _write(pixels: Image, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Puts text on an image, with a dark rim so that it can be read on anything."""
    cv2.putText(pixels, text, place, FONT, 0.42, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(pixels, text, place, FONT, 0.42, colour, 1, cv2.LINE_AA)


def stacked(rows: list[Image]) -> Image:
    """The rows below each other, padded with white to the widest."""
    return np.concatenate(_same_width(rows), axis=0)


def side_by_side(images: list[Image]) -> Image:
    """The images in a row, padded to the tallest, with a gap between them."""
    height = max(image.shape[0] for image in images) + 6
    padded = [
        np.pad(image, ((0, height - image.shape[0]), (0, 6), (0, 0)), constant_values=255) for image in images
    ]
    return np.concatenate(padded, axis=1)


def _same_width(rows: list[Image]) -> list[Image]:
    """The rows, padded with white to the widest."""
    width = max(row.shape[1] for row in rows)
    return [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]


def _legend(
    colours: dict[str, tuple[int, int, int]], with_weak: bool = True, with_truth: bool = False
) -> Image:
    """A strip that names the colours."""
    entries = {"weak view: teacher": TEACHER_COLOUR} if with_weak else {}
    entries |= {f"strong view: {name}" if i == 0 else name: c for i, (name, c) in enumerate(colours.items())}
    entries["unused"] = UNUSED_COLOUR
    if with_truth:
        entries["dashed: hidden truth"] = TRUTH_COLOUR
    strip: Image = np.full((26, 640, 3), 40, dtype=np.uint8)
    left = 8
    for name, colour in entries.items():
        cv2.putText(strip, name, (left, 18), FONT, 0.45, colour, 1, cv2.LINE_AA)
        left += cv2.getTextSize(name, FONT, 0.45, 1)[0][0] + 22
    return strip
