"""Datasets on real COCO records: nothing lost, no annotation leaks, one line for each fault."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from ssod.data import pipelines
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def coco(data_root: Path) -> Path:
    return data_root / "coco_open_mini"


@pytest.fixture
def content() -> dict[str, Any]:
    """A faultless COCO file of two images; the second has no box."""
    images = [dict(id=i, file_name=f"{i}.png", width=80, height=60) for i in (1, 2)]
    box = dict(id=1, image_id=1, category_id=3, bbox=[10, 5, 20, 20], area=400, iscrowd=0)
    categories = [dict(id=3, name="cat"), dict(id=9, name="dog")]
    return dict(images=images, annotations=[box], categories=categories)


def build(kind: str, root: Path, **options: Any) -> Any:
    from ssod.registry import DATASETS

    init_default_scope("ssod")
    arguments = dict(data_root=str(root), ann_file="a.json", data_prefix=dict(img="images"))
    return DATASETS.build({"type": kind, **arguments, **options})


def written(folder: Path, content: Any) -> Path:
    """The folder with the content as a.json, and an images folder."""
    (folder / "images").mkdir(exist_ok=True)
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(folder / "images" / name), np.full((60, 80, 3), 90, np.uint8))
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "a.json").write_text(text)
    return folder


def mini(coco: Path, kind: str, **options: Any) -> Any:
    return build(kind, coco, **{"ann_file": "train.json", **options})


def test_labeled_holds_what_the_file_holds(coco: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = mini(coco, "LabeledCoco")
    assert capfd.readouterr().out == ""
    truth = json.loads((coco / "train.json").read_text())
    names = {category["id"]: category["name"] for category in truth["categories"]}
    assert [dataset.get_data_info(i)["img_id"] for i in range(len(dataset))] == [
        image["id"] for image in truth["images"]
    ]
    found = Counter(
        (info["img_id"], dataset.metainfo["classes"][one["bbox_label"]], one["ignore_flag"])
        for info in (dataset.get_data_info(i) for i in range(len(dataset)))
        for one in info["instances"]
    )
    assert found == Counter(
        (one["image_id"], names[one["category_id"]], one["iscrowd"]) for one in truth["annotations"]
    )


@pytest.mark.parametrize(("filter_cfg", "count"), [(None, 80), (dict(filter_empty_gt=True), 79)])
def test_images_without_boxes_stay_unless_filtered(coco: Path, filter_cfg: Any, count: int) -> None:
    assert len(mini(coco, "LabeledCoco", filter_cfg=filter_cfg)) == count


def test_boxes_of_the_labeled_view_follow_its_homography(coco: Path) -> None:
    scale = [(600, 200), (600, 400)]
    dataset = mini(coco, "LabeledCoco", pipeline=pipelines.labeled(scale), indices=12)
    crowds = 0
    for index in range(len(dataset)):
        np.random.seed(index)
        sample = dataset[index]["labeled"]["data_samples"]
        instances = dataset.get_data_info(index)["instances"]
        original = np.array([one["bbox"] for one in instances if not one["ignore_flag"]])
        corners = np.stack((original[:, [0, 1]], original[:, [2, 3]]), axis=1)
        moved = corners @ sample.homography_matrix[:2, :2].T + sample.homography_matrix[:2, 2]
        expected = np.concatenate((moved.min(1), moved.max(1)), axis=1)
        height, width = sample.img_shape
        expected = expected.clip(0, (width, height, width, height))
        np.testing.assert_allclose(sample.gt_instances.bboxes.tensor, expected, atol=1e-2)
        crowds += len(sample.ignored_instances.bboxes)
    everyone = (one for i in range(12) for one in dataset.get_data_info(i)["instances"])
    assert crowds == sum(one["ignore_flag"] for one in everyone)


def test_an_image_without_boxes_is_not_swapped_for_another(tmp_path: Path, content: Any) -> None:
    root = written(tmp_path, content)
    classes = dict(classes=CLASSES)
    dataset = build("LabeledCoco", root, metainfo=classes, pipeline=pipelines.labeled((80, 60)))
    sample = dataset[1]["labeled"]["data_samples"]
    assert sample.img_id == 2 and len(sample.gt_instances) == 0


def test_unlabeled_never_holds_an_annotation(coco: Path) -> None:
    two = pipelines.two_views(pipelines.weak((200, 150)), pipelines.strong((200, 150)))
    dataset = mini(coco, "UnlabeledCoco", pipeline=two)
    assert len(dataset) == 80
    for index in range(len(dataset)):
        keys = set(dataset.get_data_info(index))
        assert keys == {"img_path", "img_id", "height", "width", "sample_idx"}
    item = dataset[0]
    assert set(item) == {"weak", "strong"}
    for view in item.values():
        assert len(view["data_samples"].gt_instances.keys()) == 0
        assert len(view["data_samples"].ignored_instances.keys()) == 0


def test_annotations_of_the_unlabeled_file_are_not_even_checked(tmp_path: Path, content: Any) -> None:
    content["annotations"] = [dict(bbox="none of our business")]
    dataset = build("UnlabeledCoco", written(tmp_path, content), filter_cfg=dict(min_size=32))
    assert len(dataset) == 2


def test_both_fit_into_one_concat_dataset(coco: Path) -> None:
    from mmengine.dataset import ConcatDataset as Strict  # refuses different metainfo

    from ssod.registry import DATASETS

    labeled = dict(type="LabeledCoco", ann_file="train.json")
    unlabeled = dict(type="UnlabeledCoco", ann_file="val.json")
    for one in (labeled, unlabeled):
        one.update(data_root=str(coco), data_prefix=dict(img="images"))
    both = DATASETS.build(dict(type="ConcatDataset", datasets=[labeled, unlabeled]))
    assert len(both) == len(Strict([DATASETS.build(labeled), DATASETS.build(unlabeled)])) == 146
    assert both.metainfo["classes"][0] == "person"
    val = json.loads((coco / "val.json").read_text())["images"]
    sizes = [(both.get_data_info(80 + i)["width"], both.get_data_info(80 + i)["height"])
             for i in range(66)]  # fmt: skip
    assert sizes == [(image["width"], image["height"]) for image in val]


def test_relative_data_root(tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, content)
    monkeypatch.chdir(tmp_path.parent)
    dataset = build("UnlabeledCoco", Path(tmp_path.name), pipeline=[dict(type="LoadImage")])
    assert dataset[0]["img"].shape == (60, 80, 3)


def without(section: str, key: str) -> Any:
    """A change that removes a key from the first record of a section."""
    return lambda content: content[section][0].pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "has no list 'images'"),
        (lambda c: c.pop("annotations"), "has no list 'annotations'"),
        (lambda c: c.update(categories={}), "has no list 'categories'"),
        (without("images", "width"), "record 0 of 'images' in .* has no width"),
        (without("annotations", "area"), "record 0 of 'annotations' in .* has no area"),
        (lambda c: c["images"][1].update(id=1), "ids in 'images' of .* are not unique"),
        (lambda c: c["categories"].reverse(), r"another order .* classes=\('dog', 'cat'\)"),
        (lambda c: c["categories"].pop(), r"classes \('dog'\) are not among the .*\('cat'\)"),
        (lambda c: c.update(categories=[dict(id=1, name="cow")]), "match none .*'cow'"),
        (lambda c: c.update(annotations=[]), "no labeled image is left"),
        (lambda c: c["images"][1].update(width="80"), "record 1 of 'images' in .* has the width '80'"),
        (lambda c: c["images"][0].update(file_name=3), "has the file_name '3': a text, in quotes, is needed"),
        (lambda c: c["images"][0].update(id=[1]), r"has the id '\[1\]': a number or a text is needed"),
        (lambda c: c["images"][0].update(id="1"), "ids in 'images' of .* are numbers and strings"),
        (lambda c: c["annotations"][0].update(bbox=[]), r"has the bbox '\[\]': \[x, y, width, height\]"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "has the bbox .* in numbers is needed"),
        (lambda c: c["annotations"][0].update(area=True), "has the area 'True': a number is needed"),
        (lambda c: c["annotations"][0].update(image_id="1"), "image_id '1', and ids in 'images' are numbers"),
        (lambda c: c["annotations"][0].update(category_id="3"), "ids in 'categories' are numbers"),
        (lambda c: c["categories"][0].update(name=1), "record 0 of 'categories' in .* has the name '1'"),
        (lambda c: c["categories"][0].pop("id"), "record 0 of 'categories' in .* has no id"),
        (lambda c: c["categories"].append("cow"), "record 2 of 'categories' in .* has no id, name"),
    ],
)
def test_faulty_labeled_file(tmp_path: Path, content: Any, change: Any, message: str) -> None:
    change(content)
    options = dict(metainfo=dict(classes=CLASSES), filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(UserError, match=message) as raised:
        build("LabeledCoco", written(tmp_path, content), **options)
    assert "a.json" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["LabeledCoco", "UnlabeledCoco"])
@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("{}", dict(ann_file="b.json"), r"cannot read annotation file .*b\.json \(No such file"),
        ('{"images":\n', {}, r"a\.json is not valid JSON"),
        ("\u00ff", {}, r"a\.json is not valid JSON"),
        ("[]", {}, "has no list 'images'"),
        (None, dict(data_prefix=dict(img="pictures")), r"image folder .*pictures of .*a\.json"),
        (None, dict(filter_cfg=dict(min_size=1000)), "labeled image is left"),
    ],
)
def test_faults_of_either(
    tmp_path: Path, content: Any, kind: str, text: Any, options: Any, message: str
) -> None:
    root = written(tmp_path, content if text is None else text)
    with pytest.raises(UserError, match=message) as raised:
        build(kind, root, metainfo=dict(classes=CLASSES), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("classes", ["cat", (f"class {i}" for i in range(80))])
def test_unknown_classes_are_shown_shortened(tmp_path: Path, content: Any, classes: Any) -> None:
    classes = classes if isinstance(classes, str) else tuple(classes)
    with pytest.raises(UserError, match="match none of the categories") as raised:
        build("LabeledCoco", written(tmp_path, content), metainfo=dict(classes=classes))
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


def test_the_sentence_survives_a_loader_worker(tmp_path: Path, content: Any) -> None:
    root = written(tmp_path, content)
    path = root / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:40])
    two = pipelines.two_views(pipelines.weak((80, 60)), pipelines.strong((80, 60)))
    loader = DataLoader(build("UnlabeledCoco", root, pipeline=two), num_workers=1,
                        collate_fn=list, timeout=60)  # fmt: skip
    with pytest.raises(UserError) as raised:
        list(loader)
    assert "Traceback" in str(raised.value)
    assert raised.value.one_line.startswith(str(path)) or str(path) in raised.value.one_line
    assert "\n" not in raised.value.one_line and "UserError" not in raised.value.one_line


def test_an_image_too_narrow_to_be_tested_is_named(tmp_path: Path, content: Any) -> None:
    """Its shorter side would have less than half a pixel, which OpenCV refuses in words of its own."""
    root = written(tmp_path, content)
    cv2.imwrite(str(root / "images" / "2.png"), np.zeros((4, 3000, 3), np.uint8))
    content["images"][1].update(width=3000, height=4)
    (root / "a.json").write_text(json.dumps(content))
    options = dict(metainfo=dict(classes=CLASSES), pipeline=pipelines.test((80, 60)))
    dataset = build("LabeledCoco", root, test_mode=True, **options)
    assert dataset[0]["inputs"].shape == (3, 60, 80)
    with pytest.raises(UserError, match=r"2\.png is too narrow for its scale, 3000 x 4 px: leave it out"):
        dataset[1]
    with pytest.raises(cv2.error, match="resize"):  # in training another image comes in its place
        build("LabeledCoco", root, **options)[1]


def test_strange_classes_name_both_places_that_may_name_them(tmp_path: Path, content: Any) -> None:
    """A user of own_data.py has named them in `classes`, and never seen a metainfo."""
    with pytest.raises(
        UserError, match=r"set classes = \(\.\.\.\) of the config, or metainfo=dict\(classes="
    ):
        build("LabeledCoco", written(tmp_path, content), metainfo=dict(classes=("cow",)))


ROOTS: list[tuple[str | None, str, str, str]] = [  # SSOD_DATA_ROOT, data_root, ann_file, what is said
    ("{here}/sets", "{here}/sets/own", "a.json", "in the dataset's config; SSOD_DATA_ROOT is {here}/sets$"),
    (None, "data/own", "a.json", "config; SSOD_DATA_ROOT is not set, .* looked for below {here}/data$"),
    ("{here}/sets", "elsewhere", "a.json", "in the dataset's config$"),
    (None, "elsewhere", "a.json", "in the dataset's config$"),
    (
        "{here}/sets",
        "{here}/sets/coco",
        "semi_anns/instances_train2017.1@10.json",
        r"write it with tools/split_data\.py, .*; SSOD_DATA_ROOT is {here}/sets$",
    ),
    (
        None,
        "elsewhere",
        "semi_anns/b.json",
        r"write it with tools/split_data\.py, as docs/datasets\.md says$",
    ),
]


@pytest.mark.parametrize(("variable", "root", "ann_file", "said"), ROOTS)
def test_a_missing_file_says_what_the_data_root_is(
    variable: str | None,
    root: str,
    ann_file: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Any,
) -> None:
    here = str(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSOD_DATA_ROOT", raising=False)
    if variable is not None:
        monkeypatch.setenv("SSOD_DATA_ROOT", variable.format(here=here))
    folder = Path(root.format(here=here))
    with pytest.raises(UserError, match=said.format(here=here)):
        build("UnlabeledCoco", folder, ann_file=ann_file)
    (folder / ann_file).parent.mkdir(parents=True)
    (folder / ann_file).write_text(json.dumps(content))
    with pytest.raises(UserError, match="image folder") as caught:
        build("UnlabeledCoco", folder, ann_file=ann_file)
    assert str(caught.value).endswith("config") != ("SSOD_DATA_ROOT" in said)
