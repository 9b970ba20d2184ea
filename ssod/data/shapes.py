"""The embedded dataset "shapes": a small hard detection task in COCO's format, drawn on first use.

Layout of a drawn folder::

    shapes/
    ├── version.json                            what it was drawn with; another value: draw again
    ├── train/000000.jpg ...  val/000000.jpg ...
    └── annotations/
        ├── train.json  val.json                every image with its boxes
        ├── train_labeled.json                  the labeled few (5 %)
        ├── train_unlabeled.json                the other images, without any annotation
        └── train_unlabeled_truth.json          the same images with their boxes: for telemetry only

The class is in the outline alone: colour, texture, size, position and clutter are drawn without
looking at it, so a detector can't take a short cut, and few labels don't suffice.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ssod.errors import UserError

CLASSES = ("disc", "ring", "bar", "triangle", "star", "cross")

# Raise it with every change that moves a pixel or a box: folders drawn before are then drawn again.
GENERATOR_VERSION = 6

MIN_VISIBLE_FRACTION = 0.6
MIN_BOX_SIDE = 7  # pixels; what is left of an occluded small object must still be a detection target
SIZE_RANGE = (24.0, 88.0)  # diameter in pixels, drawn log-uniformly
COUNT_PROBABILITIES = (0.09, 0.19, 0.25, 0.20, 0.14, 0.08, 0.05)  # of 1 to 7 objects
JPEG_QUALITY = 92
MARGIN = 48  # pixels around the image in which cut-off objects are still drawn, to know their area
SUPERSAMPLING = 4

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Shape:
    """One placed object: its class and its coverage in [0, 1] on the canvas with margins."""

    label: int
    diameter: float
    coverage: FloatArray  # (H + 2 MARGIN, W + 2 MARGIN)
    mask: BoolArray  # coverage > 1/2


# ------------------------------------------------------------------------------------- outlines


def _polar(radii: npt.ArrayLike, angles: npt.ArrayLike) -> FloatArray:
    """Points (N, 2) at the given radii and angles."""
    radius, angle = np.asarray(radii), np.asarray(angles)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).astype(np.float32)


def _regular(corners: int, radii: npt.ArrayLike = 1.0) -> FloatArray:
    """Points (corners, 2) of a regular polygon; two radii in turn make a star."""
    return _polar(radii, np.arange(corners) * (2 * np.pi / corners))


def _outline(rng: np.random.Generator, name: str) -> list[FloatArray]:
    """Closed contours (N, 2) of a class, within the unit circle; a second one is a hole."""
    if name == "disc":
        return [_regular(48)]
    if name == "ring":
        return [_regular(48), _regular(48, rng.uniform(0.45, 0.72))]
    if name == "bar":
        tilt = np.arcsin(rng.uniform(0.34, 0.44))  # of its diagonal: half its width on the unit circle
        return [_polar(1.0, [tilt, -tilt, np.pi + tilt, np.pi - tilt])]
    if name == "triangle":
        return [_regular(3)]
    if name == "star":
        return [_regular(10, np.tile([1.0, rng.uniform(0.38, 0.5)], 5))]
    arm = rng.uniform(0.16, 0.24)  # half the width of a cross's arm
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]], dtype=np.float32)
    turns = [np.array([[0, 1], [-1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, -1], [1, 0]])]
    return [np.concatenate([quarter, *(quarter @ turn for turn in turns)]).astype(np.float32)]


def _deformation(rng: np.random.Generator, radius: float) -> FloatArray:
    """A (2, 2) matrix: rotation, mild stretch and shear, another rotation, times the radius."""
    stretch = np.exp(rng.uniform(-0.16, 0.16))
    turn, back = rng.uniform(0, 2 * np.pi, size=2)
    rotations = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in (turn, back)]
    middle = np.array([[stretch, rng.uniform(-0.12, 0.12)], [0, 1 / stretch]])
    matrix: FloatArray = (radius * rotations[0] @ middle @ rotations[1]).astype(np.float32)
    return matrix


def _fill(contours: list[FloatArray], height: int, width: int) -> FloatArray:
    """Coverage (height, width) in [0, 1] of the contours, supersampled."""
    points = np.concatenate(contours)
    left, top = np.floor(points.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + 2
    patch = np.zeros(((bottom - top) * SUPERSAMPLING, (right - left) * SUPERSAMPLING), np.uint8)
    shift = 4  # fractional bits of the coordinates
    corner = np.array([left, top], dtype=np.float32)
    scale = SUPERSAMPLING * 2**shift
    scaled = [np.round((contour - corner) * scale).astype(np.int32) for contour in contours]
    cv2.fillPoly(patch, scaled, 255, lineType=cv2.LINE_8, shift=shift)
    small = cv2.resize(patch, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    coverage = np.zeros((height, width), np.float32)
    rows, columns = slice(max(top, 0), bottom), slice(max(left, 0), right)
    target = coverage[rows, columns]
    row, column = max(-top, 0), max(-left, 0)
    target[:] = small[row : row + target.shape[0], column : column + target.shape[1]] / 255.0
    return coverage


# ------------------------------------------------------------------------------------- textures


def _clipped(values: npt.NDArray[Any]) -> FloatArray:
    """The values in float32, cut to [0, 1]."""
    return np.clip(values, 0, 1).astype(np.float32)


def _pattern(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A grey pattern (height, width) in [0, 1]: noise, blobs, stripes, checker or gradient."""
    kind = rng.integers(5)
    if kind <= 1:
        cell = int(rng.integers(3, 28))
        grid = rng.random((height // cell + 3, width // cell + 3), dtype=np.float32)
        smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        sharpness = 1.0 if kind == 0 else rng.uniform(4, 12)
        return _clipped((smooth - 0.5) * sharpness + 0.5)
    angle = rng.uniform(0, np.pi)
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    along = np.float32(np.cos(angle)) * columns + np.float32(np.sin(angle)) * rows
    if kind == 4:
        return _clipped((along - along.min()) / max(float(np.ptp(along)), 1e-3))
    frequency, sharpness = 2 * np.pi / rng.uniform(5, 36), rng.uniform(0.5, 4)
    wave = np.sin(np.float32(frequency) * along + np.float32(rng.uniform(0, 6)))
    if kind == 3:
        across = np.float32(np.cos(angle)) * rows - np.float32(np.sin(angle)) * columns
        wave *= np.sin(np.float32(frequency) * across)
    return _clipped(wave * np.float32(sharpness) * 0.5 + 0.5)


def _texture(
    rng: np.random.Generator, height: int, width: int, colour: FloatArray, contrast: float
) -> FloatArray:
    """A coloured texture (height, width, 3) around `colour`, in 0..255 before clipping."""
    if rng.random() < 0.25:
        return np.broadcast_to(colour, (height, width, 3)).astype(np.float32)
    difference = rng.normal(0, contrast, size=3).astype(np.float32)
    return colour + (_pattern(rng, height, width)[..., None] - np.float32(0.5)) * difference


def _colour(rng: np.random.Generator) -> FloatArray:
    """A random colour (3,) that leaves room for texture and light."""
    return rng.uniform(25, 230, size=3).astype(np.float32)


def _colour_apart(rng: np.random.Generator, background: FloatArray, distance: float) -> FloatArray:
    """A random colour (3,) about `distance` away from `background`: hard to see, never hidden."""
    for _ in range(50):
        direction = rng.normal(size=3)
        colour = background + distance * direction / np.linalg.norm(direction)
        # A difference of hue alone vanishes in JPEG's subsampled chroma: ask for one in lightness.
        light = abs(float((colour - background).mean()))
        if colour.min() >= 5 and colour.max() <= 250 and light >= 0.3 * distance:
            break
    return np.clip(colour, 0, 255).astype(np.float32)


# --------------------------------------------------------------------------------- composition


def _stroke(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Coverage (height, width) in [0, 1] of a broken line, an open arc or a letter."""
    canvas = np.zeros((height, width), np.uint8)  # OpenCV smooths edges on bytes only
    x, y = int(rng.integers(width)), int(rng.integers(height))
    thickness = int(rng.integers(1, 4))
    kind = rng.integers(3)
    if kind == 0:
        steps = rng.normal(0, 22, size=(int(rng.integers(2, 6)), 2))
        steps[0] = x, y
        line = steps.cumsum(axis=0).round().astype(np.int32)
        cv2.polylines(canvas, [line], False, 255, thickness, cv2.LINE_AA)
    elif kind == 1:
        axes = (int(rng.integers(6, 40)), int(rng.integers(6, 40)))
        start, length = rng.uniform(0, 360), rng.uniform(60, 200)
        cv2.ellipse(canvas, (x, y), axes, 0, start, start + length, 255, thickness, cv2.LINE_AA)
    else:  # letters that look like none of the classes: no O, C, D, Q, X, T
        letter = "SNZMWKRFGJEA"[int(rng.integers(12))]
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.4, 1.5)
        cv2.putText(canvas, letter, (x, y), font, scale, 255, thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / np.float32(255)


def _blob(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Coverage (height, width) in [0, 1] of a smooth ragged blob that is no object of any class."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = np.ones(40)
    for wave in (2, 3, 5):
        radii += rng.uniform(0.12, 0.35) * np.sin(wave * angles + rng.uniform(0, 6))
    centre = rng.uniform((0, 0), (width, height)).astype(np.float32) + MARGIN
    outline = _polar(rng.uniform(4, 22) * radii, angles) + centre
    return _fill([outline], height + 2 * MARGIN, width + 2 * MARGIN)[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _blend(image: FloatArray, coverage: FloatArray, paint: FloatArray) -> None:
    """Lays `paint` over the image, in place, as far as `coverage` (H, W) says."""
    image += coverage[..., None] * (paint - image)


def _propose(rng: np.random.Generator, height: int, width: int) -> _Shape:
    """One object of a random class, size, place and pose."""
    label = int(rng.integers(len(CLASSES)))
    diameter = float(np.exp(rng.uniform(*np.log(SIZE_RANGE))))
    centre = rng.uniform((4, 4), (width - 4, height - 4)).astype(np.float32) + MARGIN
    pose = _deformation(rng, diameter / 2)
    contours = [c @ pose.T + centre for c in _outline(rng, CLASSES[label])]
    coverage = _fill(contours, height + 2 * MARGIN, width + 2 * MARGIN)
    return _Shape(label, diameter, coverage, coverage > 0.5)


def _visible_masks(shapes: Sequence[_Shape]) -> list[BoolArray]:
    """Per object the pixels inside the image that no later object hides, (H, W) each."""
    masks: list[BoolArray] = []
    hidden = np.zeros_like(shapes[0].mask[MARGIN:-MARGIN, MARGIN:-MARGIN])
    for shape in reversed(shapes):
        inside = shape.mask[MARGIN:-MARGIN, MARGIN:-MARGIN]
        masks.append(inside & ~hidden)
        hidden |= inside
    return masks[::-1]


def _hull(mask: BoolArray) -> tuple[int, int, int, int]:
    """The box (x1, y1, x2, y2) around a mask's pixels; zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _acceptable(shapes: Sequence[_Shape]) -> bool:
    """Whether enough of every object can be seen."""
    for shape, visible in zip(shapes, _visible_masks(shapes), strict=True):
        if visible.sum() < MIN_VISIBLE_FRACTION * shape.mask.sum():
            return False
        left, top, right, bottom = _hull(visible)
        if min(right - left, bottom - top) < MIN_BOX_SIDE:
            return False
    return True


def _place(rng: np.random.Generator, height: int, width: int) -> list[_Shape]:
    """One to seven objects, the last on top, each visible enough."""
    count = 1 + int(rng.choice(len(COUNT_PROBABILITIES), p=COUNT_PROBABILITIES))
    shapes: list[_Shape] = []
    attempts = 0
    # The attempts are bounded for crowded images; the first object is found sooner or later.
    while len(shapes) < count and (attempts < 40 or not shapes):
        attempts += 1
        candidate = [*shapes, _propose(rng, height, width)]
        if _acceptable(candidate):
            shapes = candidate
    return shapes


def _paint(rng: np.random.Generator, image: FloatArray, shape: _Shape) -> None:
    """Paints an object into the image (H, W, 3), in a colour apart from what is under it."""
    height, width = image.shape[:2]
    coverage = shape.coverage[MARGIN:-MARGIN, MARGIN:-MARGIN]
    under = image[coverage > 0.5].mean(axis=0)
    colour = _colour_apart(rng, under, rng.uniform(80, 170))
    _blend(image, coverage, _texture(rng, height, width, colour, 25))
    if shape.diameter > 20 and rng.random() < 0.3:
        kernel = np.ones((3, 3), np.uint8)
        inner: Any = cv2.erode(coverage, kernel, iterations=int(rng.integers(1, 3)))
        _blend(image, coverage - inner, _colour(rng))


def _finish(rng: np.random.Generator, image: FloatArray) -> ImageArray:
    """The image as a camera might see it: uneven light, blur, noise, rounded to bytes."""
    height, width = image.shape[:2]
    slope_x, slope_y = rng.uniform(-0.15, 0.15, size=2)
    across, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    light = 1 + slope_x * across + slope_y * down
    image = image * (light * rng.uniform(0.7, 1.2)).astype(np.float32)[..., None]
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1)).astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2, 8))
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


