"""Soft Teacher's box jittering: how many copies, how far they move, and which spread is small enough.

One at a time; the others are the config's. Published: 10 copies, 0.06 of a side, 0.02.
"""

axes = dict(seed=[0])
_values = dict(
    num_jitters=[2, 5, 10, 20], jitter_fraction=[0.03, 0.06, 0.12], box_max_spread=[0.01, 0.02, 0.04, 0.08]
)
runs = [{name: value} for name, values in _values.items() for value in values]
configs = dict(soft_teacher="../soft_teacher/{data}.py")
supervised = "../supervised/{data}.py"
options = {name: f"model.method.{name}" for name in _values}
