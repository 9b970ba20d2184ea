"""Children of mmdet's registries under the scope "ssod", so configs name our parts like mmdet's own."""

from importlib import import_module

from mmdet import registry as mmdet_registry
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import DefaultScope, Registry


def _child(name: str, *locations: str) -> Registry:
    """A child of mmdet's registry `name`: what ssod does not define is looked up there."""
    parent: Registry = getattr(mmdet_registry, name)
    return Registry(parent.name, parent=parent, scope="ssod", locations=list(locations))


MODELS = _child("MODELS", "ssod.models")
DATASETS = _child("DATASETS", "ssod.data")
DATA_SAMPLERS = _child("DATA_SAMPLERS", "ssod.data")
TRANSFORMS = _child("TRANSFORMS", "ssod.data")
HOOKS = _child("HOOKS", "ssod.engine")
LOOPS = _child("LOOPS", "ssod.engine")
VISBACKENDS = _child("VISBACKENDS", "ssod.engine")
METHODS = Registry("method", scope="ssod", locations=["ssod.methods"])
TEACHERS = Registry("teacher", scope="ssod", locations=["ssod.models"])
FUNCTIONS = Registry("function", parent=MMENGINE_FUNCTIONS, scope="ssod", locations=["ssod.data"])

# With "ssod" as default scope mmengine wants a child everywhere, or it warns and looks in the root only.
_PASS_THROUGH = [
    _child(name)
    for name in (
        "RUNNERS",
        "RUNNER_CONSTRUCTORS",
        "MODEL_WRAPPERS",
        "WEIGHT_INITIALIZERS",
        "OPTIMIZERS",
        "OPTIM_WRAPPERS",
        "OPTIM_WRAPPER_CONSTRUCTORS",
        "PARAM_SCHEDULERS",
        "METRICS",
        "EVALUATOR",
        "TASK_UTILS",
        "VISUALIZERS",
        "LOG_PROCESSORS",
    )
]

_MODULES = (
    "ssod.models.preprocessor",
    "ssod.models.torchvision_backbone",
    "ssod.models.teachers",
    "ssod.models.detector",
    "ssod.methods.fixmatch",
    "ssod.methods.mean_teacher",
    "ssod.methods.soft_teacher",
    "ssod.methods.stac",
    "ssod.methods.unbiased_teacher",
    "ssod.data.datasets",
    "ssod.data.unlabeled",
    "ssod.data.bad_images",
    "ssod.data.pseudo_coco",
    "ssod.data.augment",
    "ssod.data.boxwise",
    "ssod.data.draws",
    "ssod.data.pixels",
    "ssod.data.reduced",
    "ssod.data.sampler",
    "ssod.engine.faults.finite_guard",
    "ssod.engine.hooks",
    "ssod.engine.loops",
    "ssod.engine.optim",
    "ssod.engine.records.event_files",
    "ssod.engine.records.pictures",
    "ssod.engine.saving.checkpoints",
    "ssod.engine.telemetry.hook",
)


def register_all_modules() -> None:
    """Imports every module of ours and of mmdet that registers something; sets the default scope.

    Safe to call twice. Torchvision's kernels are in place before mmdet is imported, and files of weights are
    read without running what they hold.
    """
    from ssod import kernels, safe_load

    kernels.install()
    safe_load.install()
    with kernels.quiet_imports():
        from mmdet.utils import register_all_modules as register_mmdet
    register_mmdet(init_default_scope=False)
    for module in _MODULES:
        import_module(module)
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance("ssod", scope_name="ssod")
