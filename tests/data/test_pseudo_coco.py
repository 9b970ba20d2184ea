"""The file of offline labels and its dataset: bytes, provenance, boxes that follow the view, refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from reference import offline

from ssod.data import pipelines, transforms
from ssod.data.pseudo_coco import Provenance, read_pseudo_coco, write_pseudo_coco
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")

CLASSES = ("cat", "dog")
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
PROVENANCE = Provenance("c" * 64, "w" * 64, "s" * 64, 0.5, "student")
SIZE = (60, 80)  # height, width of every image
COUNTS = {1: 1, 2: 0, 4: 500}  # boxes of the images


def row(image: int, count: int) -> dict[str, Any]:
    """What labeling makes of an image: boxes inside it, of either class, best first."""
    random = np.random.default_rng(image)
    boxes = []
    for score in np.sort(random.uniform(0.5, 1, count))[::-1]:
        corner, side = random.uniform(0, 40, 2), random.uniform(2, 19, 2)
        kind = int(random.choice([3, 9]))
        boxes.append([*(float(v) for v in (*corner.round(2), *side.round(2))), kind, round(float(score), 6)])
    return dict(id=image, file_name=f"{image}.png", width=80, height=60, boxes=boxes)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [row(image, count) for image, count in COUNTS.items()]


@pytest.fixture
def root(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """Images, their COCO file with true boxes that must not matter, and labels."""
    for image in COUNTS:
        pixels = np.random.default_rng(image).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{image}.png"), pixels)
    names = ("id", "file_name", "width", "height")
    images = [{name: one[name] for name in names} for one in reversed(rows)]  # in another order than labels
    truth = [dict(id=1, image_id=1, category_id=3, bbox=[0, 0, 9, 9], area=81, iscrowd=0)]
    content = dict(images=images, annotations=truth, categories=CATEGORIES)
    (tmp_path / "a.json").write_text(json.dumps(content))
    write_pseudo_coco(tmp_path / "labels.json", PROVENANCE, CATEGORIES, rows)
    return tmp_path


def build(root: Path, pipeline: Any = None, **options: Any) -> Any:
    from ssod.registry import DATASETS

    init_default_scope("ssod")
    views = pipelines.two_views(pipelines.weak((80, 60)), pipelines.strong([(60, 45), (120, 90)]))
    images = dict(
        type="UnlabeledCoco",
        data_root=str(root),
        ann_file="a.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=options.pop("classes", CLASSES)),
        pipeline=pipelines.offline(views) if pipeline is None else pipeline,
    )
    arguments = dict(labels=str(root / "labels.json")) | options
    return DATASETS.build(dict(type="PseudoLabeled", dataset=images, **arguments))


# ---------------------------------------------------------------- the file


def test_the_file_is_coco_with_scores_and_provenance(root: Path, rows: list[dict[str, Any]]) -> None:
    from pycocotools.coco import COCO

    file = read_pseudo_coco(root / "labels.json")
    assert file.provenance is not None and PROVENANCE.difference(file.provenance) is None
    assert file.provenance["ssod"] and file.categories == CATEGORIES
    assert [image["id"] for image in file.images] == list(COUNTS)
    found = [(one["image_id"], [*one["bbox"], one["category_id"], one["score"]]) for one in file.annotations]
    assert found == [(one["id"], box) for one in rows for box in one["boxes"]]
    results = COCO(str(root / "a.json")).loadRes(file.annotations)  # results, as COCO's evaluation takes them
    assert len(results.getAnnIds(imgIds=[4])) == 500


def test_the_same_labels_are_the_same_bytes(root: Path, rows: list[dict[str, Any]]) -> None:
    write_pseudo_coco(root / "again.json", PROVENANCE, CATEGORIES, json.loads(json.dumps(rows)))
    assert (root / "again.json").read_bytes() == (root / "labels.json").read_bytes()


def test_a_failing_write_leaves_what_was_there(root: Path, rows: list[dict[str, Any]]) -> None:
    before = (root / "labels.json").read_bytes()
    with pytest.raises(TypeError):
        write_pseudo_coco(root / "labels.json", PROVENANCE, [{"id": object()}], rows)
    assert (root / "labels.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(config_sha256="0"), "of another detector or test pipeline"),
        (dict(checkpoint_sha256="0"), "of another checkpoint"),
        (dict(split_sha256="0"), "of other images"),
        (dict(min_score=0.9), "with min_score 0.9, not 0.5"),
        (dict(network="teacher"), "with network teacher, not student"),
    ],
    ids=str,
)
def test_the_difference_in_words(root: Path, change: dict[str, Any], said: str) -> None:
    write_pseudo_coco(root / "labels.json", replace(PROVENANCE, **change), CATEGORIES, [])
    assert PROVENANCE.difference(read_pseudo_coco(root / "labels.json").provenance) == said


def test_labels_of_another_program_have_no_provenance(root: Path) -> None:
    content = json.loads((root / "labels.json").read_text())
    del content["provenance"]
    (root / "labels.json").write_text(json.dumps(content))
    file = read_pseudo_coco(root / "labels.json")
    assert file.provenance is None and PROVENANCE.difference(None) == "of unknown provenance"
    assert len(build(root)) == 2  # good enough to train on


# ---------------------------------------------------------------- the dataset


def labels_of(file_row: dict[str, Any]) -> list[offline.Label]:
    """The boxes of an image as corners, class and score."""
    order = {3: 0, 9: 1}
    return [([x, y, x + w, y + h], order[kind], score) for x, y, w, h, kind, score in file_row["boxes"]]


@pytest.mark.parametrize("min_visible", [0.0, 0.7])
def test_boxes_go_where_the_view_went(root: Path, rows: list[dict[str, Any]], min_visible: float) -> None:
    """Against a loop over boxes, for an image with none, one and 500 boxes, over many views."""
    views = pipelines.two_views([], pipelines.strong([(60, 45), (120, 90)]))
    dataset = build(root, pipelines.offline(views, min_visible), drop_empty=False)
    dropped = 0
    by_id = {one["id"]: one for one in rows}
    for seed in range(12):
        for index in range(len(dataset)):
            np.random.seed(seed)
            item = dataset[index]
            assert set(item) == {"strong"}
            sample = item["strong"]["data_samples"]
            given = labels_of(by_id[sample.img_id])
            expected = offline.placed(given, sample.homography_matrix.tolist(), sample.img_shape, min_visible)
            dropped += len(given) - len(expected)
            found = sample.gt_instances
            assert len(found.bboxes) == len(found.labels) == len(found.scores) == len(expected)
            if expected:
                boxes, kinds, scores = zip(*expected, strict=True)
                np.testing.assert_allclose(found.bboxes.numpy(), boxes, atol=1e-3)
                assert found.labels.tolist() == list(kinds)
                np.testing.assert_allclose(found.scores.numpy(), scores, atol=1e-6)
    assert dropped > 0, "some view must have lost a box"


def test_boxes_go_where_mmdet_moves_them(root: Path, rows: list[dict[str, Any]]) -> None:
    """mmdet's transforms carry annotated boxes; ours are placed at the end, and land on the same spots."""
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.dataset import Compose

    steps = pipelines.strong([(60, 45), (120, 90)], erase=False)
    ours = build(root, pipelines.offline(pipelines.two_views([], steps)))
    theirs = Compose(steps)
    for seed in range(12):
        index = next(i for i in range(len(ours)) if ours.get_data_info(i)["img_id"] == 4)
        np.random.seed(seed)
        found = ours[index]["strong"]["data_samples"].gt_instances
        record = transforms.LoadImage()(ours.get_data_info(index))
        given = labels_of(next(one for one in rows if one["id"] == 4))
        record["gt_bboxes"] = HorizontalBoxes([box for box, *_ in given])
        record["gt_bboxes_labels"] = np.array([kind for _, kind, _ in given])
        record["gt_ignore_flags"] = np.zeros(len(given), dtype=bool)
        np.random.seed(seed)
        moved = theirs(record)["data_samples"].gt_instances.bboxes.tensor.numpy()
        sides = moved[:, 2:] - moved[:, :2]
        np.testing.assert_allclose(found.bboxes.numpy(), moved[(sides > 1e-2).all(1)], atol=2e-3)


