"""The host's random generators, Python's, NumPy's and torch's, taken and set together."""

import random
from typing import Any

import numpy as np
import torch

State = tuple[Any, Any, Any]


def state_of_generators() -> State:
    """Their states; a device's generator is training's own."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_generators(state: State) -> None:
    """Sets them to states from before."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
