"""The policy on data: what it admits, what it refuses; classes that are named once."""

from typing import Any

import pytest
from mmengine.config import Config

from ssod.engine.faults.data_policy import DataPolicy, share_classes
from ssod.errors import UserError


def test_defaults_and_options() -> None:
    assert DataPolicy.of({}) == DataPolicy("skip", 0.01, False)
    given = dict(on_bad_image="raise", max_bad_fraction=0.2, allow_leaks=True)
    assert DataPolicy.of({"data_policy": given}) == DataPolicy(**given)
    assert DataPolicy(**given).as_config() == given


@pytest.mark.parametrize(
    ("options", "num_images", "most"),
    [
        (dict(), 20, 3),
        (dict(), 399, 3),
        (dict(), 400, 4),
        (dict(), 118_287, 1182),
        (dict(max_bad_fraction=0.05), 185, 9),
        (dict(max_bad_fraction=0.29), 100, 29),  # 28.999999999999996 in floats
        (dict(max_bad_fraction=0), 10_000, 0),
        (dict(on_bad_image="raise"), 10_000, 0),
    ],
)
def test_how_many_may_be_bad(options: dict[str, Any], num_images: int, most: int) -> None:
    assert DataPolicy(**options).most_bad(num_images) == most


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(on_bad_images="skip"), "no option 'on_bad_images'; did you mean on_bad_image"),
        (dict(on_bad_image="ignore"), "on_bad_image 'ignore'; use 'raise' or 'skip'"),
        (dict(max_bad_fraction=1.5), "a number between 0 and 1"),
        (dict(max_bad_fraction="1 %"), "a number between 0 and 1"),
        (dict(allow_leaks="yes"), "use True or False"),
    ],
)
def test_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DataPolicy.of({"data_policy": given})


def loader(*parts: dict[str, Any]) -> dict[str, Any]:
    return dict(dataset=dict(type="ConcatDataset", datasets=list(parts)))


def test_classes_are_shared() -> None:
    named = dict(type="LabeledCoco", metainfo=dict(classes=("a", "b")))
    plain, other = dict(type="UnlabeledImages"), dict(type="CocoDataset")
    wrapped = dict(type="PseudoLabeled", dataset=dict(type="UnlabeledCoco"))
    config = Config(
        dict(
            classes=("x",),
            train_dataloader=loader(named, plain, wrapped, other),
            val_dataloader=dict(dataset=dict(type="LabeledCoco", metainfo=dict(classes=("b", "a")))),
        )
    )
    share_classes(config)
    parts = config.train_dataloader.dataset.datasets
    assert parts[1].metainfo.classes == parts[2].dataset.metainfo.classes == ("a", "b")
    assert "metainfo" not in parts[3] and "metainfo" not in parts[2]
    assert config.val_dataloader.dataset.metainfo.classes == ("b", "a")  # what is given stays


def test_classes_of_the_config_where_no_dataset_names_any() -> None:
    config = Config(dict(classes=("x", "y"), train_dataloader=loader(dict(type="LabeledCoco"))))
    share_classes(config)
    assert config.train_dataloader.dataset.datasets[0].metainfo.classes == ("x", "y")
    bare = Config(dict(train_dataloader=loader(dict(type="LabeledCoco"))))
    share_classes(bare)
    assert "metainfo" not in bare.train_dataloader.dataset.datasets[0]
