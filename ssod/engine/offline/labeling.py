"""Offline pseudo labels: a trained network labels images in batches, so that a kill costs one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import cv2
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from torch.utils.data import DataLoader, Dataset

import ssod.data.transforms  # noqa: F401  registers what the pipeline names
from ssod.data.bad_images import too_narrow
from ssod.data.decode import BadImage
from ssod.data.pseudo_coco import Provenance, read_pseudo_coco, write_pseudo_coco
from ssod.data.unlabeled import ImageFile, ImageSet
from ssod.data.workers import SteadyWorker
from ssod.engine import evaluate
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.offline.partial import PartialFile, partial_files, remove_partial_files
from ssod.engine.records.console import ImageCounter
from ssod.engine.stop import StopSignal
from ssod.errors import BadImageError, UserError

SHOWN = 3  # skipped images that the summary names; each was named when it was met
AGREE_INTERVAL = 10  # batches of each process between two looks at what signals the others got
Status = Literal["done", "stopped"]
Row = dict[str, Any]  # one image: id, file_name, width, height, boxes as write_pseudo_coco takes them


def categories_of(config: Config, known: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The categories of the labels, in the order of the config's classes.

    Their ids are those of `known`, the images' own COCO categories, if all classes are there, else 1, 2, ...
    Raises UserError for a config without classes, and for two of one name.
    """
    metainfo = config.val_dataloader.dataset.get("metainfo") or {}
    classes = metainfo.get("classes")
    if not classes:
        raise UserError("val_dataloader.dataset names no classes: set classes of the config, or metainfo")
    twice = next((name for name in classes if list(classes).count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"val_dataloader.dataset.metainfo of the config names class {twice!r} twice: name it once"
        )
    ids = {each.get("name"): each.get("id") for each in known}
    if not all(ids.get(name) is not None for name in classes):
        ids = {name: number for number, name in enumerate(classes, 1)}
    return [{"id": ids[name], "name": name} for name in classes]


class _Images(Dataset[Any]):
    """Items of the test pipeline; of an image that can't be used what is wrong, `strict` its error."""

    def __init__(
        self,
        images: ImageSet,
        pipeline: Sequence[dict[str, Any]],
        classes: Sequence[str],
        strict: bool = True,
    ) -> None:
        self.images = images.images
        self.strict = strict
        with mistakes_in_config():
            self.pipeline = Compose(pipeline)
        self.metainfo = {"classes": tuple(classes)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image = self.images[index]
        try:
            return self._item(image)
        except BadImageError as error:
            if self.strict:
                raise
            return BadImage(error.path, error.reason)

    def _item(self, image: ImageFile) -> Any:
        """BadImageError also where a side would be resized to nothing, as OpenCV does not."""
        try:
            return self.pipeline({"img_path": image.path, "img_id": image.id})
        except cv2.error as error:
            raise too_narrow(error, image.path) from None


def _collate(items: Sequence[Any]) -> tuple[Any, list[BadImage | None]]:
    """The batch of the images that could be read (None without any), and for each item what is wrong."""
    whole = [item for item in items if not isinstance(item, BadImage)]
    faults = [item if isinstance(item, BadImage) else None for item in items]
    return (pseudo_collate(whole) if whole else None), faults


# ---------------------------------------------------------------- labeling


def label_images(
    model: Any,
    images: ImageSet,
    out: str | Path,
    provenance: Provenance,
    pipeline: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]],
    batch_size: int = 1,
    num_workers: int = 0,
    resume: bool = False,
    most_bad: int | None = 0,
    leave_out: bool = False,
    stop: StopSignal | None = None,
    title: str = "labeling",
    decimals: int = 2,
    as_alone: bool = False,
) -> Status:
    """Writes the labels of `images` to `out`; "stopped" if a signal came first.

    The detections of `provenance.network` after its own NMS, with score >= `provenance.min_score`, in pixels
    of the original image. Every process of a distributed run takes its share of the batches. resume: goes on
    where an earlier call was stopped or killed, with the same bytes in the end. most_bad: that many images
    that can't be read are named and get no box (and a size of 0 x 0); None: any number but all of them.
    leave_out: the file has them under "skipped" instead, as it always does with None. stop: the one that
    listens, where somebody does already. title: what the progress line calls it. decimals: of a box's
    numbers. as_alone: each image is padded as if it were alone in its batch, so that its boxes don't depend
    on the others (norms and convolutions see padding); those of one padded size still share a pass.

    Raises UserError for labels begun with other settings, or begun at all without `resume`, for more images
    that can't be read, and for a detector with other classes.
    """
    out = Path(out)
    partial = PartialFile(out, {"provenance": asdict(provenance), "batch_size": batch_size}, get_rank())
    done = {piece["batch"] for piece in partial.read() if not _faults(piece)}  # files may be mended by now
    begun = partial_files(out)
    if begun and not resume:
        raise UserError(f"{out} was begun and not finished: add --resume to go on, or remove {begun[0]}")
    barrier()  # nobody writes before all have read
    dataset = _Images(images, pipeline, [each["name"] for each in categories], strict=most_bad == 0)
    evaluate.check_classes(model, dataset)
    # Images are always labeled in the same batches: an interrupted run and an uninterrupted one see the same
    # padding and give the same bytes.
    count = len(dataset)
    batches = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    labeler = _Labeler(model, dataset, provenance, [each["id"] for each in categories], decimals, as_alone)
    missing = [number for number in range(len(batches)) if number not in done]
    counter = ImageCounter(title, count, sum(len(batches[n]) for n in done), quiet=not is_main_process())
    stop = stop or StopSignal()
    partial.open()
    try:
        with counter, stop.listening():
            _label_share(labeler, batches, missing, num_workers, partial, counter, stop)
    finally:
        partial.close()
    if stop.agreed():
        return "stopped"
    barrier()  # all shares are written
    pieces = sorted(partial.read(), key=_faults, reverse=True)  # of a batch done twice the better one stays
    rows = {piece["batch"]: piece["rows"] for piece in pieces}
    ordered = [row for number in range(len(batches)) for row in rows[number]]
    kept, skipped = _sort_out(ordered, most_bad, leave_out)
    if is_main_process():
        if kept:
            write_pseudo_coco(out, provenance, categories, kept, skipped)
        remove_partial_files(out)
    barrier()
    if not kept:
        raise UserError(f"none of {count} images can be read; the first: {skipped[0]['file_name']} "
                        f"({skipped[0]['fault']}): name other images")  # fmt: skip
    return "done"


