"""mmdet's own steps with our weights and settings: its supervised detector and its SoftTeacher."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper

from ssod import kernels
from ssod.methods.soft_teacher import SoftTeacher
from ssod.models.supported import without_masks
from ssod.study.benchmark.as_gpu import on_torchvisions_kernels
from ssod.study.benchmark.batches import Batches, as_mmdet_semi, as_mmdet_supervised
from ssod.study.benchmark.contestants import Contestant, Snapshot
from ssod.study.benchmark.ours import at_hand
from ssod.study.benchmark.settings import Settings

OWN_KERNELS = "_ssod_kernels"
PREPROCESSOR_OPTIONS = ("mean", "std", "bgr_to_rgb", "rgb_to_bgr", "pad_size_divisor", "pad_value")


def detector_config(config: Config) -> ConfigDict:
    """The config of the student's mmdet detector, as SemiDetector builds it."""
    plain = Config(at_hand(copy.deepcopy(config.model.detector.to_dict())))._cfg_dict
    return ConfigDict(without_masks(plain).to_dict())


def preprocessor_config(config: Config) -> dict[str, Any]:
    """mmdet's preprocessor with the settings of ours."""
    own = config.model.data_preprocessor
    return dict(type="DetDataPreprocessor", **{key: own[key] for key in PREPROCESSOR_OPTIONS if key in own})


def thresholds(method: Any) -> dict[str, Any]:
    """mmdet's semi_train_cfg with the values of our SoftTeacher; its defaults' for any other method."""
    own = method if isinstance(method, SoftTeacher) else SoftTeacher()
    return dict(
        freeze_teacher=True,
        sup_weight=1.0,
        unsup_weight=own.unsup_weight(10**9),
        pseudo_label_initial_score_thr=own.floor,
        rpn_pseudo_thr=own.for_rpn.floor,
        cls_pseudo_thr=own.for_class.floor,
        reg_pseudo_thr=own.box_max_spread,
        jitter_times=own.jitter.num_jitters,
        jitter_scale=own.jitter.jitter_fraction,
        min_pseudo_bbox_wh=(1e-2, 1e-2),
    )


def optimizer(config: Config, model: Any, precision: str) -> Any:
    """mmengine's wrapper of the config's optimizer; ours where mmdet's steps run in mixed precision."""
    wrapper = copy.deepcopy(config.optim_wrapper.to_dict())
    if precision == "float32":
        wrapper.pop("precision", None)
        wrapper["type"] = "OptimWrapper"
    else:
        wrapper |= {"type": "GuardedOptimWrapper", "precision": precision}
    return build_optim_wrapper(model, wrapper)


def build_supervised(config: Config, ours: Any) -> Any:
    """mmdet's detector with the weights of our student."""
    detector = {**detector_config(config), "data_preprocessor": preprocessor_config(config)}
    model = MODELS.build(ConfigDict(detector))
    model.load_state_dict(ours.student.state_dict())
    return model.train()


def build_soft_teacher(config: Config, ours: Any) -> Any:
    """mmdet's SoftTeacher with the weights of our student and teacher, and our thresholds."""
    multi = dict(type="MultiBranchDataPreprocessor", data_preprocessor=preprocessor_config(config))
    model = MODELS.build(
        dict(
            type="mmdet.SoftTeacher",
            detector=detector_config(config),
            semi_train_cfg=ConfigDict(thresholds(ours.method)),
            semi_test_cfg=ConfigDict(predict_on="teacher"),
            data_preprocessor=multi,
        )
    )
    model.student.load_state_dict(ours.student.state_dict())
    model.teacher.load_state_dict((ours.teacher or ours.student).state_dict())
    return model.train()


def contestants(
    config: Config, settings: Settings, ours: Any, batches: Batches, precision: str
) -> list[Contestant]:
    """mmdet's two steps, once for each set of kernels; only the supervised one where there are no two stages.

    Names: `mmdet_supervised` and `mmdet_method`; with `_ssod_kernels` behind them where mmdet runs on our
    RoIAlign, which mmcv without a compiled extension would not have.
    """
    # Late: it brings mmdet's models, which must find the kernels in their place.
    from mmdet.engine.hooks import MeanTeacherHook

    supervised = build_supervised(config, ours).to(settings.on)
    data: partial[Any] = partial(as_mmdet_supervised, batches.supervised)
    made: list[tuple[str, Any, partial[Any], partial[Any] | None]] = [
        ("mmdet_supervised", supervised, data, None)
    ]
    if ours.method is not None and batches.semi is not None and supports_soft_teacher(ours, batches):
        semi = build_soft_teacher(config, ours).to(settings.on)
        momentum = 1 - getattr(ours.policy, "decay", 0.999)
        average = partial(MeanTeacherHook().momentum_update, semi, momentum)
        made.append(("mmdet_method", semi, partial(as_mmdet_semi, batches.semi), average))
    entries = []
    for name, model, data, follow in made:
        snapshot, wrapper = Snapshot(model), optimizer(config, model, precision)
        for ending, around in _kernels(settings):
            entries.append(
                Contestant(
                    name=name + ending,
                    model=model,
                    optimizer=wrapper,
                    data=data,
                    snapshot=snapshot,
                    num_images=batches.num_images,
                    follow=follow,
                    around=around,
                )
            )
    return entries


def supports_soft_teacher(ours: Any, batches: Batches) -> bool:
    """Whether mmdet's SoftTeacher can run on the detector and the views there are."""
    two_stages = hasattr(ours.student, "rpn_head") and hasattr(ours.student, "roi_head")
    return two_stages and batches.semi is not None and "weak" in batches.semi


def kernels_of_mmdet(settings: Settings) -> str:
    """Whose RoIAlign mmdet's steps run on, in a word; a compiled mmcv's own where there is one."""
    if kernels.active() != "torchvision":
        return kernels.active()
    return settings.mmdet_kernels if settings.on == "cpu" else "torchvision"


def _kernels(settings: Settings) -> list[tuple[str, Callable[[], AbstractContextManager[Any]]]]:
    """The endings of names and the contexts of the sets of kernels to measure."""
    plain = ("", on_torchvisions_kernels)
    own: tuple[str, Callable[[], AbstractContextManager[Any]]] = (OWN_KERNELS, nullcontext)
    if kernels.active() != "torchvision" or settings.on != "cpu":
        return [("", nullcontext)]  # there is one RoIAlign only
    return {"torchvision": [plain], "ssod": [own], "both": [plain, own]}[settings.mmdet_kernels]


@contextmanager
def counted_boxes(model: Any) -> Iterator[list[float]]:
    """A block that notes how many boxes an image mmdet's teacher hands on, one number for each step."""
    original, noted = model.get_pseudo_instances, list[float]()

    def noting(*given: Any) -> Any:
        samples, info = original(*given)
        noted.append(sum(len(each.gt_instances) for each in samples) / max(len(samples), 1))
        return samples, info

    with mock.patch.object(model, "get_pseudo_instances", noting):
        yield noted
