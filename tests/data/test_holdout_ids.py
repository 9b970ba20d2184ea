"""`only_ids` and `except_ids`: one file parted into labeled and unlabeled images without a new file."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import init_default_scope

from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")


def ids_of(root: Path, kind: str, **options: Any) -> list[int]:
    """The image ids that a dataset over the mini COCO set yields, in order."""
    from ssod.registry import DATASETS

    init_default_scope("ssod")
    config = dict(type=kind, data_root=str(root / "coco_open_mini"), ann_file="train.json", **options)
    dataset = DATASETS.build({**config, "data_prefix": dict(img="images/")})
    return [dataset.get_data_info(index)["img_id"] for index in range(len(dataset))]


@pytest.mark.parametrize("kind", ["LabeledCoco", "UnlabeledCoco"])
def test_the_two_parts_are_disjoint_and_together_the_file(data_root: Path, kind: str) -> None:
    everything = ids_of(data_root, kind)
    chosen = everything[40:10:-7]  # not in file order
    part, rest = ids_of(data_root, kind, only_ids=chosen), ids_of(data_root, kind, except_ids=chosen)
    assert part == [each for each in everything if each in chosen]  # file order, whatever the list's
    assert rest == [each for each in everything if each not in chosen]
    assert len(part) == 5 and len(everything) == 80


def test_filter_cfg_works_on_the_part(data_root: Path) -> None:
    everything = ids_of(data_root, "LabeledCoco")
    with_boxes = ids_of(data_root, "LabeledCoco", filter_cfg=dict(filter_empty_gt=True))
    [empty] = set(everything) - set(with_boxes)
    chosen = [empty, with_boxes[0]]
    kept = ids_of(data_root, "LabeledCoco", only_ids=chosen, filter_cfg=dict(filter_empty_gt=True))
    assert kept == [with_boxes[0]]


@pytest.mark.parametrize("kind", ["LabeledCoco", "UnlabeledCoco"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(only_ids=[30, 4]), r"only_ids has ids \(4\) that are no images of .*train\.json"),
        (dict(except_ids=[30, 5]), r"except_ids has ids \(5\) that are no images"),
        (dict(only_ids=[30, 30]), "only_ids .* an id twice"),
        (dict(only_ids=[30], except_ids=[30]), "both given"),
    ],
)
def test_a_wrong_list_is_one_clear_line(
    data_root: Path, kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ids_of(data_root, kind, **options)


def test_an_empty_exception_is_the_whole_file_and_an_empty_choice_an_error(data_root: Path) -> None:
    assert len(ids_of(data_root, "UnlabeledCoco", except_ids=[])) == 80
    with pytest.raises(UserError, match="no labeled image is left"):
        ids_of(data_root, "LabeledCoco", only_ids=[])
