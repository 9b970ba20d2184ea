"""A checkpoint labels images: what tools/pseudo_label.py calls, and the part that tools/predict.py shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssod.data.pseudo_coco import Provenance
from ssod.data.unlabeled import ImageSet, read_images
from ssod.engine import evaluate
from ssod.engine.config import check_names, merge_options, read_config
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.loading import default_workers, usable_cores
from ssod.engine.offline.labeling import Status, categories_of, label_images, summary
from ssod.engine.offline.provenance import check_output, labeling_pipeline, provenance_of
from ssod.engine.runner import warnings_to_log
from ssod.engine.testing import load_model, silence
from ssod.errors import UserError
from ssod.registry import register_all_modules


@dataclass(frozen=True)
class Job:
    """Who labels what, and how: the model on its device, the images, and the loader's settings.

    most_bad: how many of the images `data_policy` of the config lets be bad.
    """

    model: Any
    images: ImageSet
    provenance: Provenance
    pipeline: Sequence[dict[str, Any]]
    categories: Sequence[dict[str, Any]]
    batch_size: int
    num_workers: int
    most_bad: int

    def label(self, out: Path, resume: bool, **how: Any) -> Status:
        """Writes the boxes to the file `out`, as `label_images` does, whose other arguments are `how`."""
        return label_images(
            self.model,
            self.images,
            out,
            self.provenance,
            self.pipeline,
            self.categories,
            self.batch_size,
            self.num_workers,
            resume,
            **how,
        )


def prepare(
    config_path: str | Path,
    checkpoint: str | Path,
    source: str | Path,
    min_score: float,
    batch_size: int | None = None,
    num_workers: int | None = None,
    which: str | None = None,
    image_root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Job:
    """All that labeling needs, with nothing written yet; UserError for bad input.

    which: "teacher" or "student", by default the one to ship · batch_size, num_workers: by default those of
    the config's validation.
    """
    register_all_modules()
    if not 0 <= min_score <= 1:
        raise UserError(f"--min-score {min_score}: a score is between 0 and 1")
    config = read_config(config_path)
    check_names(config, config_path)
    config.data_policy = DataPolicy.of(config).as_config()  # so that options can change it
    merge_options(config, options or {})
    pipeline = labeling_pipeline(config)
    loader = config.val_dataloader
    size = loader.get("batch_size", 1) if batch_size is None else batch_size
    if size < 1:
        raise UserError(f"--batch-size {size}: at least 1 image")
    workers = loader.get("num_workers") if num_workers is None else num_workers
    if workers is None:
        workers = default_workers(usable_cores())
    if workers < 0:
        raise UserError(f"--num-workers {workers}: 0 or more")
    policy = DataPolicy.of(config)
    images = read_images(source, image_root)
    categories = categories_of(config, images.categories)
    silence()
    model, _ = load_model(config, checkpoint)
    [network] = evaluate.choose_networks(model, which or model.which[0])
    provenance = provenance_of(config, checkpoint, images, min_score, network, contents=True)
    most_bad = policy.most_bad(len(images.images))
    return Job(model, images, provenance, pipeline, categories, size, workers, most_bad)


def label_with_checkpoint(
    config_path: str | Path,
    checkpoint: str | Path,
    source: str | Path,
    out: str | Path,
    min_score: float = 0.9,
    resume: bool = False,
    **chosen: Any,
) -> Status:
    """Writes the labels to the file `out`: what tools/pseudo_label.py calls.

    Images that can't be read are named and left out, in the file under "skipped", as many as `data_policy`
    of the config lets be bad. chosen: the other arguments of `prepare`. Raises UserError for bad input.
    """
    register_all_modules()
    out = Path(out)
    if not out.resolve().parent.is_dir():
        raise UserError(f"--out {out}: the folder does not exist")
    with warnings_to_log():
        job = prepare(config_path, checkpoint, source, min_score, **chosen)
        if check_output(out, job.provenance):
            print(f"nothing to do: {out} holds these labels already")
            return "done"
        status = job.label(out, resume, most_bad=job.most_bad, leave_out=True)
    print(summary(out) if status == "done" else f"stopped: run again with --resume to finish {out}")
    return status
