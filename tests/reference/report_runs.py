"""Work dirs of made-up runs for the report: any number of them, without training.

`python tests/reference/report_runs.py study FOLDER` writes six methods with three seeds each on shapes;
`... many FOLDER [config.py]` writes 200 runs, each with 40 lines of metrics.jsonl, on which the report
can be timed: with a real run's config.py it reads as much as it would have to.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

METHODS = {  # where AP ends, and what the method has above the twin
    "supervised": 0.0,
    "MeanTeacher": 2.0,
    "FixMatch": 4.0,
    "STAC": 6.5,
    "UnbiasedTeacher": 8.0,
    "SoftTeacher": 5.0,
}
CONFIG = """model = dict(
    detector=dict(backbone=dict(depth=18, type='ResNet'), type='FasterRCNN'),
    method={method},
    type='SemiDetector')
optim_wrapper = dict(optimizer=dict(lr=0.02, type='SGD'), type='AmpOptimWrapper')
randomness = dict(seed={seed})
train_cfg = dict(max_iters={iterations}, type='SemiTrainLoop', val_interval=300)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        datasets=[
            dict(ann_file='{labeled}', data_root='{root}', type='LabeledCoco'),
            dict(ann_file='{unlabeled}', data_root='{root}', type='UnlabeledCoco'),
        ],
        type='ConcatDataset'))
val_dataloader = dict(
    dataset=dict(
        ann_file='{tested}', data_root='{root}', pipeline=[dict(type='LoadImage')], type='LabeledCoco'))
