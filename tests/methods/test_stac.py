"""STAC: the boxes it selects against a loop, its losses against mmdet's own, images without labels."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import detectors, offline

from ssod.core.labels import BoxLabels
from ssod.errors import UserError
from ssod.models.views import SemiBatch

UNSUP = {"unsup_loss_rpn_cls", "unsup_loss_rpn_bbox", "unsup_loss_cls", "unsup_loss_bbox"}


def method(**options: Any) -> Any:
    from ssod.registry import METHODS

    return METHODS.build(dict(type="STAC") | options)


def scored(labels: BoxLabels, seed: int = 0) -> BoxLabels:
    """The labels with random scores of two decimals, so that some meet a threshold exactly."""
    generator = torch.Generator().manual_seed(seed)
    return replace(labels, scores=torch.randint(0, 101, labels.valid.shape, generator=generator) / 100)


def offline_batch(counts: tuple[int, ...] = (5, 3), seed: int = 0) -> SemiBatch:
    """A batch as PseudoLabeled makes it: the strong view with scored labels, no weak view."""
    batch = detectors.semi_batch()
    labels = scored(detectors.truth(counts, seed, of=batch.strong), seed)
    return replace(batch, weak=None, weak_to_strong=None, strong_to_weak=None, strong_labels=labels)


@pytest.fixture(scope="module")
def model(registered: None) -> Any:
    return detectors.semi_detector(dict(type="STAC", min_score=0.5))


def step(model: Any, batch: SemiBatch, **options: Any) -> dict[str, torch.Tensor]:
    chosen = method(**{"min_score": 0.5, **options})
    torch.manual_seed(0)
    return dict(chosen.losses(model.student, None, batch, chosen.unsup_weight(0)))


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (1, 7), (500, 3)], ids=str)
@pytest.mark.parametrize("min_score", [0.0, 0.5, 0.9])
def test_selected_boxes_are_those_of_a_loop(
    registered: None, counts: tuple[int, int], min_score: float
) -> None:
    for seed in range(5):
        batch = offline_batch(counts, seed)
        labels = batch.strong_labels
        chosen = method(min_score=min_score).select(batch)
        for image in range(2):
            scores = [round(each, 2) for each in labels.scores[image].tolist()]
            expected = offline.above(scores, labels.valid[image].tolist(), min_score)
            assert chosen.valid[image].tolist() == expected
        assert chosen.boxes.equal(labels.boxes) and chosen.classes.equal(labels.classes)


def test_a_score_at_the_threshold_counts_as_in_the_file(registered: None) -> None:
    batch = offline_batch((2, 2))
    at = replace(batch.strong_labels, scores=torch.tensor([[0.9, 0.8999], [0.9001, 0.0]]))
    chosen = method().select(replace(batch, strong_labels=at))
    assert chosen.valid.tolist() == [[True, False], [True, False]]


def test_every_term_is_mmdets_own(model: Any) -> None:
    """L_s + 2 L_u, each part as mmdet's detector computes it on its images alone."""
    batch = offline_batch()
    kept = method(min_score=0.5).select(batch)
    assert 0 < kept.valid.sum() < batch.strong_labels.valid.sum(), "some boxes must be refused, some not"
    got = step(model, batch)
    parts = (("sup", batch.labeled, batch.truth, 1.0), ("unsup", batch.strong, kept, 2.0))
    for name, view, labels, weight in parts:
        theirs = model.student.loss(view.images, detectors.samples(view, labels))
        terms = {key: value for key, value in theirs.items() if "loss" in key}
        assert {f"{name}_{key}" for key in terms} <= set(got)
        for key, value in terms.items():
            total = weight * (sum(value) if isinstance(value, list) else value)
            torch.testing.assert_close(got[f"{name}_{key}"], total, rtol=1e-4, atol=1e-5)


def test_weight_0_is_the_supervised_twin(model: Any) -> None:
    batch = offline_batch()
    silent = step(model, batch, unsup_weight=0.0)
    assert all(silent[key] == 0 for key in UNSUP)
    twin = detectors.semi_detector(None)
    twin.student.load_state_dict(model.student.state_dict())
    torch.manual_seed(0)
    expected = twin.loss(batch)
    assert set(expected) == {key for key in silent if key.startswith("sup_")}
    for key, value in expected.items():
        torch.testing.assert_close(silent[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counts", [(0, 0), (0, 4)], ids=["no labels", "one image without"])
def test_images_without_labels(model: Any, counts: tuple[int, int]) -> None:
    losses = step(model, offline_batch(counts))
    assert all(torch.isfinite(value).all() for value in losses.values())
    total = torch.stack([value for key, value in losses.items() if "loss" in key]).sum()
    found = detectors.gradients(model.student, total)
    trainable = {name for name, each in model.student.named_parameters() if each.requires_grad}
    assert set(found) == trainable and all(torch.isfinite(each).all() for each in found.values())
    assert set(step(model, offline_batch())) == set(losses)  # the keys don't depend on what there is


@pytest.mark.parametrize(
    ("option", "value", "moved"),
    [
        ("unsup_weight", 4.0, UNSUP),
        ("min_score", 0.9, UNSUP | {"unsup_acc", "num_boxes_cls"}),
    ],
)
def test_every_option_changes_what_it_says(model: Any, option: str, value: float, moved: set[str]) -> None:
    batch = offline_batch((8, 8))
    before, after = step(model, batch), step(model, batch, **{option: value})
    assert {key for key in before if not torch.equal(before[key], after[key])} == moved


def test_there_is_no_teacher(model: Any) -> None:
    assert model.teacher is None and model.which == ("student",)
    labels = model.pseudo_labels(offline_batch())
    assert set(labels) == {"strong", "masks"}
    losses = model.loss(offline_batch())
    assert losses["unsup_weight"] == 2.0 and losses["num_boxes_candidates"] == 4.0


def test_images_without_a_file_of_labels_are_refused(model: Any) -> None:
    with pytest.raises(UserError, match="make it a PseudoLabeled"):
        step(model, detectors.semi_batch())


def test_a_score_is_a_share(registered: None) -> None:
    with pytest.raises(UserError, match=r"lies in \[0, 1\]"):
        method(min_score=90)