def test_one_decoding_and_no_weak_view(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = transforms.read_image, []
    monkeypatch.setattr(transforms, "read_image", lambda path: calls.append(path) or read(path))
    dataset = build(root)
    assert set(dataset[0]) == {"strong"} and len(calls) == 1


def test_images_without_labels_are_left_out_unless_wanted(root: Path) -> None:
    ids = [build(root).get_data_info(i)["img_id"] for i in range(2)]
    assert sorted(ids) == [1, 4] and len(build(root)) == 2
    assert len(build(root, drop_empty=False)) == 3


def test_records_hold_no_box(root: Path) -> None:
    dataset = build(root)
    assert set(dataset.get_data_info(0)) == {"img_path", "img_id", "height", "width", "sample_idx"}


def test_from_files_to_the_batch_of_a_method(root: Path) -> None:
    """Through ConcatDataset, sampler, collation and preprocessor: offline labels, and no weak view."""
    from mmengine.runner import Runner

    from ssod.models.preprocessor import SemiPreprocessor

    labeled = dict(
        type="LabeledCoco",
        data_root=str(root),
        ann_file="a.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=CLASSES),
        pipeline=pipelines.labeled((80, 60)),
    )
    pipeline = pipelines.offline(pipelines.two_views([], pipelines.strong((80, 60))))
    unlabeled = {**labeled, "type": "UnlabeledCoco", "pipeline": pipeline}
    pseudo = dict(type="PseudoLabeled", labels=str(root / "labels.json"), dataset=unlabeled)
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            num_workers=0,
            sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 2)),
            collate_fn=dict(type="ssod.collate_views"),
            dataset=dict(type="ConcatDataset", datasets=[labeled, pseudo]),
        ),
        seed=0,
    )
    data = next(iter(loader))
    batch = SemiPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, pad_size_divisor=32)(data, training=True)[
        "inputs"
    ]
    assert batch.weak is None and batch.weak_to_strong is None
    samples = data["strong"]["data_samples"]
    counts = [len(each.gt_instances.bboxes) for each in samples]
    assert batch.strong_labels.valid.sum(1).tolist() == counts
    assert batch.strong.size.tolist() == [list(each.img_shape) for each in samples]
    first = batch.strong_labels.valid[0]
    assert batch.strong_labels.scores[0, first].equal(samples[0].gt_instances.scores)