"""
Changes = dict[str, Any]


def digest(text: str) -> str:
    """A made-up hash of a list of images."""
    return hashlib.sha256(text.encode()).hexdigest()


def result(method: str, seed: int, ap: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    """A result.json; ap: AP, AP50, AP75 of networks in per cent · more: other values, `a__b` inside a."""
    keys = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
    metrics = {
        name: dict(zip(keys, [each / 100 for each in values] + [-1.0] * 3, strict=False))
        for name, values in ap.items()
    }
    found: dict[str, Any] = {
        "schema": 1,
        "status": "done",
        "method": method,
        "config": f"configs/{method}/shapes.py",
        "git": "0123456789abcdef",
        "seed": seed,
        "versions": {"torch": "2.6.0", "ssod": "0.1.0"},
        "device": "cpu (x86_64, 1 threads)",
        "world_size": 1,
        "batch": {"labeled": 8, "unlabeled": 0 if method == "supervised" else 8},
        "iterations": 1800,
        "images_seen": {"labeled": 14400, "unlabeled": 14400},
        "seconds": 1800.5,
        "split": {
            "protocol": "file",
            "percent": None,
            "fold": None,
            "num_labeled": 50,
            "num_unlabeled": 950,
            "ids_sha256": digest("shapes"),
        },
        "test": {"score_thr": 0.05, "evaluator": "CocoMetric (pycocotools 2.0.10)"},
        "metrics": metrics,
        "pseudo_labels": {"precision_50": None, "recall_50": None, "boxes_per_image": 2.5},
    }
    for key, value in more.items():
        outer, _, inner = key.partition("__")
        if inner:
            found[outer] = {**found[outer], inner: value}
        else:
            found[key] = value
    return found


def write_run(
    folder: Path,
    record: dict[str, Any],
    method: str | None = None,
    records: list[dict[str, Any]] | None = None,
    place: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A work dir with result.json, config.py, and metrics.jsonl and run.json where they are given.

    method: the config's `model.method`, as text · config: replaces fields of `CONFIG`.
    """
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")
    written = (
        None if record["method"] == "supervised" else f"dict(type={record['method']!r}, unsup_weight=2.0)"
    )
    fields = {
        "method": method or written,
        "seed": record["seed"],
        "iterations": record["iterations"],
        "root": "data/shapes",
        "labeled": "annotations/train_labeled.json",
        "unlabeled": "annotations/train_unlabeled.json",
        "tested": "annotations/val.json",
    }
    (folder / "config.py").write_text(CONFIG.format(**{**fields, **config}), encoding="utf-8")
    if records is not None:
        lines = "".join(json.dumps(each) + "\n" for each in records)
        (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    if place is not None:
        (folder / "run.json").write_text(json.dumps(place), encoding="utf-8")
    return folder


def learning(
    rng: random.Random, end: dict[str, float], iterations: int, quality: bool, steps: int = 10
) -> list[dict[str, Any]]:
    """Forty lines of metrics.jsonl (30 without quality): losses, AP that grows to `end`, pseudo labels."""
    found: list[dict[str, Any]] = []
    for number in range(1, steps + 1):
        at = iterations * number // steps
        grown = 1 - math.exp(-3.2 * number / steps) if number < steps else 1 - math.exp(-3.2)
        for part in (1, 2):
            noise = rng.gauss(0, 0.03)
            found.append(
                {
                    "kind": "train",
                    "iteration": at - iterations // steps * (2 - part) // 2,
                    "loss": 2.4 * math.exp(-2 * number / steps) + 0.4 + noise,
                    "lr": 0.02,
                }
            )
        val: dict[str, Any] = {"kind": "val", "iteration": at}
        for network, ap in end.items():
            last = number == steps
            now = (ap if last else ap * grown / (1 - math.exp(-3.2)) + rng.gauss(0, 0.4)) / 100
            val |= {
                f"{network}/bbox_mAP": now,
                f"{network}/bbox_mAP_50": 1.55 * now,
                f"{network}/bbox_mAP_75": 1.1 * now,
            }
        found.append(val)
        if quality:
            found.append(
                {
                    "kind": "pseudo_labels",
                    "iteration": at,
                    "precision_50": min(0.97, 0.55 + 0.3 * grown + rng.gauss(0, 0.01)),
                    "recall_50": max(0.0, 0.6 * grown + rng.gauss(0, 0.01)),
                    "mean_iou": 0.66 + 0.14 * grown + rng.gauss(0, 0.005),
                    "boxes_per_image": 3.1 * grown + rng.gauss(0, 0.05),
                    "cls/precision_50": None,
                }
            )
    return found


def picture(path: Path, seed: int, size: tuple[int, int] = (780, 660)) -> None:
    """A JPEG of coloured boxes."""
    from PIL import Image, ImageDraw

    rng = random.Random(seed)
    image = Image.new("RGB", size, tuple(rng.randrange(60, 200) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(size[0] // 2), rng.randrange(size[1] // 2)
        draw.rectangle(
            [x, y, x + rng.randrange(30, 90), y + rng.randrange(30, 90)],
            outline=tuple(rng.randrange(256) for _ in range(3)),
            width=4,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=85)


def study(folder: Path, seeds: int = 3, root: str = "data/shapes") -> Path:
    """A study on shapes in `folder`: each method with each seed, curves, pseudo-label quality, pictures."""
    for method, above in METHODS.items():
        for seed in range(seeds):
            rng = random.Random(f"{method} {seed}")
            twin = 38.3 + random.Random(f"twin {seed}").gauss(0, 1.2)
            ap = twin + (above + rng.gauss(0, 1.3) if above else 0.0)
            end = {"teacher": ap, "student": ap - rng.uniform(-0.3, 0.5)}
            if method == "STAC":
                del end["teacher"]
            record = result(
                method, seed, {name: [each, 1.55 * each, 1.1 * each] for name, each in end.items()}
            )
            quality = method not in ("supervised", "STAC")
            run = write_run(
                folder / f"{method}_{seed}", record, records=learning(rng, end, 1800, quality), root=root
            )
            if quality and seed == 0:
                picture(run / "pseudo_labels" / "iter_1500.jpg", seed)
                picture(run / "pseudo_labels" / "iter_1800.jpg", len(method))
    return folder


def hostile(folder: Path) -> Path:
    """Two sections: three seeds with twins as in test_statistics, hostile names; then one run on COCO."""
    for seed, (twin, soft) in enumerate(((40, 42), (41, 45), (45, 48))):
        ap = {"teacher": [twin, 60, 44], "student": [twin - 1, 59, 43]}
        write_run(folder / f"twin_{seed}", result("supervised", seed, ap))
        ap = {"teacher": [soft, 70, 50], "student": [soft - 1, 69, 49]}
        write_run(folder / f"soft_{seed}", result("SoftTeacher", seed, ap))
    write_run(folder / "stac_1", result("STAC", 1, {"student": [44, 66, 48]}))
    hostile = {"sweep": "<b>|&", "axes": {"method": "<i>_50%|$x$"}, "twin": False}
    write_run(
        folder / "<script>alert(1)</script>",
        result("FixMatch", 2, {"teacher": [43.25, 60, 40]}),
        place=hostile,
    )
    failed = result("FixMatch", 5, {}, status="failed", error="RunError: <img src=x> | 100 % \\ gone")
    write_run(folder / "failed", failed)
    coco = result(
        "SoftTeacher",
        0,
        {"teacher": [33.1, 52.0, 35.6]},
        split={
            "protocol": "stac",
            "percent": 10,
            "fold": 1,
            "num_labeled": 11255,
            "ids_sha256": digest("coco"),
        },
        iterations=180000,
        world_size=8,
        batch={"labeled": 1, "unlabeled": 4},
    )
    files = {
        "root": "/data/coco",
        "labeled": "semi_anns/instances_train2017.1@10.json",
        "tested": "annotations/instances_val2017.json",
    }
    write_run(folder / "coco", coco, **files)
    return folder


def many(folder: Path, config: Path | None = None) -> Path:
    """200 runs: ten methods, four shares of labels, five folds."""
    text = config.read_text(encoding="utf-8") if config else None
    for number, percent, fold in itertools.product(range(10), (1, 2, 5, 10), range(1, 6)):
        method = "supervised" if not number else f"Method{number}"
        rng = random.Random(f"{number} {percent} {fold}")
        ap = 20 + 3 * math.log(percent) + number + rng.gauss(0, 1)
        split = {
            "protocol": "own",
            "percent": percent,
            "fold": fold,
            "num_labeled": 1000 * percent,
            "num_unlabeled": 100_000 - 1000 * percent,
            "ids_sha256": digest(f"{percent} {fold}"),
        }
        end = {"teacher": ap, "student": ap - 0.3}
        record = result(method, 0, {k: [v, 1.5 * v, v] for k, v in end.items()}, split=split)
        run = write_run(
            folder / f"{method}-p{percent}-f{fold}",
            record,
            records=learning(rng, end, 1800, quality=True),
            labeled=f"own/train.{fold}@{percent}.json",
        )
        if text is not None:
            (run / "config.py").write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    {"study": study, "many": many, "hostile": hostile}[sys.argv[1]](*map(Path, sys.argv[2:]))  # type: ignore[operator]
