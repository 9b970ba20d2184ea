"""Pictures of a config's views: what tools/show_views.py calls, and a test calls in its own process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.runner import Runner

from ssod.core.labels import BoxLabels, project_labels
from ssod.data.decode import read_image
from ssod.data.draws import Draw, seeded
from ssod.engine.config import load_config
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.records import pictures
from ssod.engine.records.writing import make_folder
from ssod.engine.testing import load_model, silence
from ssod.errors import UserError
from ssod.registry import DATASETS, register_all_modules

Image = pictures.Image
Record = dict[str, Any]
VIEWS_FILE = "views.jpg"
LABELS_FILE = "pseudo_labels.jpg"
MOST_IMAGES = pictures.MOST_SIDE // (pictures.MIN_HEIGHT + 6)  # rows of a JPEG


def show_views(
    config_path: str | Path,
    out: str | Path,
    checkpoint: str | Path | None = None,
    num_images: int = 4,
    first: int = 0,
    draw: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """The files written to the folder `out`.

    `views.jpg` has a row for each of `num_images` labeled images from the `first` on: the image with its
    boxes, the labeled view, and the views that an unlabeled image would have, where the true boxes are
    projected just as pseudo boxes are. `pseudo_labels.jpg`, with a checkpoint: unlabeled images with the
    boxes of its teacher, as a run's own pictures show them. `draw` is the number of the random draw.

    Raises UserError for bad input, and for more images than a JPEG has room for.
    """
    if not 1 <= num_images <= MOST_IMAGES or first < 0 or draw < 0:
        raise UserError(
            f"--images {num_images} --first {first} --draw {draw}: one image, at most {MOST_IMAGES}, and "
            "numbers from 0 on"
        )
    register_all_modules()
    config = load_config(config_path, options)
    silence()
    folder = Path(out)
    taken = [folder / name for name in (VIEWS_FILE, LABELS_FILE) if (folder / name).is_dir()]
    if taken:
        raise UserError(f"{taken[0]} is a folder: name another --out")
    with mistakes_in_config():
        dataset = DATASETS.build({"type": "SeededDraws", "dataset": config.train_dataloader.dataset})
        dataset.full_init()
    sources = list(getattr(dataset, "datasets", [dataset]))
    if first >= len(sources[0]):
        raise UserError(f"--first {first}: there are {len(sources[0])} labeled images, numbered from 0")
    chosen = range(first, min(first + num_images, len(sources[0])))
    classes = dataset.metainfo.get("classes", ())
    model = None if checkpoint is None else load_model(config, checkpoint)[0]
    make_folder(folder)
    rows = [
        _row(dataset, sources, index, (config.randomness.seed, draw, 0, index), classes) for index in chosen
    ]
    written = {VIEWS_FILE: pictures.stacked(rows)}
    if model is not None:
        loader = Runner.build_dataloader(
            {**config.train_dataloader, "num_workers": 0, "persistent_workers": False}
        )
        written[LABELS_FILE] = _pseudo_labels(model, loader, num_images, draw, classes)
    for name, picture in written.items():
        if max(picture.shape[:2]) > pictures.MOST_SIDE:
            raise UserError(
                f"{name} would have {picture.shape[1]} x {picture.shape[0]} px, a JPEG has at most "
                f"{pictures.MOST_SIDE} on a side: show fewer --images, or others from another --first on"
            )
        pictures.write_jpeg(folder / name, picture, 85)
    return [folder / name for name in written]


def _row(dataset: Any, sources: list[Any], index: int, key: tuple[int, ...], classes: Any) -> Image:
    """One labeled image: as it is, as labeled view, and in the views of each source of unlabeled images."""
    info = sources[0].get_data_info(index)
    found = [one for one in info.get("instances", ()) if not one.get("ignore_flag")]
    boxes = torch.tensor([one["bbox"] for one in found], dtype=torch.float32).reshape(-1, 4)
    truth = BoxLabels.pad([boxes], [torch.tensor([one["bbox_label"] for one in found], dtype=torch.int64)])
    original = torch.from_numpy(read_image(info["img_path"]).transpose(2, 0, 1).copy())
    drawn = [pictures.draw_view(original, truth, 0, classes, None, "image")]
    item = dataset[Draw(index, key)]["labeled"]
    instances = item["data_samples"].gt_instances
    own = BoxLabels.pad([get_box_tensor(instances.bboxes)], [instances.labels])
    drawn.append(pictures.draw_view(item["inputs"], own, 0, classes, None, "labeled view"))
    for source in sources[1:]:
        with seeded((*key, 1)):  # draws of their own, not the labeled view's again
            views = _unlabeled_views(source, info, truth)
        for name, view in views.items():
            sample = view["data_samples"]
            homography = torch.from_numpy(np.asarray(sample.homography_matrix))[None]
            labels = project_labels(truth, homography, torch.tensor([sample.img_shape[:2]]))
            drawn.append(pictures.draw_view(view["inputs"], labels, 0, classes, None, f"{name} view"))
    return pictures.side_by_side(drawn)


def _unlabeled_views(source: Any, info: Record, truth: BoxLabels) -> Record:
    """The views that a source of unlabeled images makes of an image; offline, with its boxes as labels."""
    record = {name: info[name] for name in ("img_path", "img_id", "height", "width", "sample_idx")}
    parts = {"boxes": truth.boxes, "classes": truth.classes, "scores": truth.scores}
    labels = {name: tensor[truth.valid].numpy() for name, tensor in parts.items()}
    pipeline = getattr(source, "dataset", source).pipeline
    views: Record = pipeline({**record, "offline_labels": labels})
    return views


def _pseudo_labels(model: Any, loader: Any, num_images: int, draw: int, classes: Any) -> Image:
    """The picture that a run with this model would show; UserError for a method without pseudo labels."""
    with seeded((draw,)):
        batch = pictures.fixed_batch(loader, num_images)
    labels = None
    if batch is not None:
        model.eval()
        with torch.no_grad():
            labels = model.pseudo_labels(model.data_preprocessor(batch, True)["inputs"])
    if batch is None or labels is None:
        raise UserError(
            "--checkpoint: this config's method labels no images, so there is nothing to show of it"
        )
    return pictures.draw(batch, labels, classes)