def draw_image(
    seed: int | Sequence[int],
) -> tuple[ImageArray, FloatArray, npt.NDArray[np.int64]]:
    """An image (H, W, 3) BGR, boxes (N, 4) float32 xyxy in pixels, classes (N,).

    A pure function of the seed, which is anything that `numpy.random.default_rng` takes. A box is
    the hull of what can be seen of an object, as in COCO.
    """
    rng = np.random.default_rng(seed)
    long_side, short_side = 8 * int(rng.integers(22, 25)), 8 * int(rng.integers(20, 22))
    landscape = rng.random() < 0.5
    height, width = (short_side, long_side) if landscape else (long_side, short_side)
    image = _texture(rng, height, width, _colour(rng), 16)
    if rng.random() < 0.15:  # a second material, with a soft border
        seam = _pattern(rng, height, width)
        _blend(image, seam, _texture(rng, height, width, _colour(rng), 35))
    for _ in range(rng.integers(2)):
        _blend(image, _blob(rng, height, width), _texture(rng, height, width, _colour(rng), 50))
    for _ in range(rng.integers(3)):
        _blend(image, _stroke(rng, height, width), _colour(rng))
    shapes = _place(rng, height, width)
    for shape in shapes:
        _paint(rng, image, shape)
    if rng.random() < 0.3:  # one more stroke, across the objects; too thin to hide one
        _blend(image, _stroke(rng, height, width), _colour(rng))
    boxes = np.array([_hull(mask) for mask in _visible_masks(shapes)], dtype=np.float32)
    labels = np.array([shape.label for shape in shapes], dtype=np.int64)
    return _finish(rng, image), boxes, labels


