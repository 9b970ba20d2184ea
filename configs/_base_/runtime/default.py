"""What every run has in common: the hooks, their intervals, the seed."""

default_scope = "ssod"
randomness = dict(seed=0)
# Seconds without progress after which a run of several processes ends, naming the one that holds it up.
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(timeout=1800))
# Scalars for `tensorboard --logdir`; mmengine's other backends go beside it or in its place, None keeps none.
visualizer = dict(type="Visualizer", vis_backends=[dict(type="TensorBoard")])
default_hooks = dict(
    runtime_info=dict(type="RuntimeInfo"),
    timer=None,
    sampler_seed=None,
    logger=None,
    param_scheduler=dict(type="ParamSchedulerHook"),
    semi=dict(type="SemiHook"),
    finite_guard=dict(type="FiniteGuard", max_bad_steps=5),
    scalars=dict(type="ScalarLog", interval=50),
    checkpoint=dict(type="Checkpoints", interval=500),
    pictures=dict(type="PseudoLabelPictures", num_images=4),
    telemetry=dict(type="PseudoLabelTelemetry", num_images=64),
)
