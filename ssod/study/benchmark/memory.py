"""The most memory that a step holds at once, besides what was held before it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ssod.study.benchmark.contestants import Contestant


def peak(running: Iterable[int]) -> int:
    """The largest sum of the first so many of a row of bytes taken (+) and given back (-), at least 0."""
    held = most = 0
    for each in running:
        held += each
        most = max(most, held)
    return most


def of(contestant: Contestant, device: str) -> int:
    """Bytes at the peak of a contestant's step."""
    contestant.prepare(0)
    return measure(contestant.step, device)


def measure(step: Callable[[], Any], device: str) -> int:
    """Bytes that the step's tensors take at their peak, weights and batch not among them.

    On a GPU what torch's allocator reports. On a CPU the sum over all allocations of torch's allocator that
    its profiler saw, with the kernels' own scratch tensors; oneDNN's internal buffers are not in it.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    return peak(_allocations(profiler))


def _allocations(profiler: Any) -> list[int]:
    """Bytes taken (+) and given back (-) on the CPU, in order of time."""
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    return [each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]


def how(device: str) -> str:
    """What the figures are, in words."""
    if device == "cuda":
        return "peak of torch.cuda.max_memory_allocated above what was allocated before the step"
    return "peak of all CPU allocations that torch.profiler saw, above what was allocated before the step"