# --------------------------------------------------------------------------------------- files

Json = dict[str, Any]


def _draw_part(folder: Path, count: int, seed: Sequence[int]) -> Json:
    """The COCO dictionary of `count` images, which it draws into `folder`."""
    folder.mkdir(parents=True)
    images: list[Json] = []
    annotations: list[Json] = []
    for index in range(count):
        image, boxes, labels = draw_image([*seed, index])
        name = f"{index:06d}.jpg"
        if not cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OSError(f"could not write {folder / name}: is the disk full?")
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            side_x, side_y = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [left, top, side_x, side_y],
                    "area": side_x * side_y,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _subset(truth: Json, image_ids: set[int]) -> Json:
    """The COCO dictionary of some of the images, with their annotations."""
    return {
        "images": [i for i in truth["images"] if i["id"] in image_ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in image_ids],
        "categories": truth["categories"],
    }


def _choose_labeled(truth: Json, count: int, seed: int) -> set[int]:
    """Image ids of the labeled part: the first of many random draws in which every class appears.

    If `count` is too small for that, the draw with the most classes.
    """
    rng = np.random.default_rng([seed, 2])
    classes_of: dict[int, set[int]] = {image["id"]: set() for image in truth["images"]}
    for annotation in truth["annotations"]:
        classes_of[annotation["image_id"]].add(annotation["category_id"])
    best: set[int] = set()
    most = -1
    for _ in range(200):
        draw = {int(i) for i in rng.permutation(sorted(classes_of))[:count]}
        seen = len(set().union(*(classes_of[i] for i in draw)))
        if seen > most:
            best, most = draw, seen
        if most == len(CLASSES):
            break
    return best