# ---------------------------------------------------------------- refusals


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = json.loads((root / "labels.json").read_text())
        change(content)
        (root / "labels.json").write_text(json.dumps(content))

    return apply


REFUSED = [
    (lambda root: (root / "labels.json").unlink(), "cannot read"),
    (lambda root: (root / "labels.json").write_text("{"), "not valid JSON"),
    (edit(lambda content: content.pop("categories")), "no list 'categories'"),
    (edit(lambda content: content["annotations"][0].pop("score")), "has no score"),
    (edit(lambda content: content["annotations"][0].update(image_id=99)), "does not list"),
    (edit(lambda content: content["images"].pop(0)), "does not list"),
    (edit(lambda content: content["images"].pop(1)), r"have no image 2 \(2.png\)"),
    (edit(lambda content: content["images"][1].update(file_name="x.png")), r"have no image 2 \(2.png\)"),
    (edit(lambda content: content["categories"][0].update(name="cow")), r"categories \('cow'\)"),
    (edit(lambda content: content["annotations"].clear()), "no box for any of 3 images"),
]


@pytest.mark.parametrize(("spoil", "said"), REFUSED, ids=[row[1] for row in REFUSED])
def test_refused_in_one_line(root: Path, spoil: Callable[[Path], Any], said: str) -> None:
    spoil(root)
    with pytest.raises(UserError, match=said) as caught:
        build(root)
    assert "\n" not in str(caught.value)


def test_no_labels_yet(root: Path) -> None:
    with pytest.raises(UserError, match="PseudoLabeled has no labels"):
        build(root, labels=None)


def test_skipped_images_have_no_box(root: Path, rows: list[dict[str, Any]]) -> None:
    """What labeling could not read: training knows the image, and draws another one in its place."""
    skipped = [{**rows[0], "fault": "empty (0 bytes)"}]
    write_pseudo_coco(root / "labels.json", PROVENANCE, CATEGORIES, rows[1:], skipped)
    assert read_pseudo_coco(root / "labels.json").skipped == [
        dict(id=1, file_name="1.png", fault="empty (0 bytes)")
    ]
    assert [each["img_id"] for each in map(build(root).get_data_info, range(1))] == [4]
    assert len(build(root)) == 1 and len(build(root, drop_empty=False)) == 3