def _label_share(
    labeler: "_Labeler",
    batches: Sequence[range],
    missing: Sequence[int],
    num_workers: int,
    partial: PartialFile,
    counter: ImageCounter,
    stop: StopSignal,
) -> None:
    """Labels this process's share of the missing batches, until a signal comes to any process."""
    world_size = get_world_size()
    share = missing[get_rank() :: world_size]
    chosen = [list(batches[number]) for number in share]
    loader = iter(labeler.loader(chosen, num_workers))
    for turn in range(-(-len(missing) // world_size)):  # as many turns for each: they agree in lockstep
        if turn < len(share):
            rows = labeler.rows(chosen[turn], next(loader))
            partial.add({"batch": share[turn], "rows": rows})
            for row in rows:
                if "fault" in row:
                    counter.say(f"image {row['file_name']} can't be read: {row['fault']}")
            counter.advance(len(rows) * world_size)
        asked = world_size == 1 or (turn + 1) % AGREE_INTERVAL == 0
        if asked and stop.agreed():
            return


def _faults(piece: Mapping[str, Any]) -> int:
    """How many images of a finished batch could not be read."""
    return sum("fault" in row for row in piece["rows"])


def _sort_out(
    rows: Sequence[Row], most_bad: int | None, leave_out: bool
) -> tuple[Sequence[Row], Sequence[Row]]:
    """The images to write, and those to name as skipped.

    Raises UserError, on all processes alike, where more images could not be read than may be.
    """
    bad = [row for row in rows if "fault" in row]
    if most_bad is not None and len(bad) > most_bad:
        shown = ", ".join(f"{row['file_name']} ({row['fault']})" for row in bad[:8])
        raise UserError(
            f"{len(bad)} of {len(rows)} images to label can't be read, and {most_bad} may be: "
            f"{shown}{', ...' * (len(bad) > 8)}; restore or remove them, or raise "
            "data_policy.max_bad_fraction and add --resume"
        )
    if most_bad is None or leave_out:
        return [row for row in rows if "fault" not in row], bad
    return rows, ()


class _Labeler:
    """A network in eval and float32, whose detections become rows."""

    def __init__(
        self,
        model: Any,
        dataset: _Images,
        provenance: Provenance,
        category_ids: Sequence[Any],
        decimals: int,
        as_alone: bool,
    ) -> None:
        self.decimals = decimals
        self.as_alone = as_alone
        self.model = evaluate.unwrap(model).eval()
        self.dataset = dataset
        self.network = provenance.network
        self.min_score = provenance.min_score
        self.category_ids = category_ids

    def loader(self, batches: list[list[int]], num_workers: int) -> DataLoader[Any]:
        """The items of each batch, in order."""
        return DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_collate,
            worker_init_fn=SteadyWorker(),
        )

    @torch.no_grad()
    def rows(self, indices: Sequence[int], loaded: tuple[Any, list[BadImage | None]]) -> list[Row]:
        """A row for each image of a batch; one with a `fault` for an image that could not be read."""
        batch, faults = loaded
        found = iter(() if batch is None else self._apart(batch) if self.as_alone else self._found(batch))
        rows = []
        for index, fault in zip(indices, faults, strict=True):
            image = self.dataset.images[index]
            row: Row = {"id": image.id, "file_name": image.file_name}
            if fault is not None:
                rows.append({**row, "width": 0, "height": 0, "boxes": [], "fault": fault.reason})
                continue
            sample = next(found)
            height, width = sample.ori_shape
            boxes = self._boxes(sample.pred_instances)
            rows.append({**row, "width": width, "height": height, "boxes": boxes})
        return rows

    def _apart(self, batch: Any) -> Any:
        """The network's detections on a batch, images of each padded size together."""
        divisor = getattr(self.model.data_preprocessor, "pad_size_divisor", 1)
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(batch["inputs"]):
            groups.setdefault(tuple(-(-side // divisor) for side in image.shape[-2:]), []).append(place)
        found: dict[int, Any] = {}
        for places in groups.values():
            part = {name: [batch[name][place] for place in places] for name in ("inputs", "data_samples")}
            found |= dict(zip(places, self._found(part), strict=True))
        return [found[place] for place in range(len(found))]

    def _found(self, batch: Any) -> Any:
        """The network's detections on a batch, in float32."""
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            data = self.model.data_preprocessor(batch, False)
            return self.model.predict(data["inputs"], data["data_samples"], which=self.network)

    def _boxes(self, found: Any) -> list[list[Any]]:
        """`[x, y, width, height, category id, score]` of the detections that count, best first."""
        found = found[found.scores >= self.min_score]
        corners, labels, scores = (found[key].cpu().tolist() for key in ("bboxes", "labels", "scores"))
        boxes = [
            [
                *(round(value, self.decimals) for value in (x, y, right - x, bottom - y)),
                self.category_ids[label],
                round(s, 6),
            ]
            for (x, y, right, bottom), label, s in zip(corners, labels, scores, strict=True)
        ]
        return [box for box in boxes if box[2] > 0 and box[3] > 0]


def summary(path: str | Path) -> str:
    """One line on a file of labels: images, boxes, boxes an image, and how many images were skipped."""
    content = read_pseudo_coco(path)
    count, boxes = len(content.images), len(content.annotations)
    labeled = len({one["image_id"] for one in content.annotations})
    skipped = [each["file_name"] for each in content.skipped]
    named = ", ".join(skipped[:SHOWN]) + ", ..." * (len(skipped) > SHOWN)
    left_out = f", {len(skipped)} skipped ({named})" if skipped else ""
    average = f"{boxes / max(count, 1):.1f} an image"
    return f"{boxes} boxes on {labeled} of {count} images, {average}{left_out}: {path}"