def draw_dataset(
    root: Path, num_train: int = 1000, num_val: int = 300, num_labeled: int = 50, seed: int = 0
) -> None:
    """Draws the images and annotation files into the new or empty folder `root`."""
    if not 0 < num_labeled < num_train or num_val < 1:
        raise UserError(
            f"shapes: num_labeled={num_labeled}, num_train={num_train}, num_val={num_val}: "
            "ask for 0 < num_labeled < num_train and num_val >= 1"
        )
    train = _draw_part(root / "train", num_train, [seed, 0])
    val = _draw_part(root / "val", num_val, [seed, 1])
    labeled_ids = _choose_labeled(train, num_labeled, seed)
    unlabeled_truth = _subset(train, {i["id"] for i in train["images"]} - labeled_ids)
    files = {
        "train": train,
        "val": val,
        "train_labeled": _subset(train, labeled_ids),
        "train_unlabeled": {**unlabeled_truth, "annotations": []},
        "train_unlabeled_truth": unlabeled_truth,
    }
    (root / "annotations").mkdir()
    for name, content in files.items():
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    version = _version(num_train, num_val, num_labeled, seed)
    (root / "version.json").write_text(json.dumps(version, indent=2) + "\n")


def _version(num_train: int, num_val: int, num_labeled: int, seed: int) -> Json:
    """What a folder was drawn with; two equal values mean equal folders."""
    return {
        "generator": GENERATOR_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "num_labeled": num_labeled,
        "seed": seed,
    }


