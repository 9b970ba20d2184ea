"""A compiled detector against the one as written: losses, gradients, averages, keys; what padding does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import detectors, small_detectors
from torch import Tensor, nn
from torch.nn.functional import pad

from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.compiled import Compilation
from ssod.models.views import SemiBatch, View

SOFT = dict(type="SoftTeacher", floor=0.3, rpn_min_score=0.4, cls_min_score=0.4, box_max_spread=0.5)


def build(compile: bool | dict[str, Any] = False, pad_to: tuple[int, int] | None = None) -> Any:
    from ssod.registry import MODELS

    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="SemiDetector",
            detector=detectors.config(exhaustive=False),
            method=SOFT,
            teacher=dict(type="EMATeacher", decay=0.9),
            data_preprocessor=dict(type="SemiPreprocessor", pad_to=pad_to),
            compile=compile,
        )
    ).train()


class Graphs:
    """A backend that runs what it is given, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: Any) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


def step(model: Any, number: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses and gradients of a step of plain descent, after which the teacher follows."""
    torch.manual_seed(number)
    losses = model.loss(detectors.semi_batch(number))
    model.zero_grad()
    torch.stack([value for key, value in losses.items() if "loss" in key]).sum().backward()
    trained = [each for each in model.student.parameters() if each.grad is not None]
    gradients = [each.grad.clone() for each in trained]
    with torch.no_grad():
        for parameter in trained:
            parameter -= 1e-4 * parameter.grad
    model.after_step(number + 5)
    return losses, gradients


def test_a_compiled_step_is_the_step_as_written(registered: None) -> None:
    """Two steps with the average between; then a prediction of another size, which compiles nothing."""
    torch.compiler.reset()
    graphs = Graphs()
    plain, compiled = build(), build(dict(backend=graphs))
    detectors.enliven(plain.student)
    plain.start()
    assert graphs.count == 0  # parts are compiled when they are first called
    assert list(plain.state_dict()) == list(compiled.state_dict())
    compiled.load_state_dict(plain.state_dict())
    for number in range(2):
        (losses, gradients), (expected, theirs) = step(compiled, number), step(plain, number)
        assert losses.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(losses[key], value, rtol=1e-5, atol=1e-6, msg=key)
        for ours, other in zip(gradients, theirs, strict=True):
            assert (ours - other).abs().max() <= 1e-4 * other.abs().max().clamp(min=1e-3)
    assert graphs.count >= 8  # four parts, twice
    for (name, ours), other in zip(
        compiled.teacher.state_dict().items(), plain.teacher.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6, msg=name)
    assert not compiled.teacher.neck.fpn_convs[0].conv.weight.equal(
        compiled.student.neck.fpn_convs[0].conv.weight
    )

    before, look = graphs.count, detectors.view(((64, 70), (50, 30)))
    [found, other] = compiled.eval().predict(look.images, detectors.samples(look))
    compiled.extract_feat(look.images)
    assert graphs.count == before
    plain.load_state_dict(compiled.state_dict())
    expected_found = plain.eval().predict(look.images, detectors.samples(look))
    assert found.pred_instances.scores.equal(expected_found[0].pred_instances.scores)


@pytest.mark.parametrize(("pad_to", "dynamic"), [((128, 96), False), (None, None)], ids=str)
def test_padded_to_few_sizes_each_has_its_graph(
    registered: None, pad_to: tuple[int, int] | None, dynamic: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False: torch makes a graph for each size. None: from the second size on for many. True: for many."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: asked.append(options))
    build(dict(mode="max-autotune-no-cudagraphs"), pad_to)
    assert [each["dynamic"] for each in asked] == [dynamic, dynamic, dynamic, True] * 2
    assert {(each["backend"], each["mode"]) for each in asked} == {("inductor", "max-autotune-no-cudagraphs")}


PARTS = {"backbone", "neck"}
HEADS = {"rpn_head", "roi_head.bbox_head"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (False, set()),
        (True, PARTS | HEADS),
        (dict(heads=False), PARTS),
        (dict(trunk=False, backend="aot_eager"), HEADS),
    ],
    ids=["nothing", "all", "no heads", "no trunk"],  # a set's text has no order
)
def test_what_is_compiled(registered: None, spec: bool | dict[str, Any], expected: set[str]) -> None:
    model = build(spec)
    for network in (model.student, model.teacher):
        assert {n for n, each in network.named_modules() if each._compiled_call_impl is not None} == expected


@pytest.mark.parametrize("name", ["retinanet", "cascade_rcnn"])
def test_of_other_detectors_only_the_trunk(registered: None, name: str) -> None:
    detector = small_detectors.build(name)
    parts = [part for part, _ in Compilation().parts(detector, None)]
    assert parts == [detector.backbone, detector.neck]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dict(trunks=True), r"use True, False or a dict of trunk, heads, mode, backend"),
        ("inductor", r"model.compile='inductor': use True"),
        (dict(mode="reduce-overhead"), r"model.compile: mode='reduce-overhead'; use None or"),
        (dict(trunk="no"), r"model.compile: trunk='no'; use True or False"),
        (dict(backend="no_such"), r"backend='no_such', mode=None: "),
        (dict(mode="no_such"), r"model.compile: mode='no_such'; use None or"),
    ],
    ids=str,
)
def test_what_torch_does_not_know(registered: None, spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- padding


def padded(view: View, height: int, width: int, extent: bool = True) -> View:
    """The view with its images padded to this size."""
    own = tuple(view.images.shape[2:])
    return replace(view, images=grown(view.images, height, width), extent=own if extent else None)


def joint(batch: SemiBatch) -> SemiBatch:
    """Labeled and strong images padded together, as by the preprocessor."""
    assert batch.strong is not None
    shapes = [view.images.shape[2:] for view in (batch.labeled, batch.strong)]
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    labeled, strong = (padded(view, height, width, extent=False) for view in (batch.labeled, batch.strong))
    return replace(batch, labeled=labeled, strong=strong)


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("SoftTeacher", dict(floor=0.3, rpn_min_score=0.5, cls_min_score=0.5, box_max_spread=0.1)),
    ("MeanTeacher", dict(rpn_weight=1.0)),
    ("FixMatch", dict(min_score=0.5)),
]


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_behind_the_trunk_nothing_sees_the_padding(
    registered: None, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With features that are those of the batch's own size, and 0 in the padding."""
    networks = detectors.student_and_teacher()
    batch = joint(networks[2])
    assert batch.weak is not None and batch.strong is not None
    method, features = detectors.method(name, options), frcnn.features
    expected = detectors.one_step(method, (*networks[:2], batch))
    own = {batch.weak.images.shape[0]: batch.weak.images.shape[2:], 4: batch.strong.images.shape[2:]}

    def zero_beyond(detector: Any, images: Tensor) -> frcnn.Features:
        height, width = own[len(images)]
        found = zip(features(detector, images[..., :height, :width]), (8, 16, 32), strict=True)
        return tuple(
            grown(each, images.shape[2] // stride, images.shape[3] // stride) for each, stride in found
        )

    monkeypatch.setattr(frcnn, "features", zero_beyond)
    got = detectors.one_step(method, (*networks[:2], larger(batch, extent=True)))
    for key, value in got.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)
    uncut = detectors.one_step(method, (*networks[:2], larger(batch, extent=False)))
    assert any((uncut[key] - value).abs() > 1e-3 for key, value in expected.items())


def larger(batch: SemiBatch, extent: bool) -> SemiBatch:
    """The batch with all views padded to 160 x 224."""
    views = {each: getattr(batch, each) for each in ("labeled", "weak", "strong")}
    return replace(batch, **{name: padded(view, 160, 224, extent) for name, view in views.items()})


def grown(maps: Tensor, height: int, width: int) -> Tensor:
    return pad(maps, (0, width - maps.shape[3], 0, height - maps.shape[2]))