def _is_drawn(root: Path, version: Json) -> bool:
    """Whether `root` holds a dataset drawn with exactly these parameters."""
    try:
        return bool(json.loads((root / "version.json").read_text()) == version)
    except (OSError, ValueError):
        return False


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the lock file, which even a killed process releases.

    Some cluster file systems can't lock. Then each process draws for itself and the rename decides.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _move_into_place(drawn: Path, root: Path, version: Json) -> None:
    """Renames `drawn` to `root`, replacing a dataset of another version."""
    if root.exists() and not _is_drawn(root, version):
        outdated = drawn.with_name(drawn.name + ".outdated")
        root.rename(outdated)
        shutil.rmtree(outdated, ignore_errors=True)
    try:
        drawn.rename(root)
    except OSError:  # another process was first
        if not _is_drawn(root, version):
            raise


def ensure_shapes(
    root: str | Path,
    num_train: int = 1000,
    num_val: int = 300,
    num_labeled: int = 50,
    seed: int = 0,
) -> Path:
    """The absolute path of the dataset's folder, drawn now if it is missing or outdated.

    Takes ten seconds the first time. Any number of processes may call it at once: the drawing goes
    into a sibling folder that is renamed when complete, so nobody ever sees half a dataset.
    Raises `UserError` if `root` holds something that this function did not draw.
    """
    root = Path(root).expanduser().resolve()
    version = _version(num_train, num_val, num_labeled, seed)
    if _is_drawn(root, version):
        return root
    if root.exists() and not (root.is_dir() and _replaceable(root)):
        raise UserError(
            f"{root}: is there and is not a drawn shapes dataset; move it away or pass another folder"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{root.name}.drawing-"
    with _lock(root.parent / f".{root.name}.lock") as alone:
        if _is_drawn(root, version):  # drawn by another process while this one waited
            return root
        if alone:
            for leftover in root.parent.glob(f"{prefix}*"):  # of a killed drawing
                shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix=prefix, dir=root.parent, ignore_cleanup_errors=True
        ) as folder:
            drawn = Path(folder) / "shapes"
            draw_dataset(drawn, num_train, num_val, num_labeled, seed)
            _move_into_place(drawn, root, version)
    return root


def _replaceable(root: Path) -> bool:
    """Whether a folder may be replaced: it is empty or was drawn by this file."""
    try:
        found = json.loads((root / "version.json").read_text())
    except (OSError, ValueError):
        return not os.listdir(root)
    return isinstance(found, dict) and {"generator", "num_train"} <= found.keys()
