"""Workers from cores, pinned memory, and copies on a stream of their own, with a stand-in for CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from ssod.core.image_stack import ImageStack
from ssod.engine import loading
from ssod.engine.loading import beside_the_step, choose_workers, default_workers, pin_batches, usable_cores

# ---------------------------------------------------------------- workers and pinned memory


@pytest.mark.parametrize(
    ("cores", "environment", "expected"),
    [
        (1, {}, 1),
        (2, {}, 1),  # the other core trains
        (6, {}, 5),
        (64, {}, 8),
        (64, {"LOCAL_WORLD_SIZE": "8"}, 7),
        (4, {"LOCAL_WORLD_SIZE": "8"}, 1),
        (64, {"SLURM_CPUS_PER_TASK": "5"}, 4),  # each task has its own, not a share of all
        (4, {"SLURM_CPUS_PER_TASK": "16"}, 3),
        (64, {"SLURM_CPUS_PER_TASK": "64", "LOCAL_WORLD_SIZE": "8"}, 7),  # torchrun within one task
    ],
)
def test_workers_of_a_process(cores: int, environment: dict[str, str], expected: int) -> None:
    assert default_workers(cores, environment) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 12),
        ({"cpu.max": "max 100000\n"}, 12),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 12),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 12),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
    ids=str,
)
def test_cores_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: set(range(12)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == expected


def loaders(**given: Any) -> Config:
    return Config(dict(train_dataloader=dict(batch_size=2, **given), val_dataloader=dict(num_workers=0)))


def test_a_config_that_says_nothing_gets_workers_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "usable_cores", lambda: 6)
    monkeypatch.setattr(loading.os, "environ", {})
    config = loaders()
    choose_workers(config)
    assert config.train_dataloader == dict(batch_size=2, num_workers=5, persistent_workers=True)
    assert config.val_dataloader == dict(num_workers=0)  # torch refuses to keep none


@pytest.mark.parametrize("given", [0, 3])
def test_a_number_in_the_config_stays(given: int) -> None:
    config = loaders(num_workers=given)
    choose_workers(config)
    assert config.train_dataloader == dict(batch_size=2, num_workers=given)


def test_without_workers_none_stay() -> None:
    """So that --cfg-options train_dataloader.num_workers=0 is enough."""
    config = loaders(num_workers=0, persistent_workers=True)
    choose_workers(config)
    assert config.train_dataloader.persistent_workers is False
    torch.utils.data.DataLoader([1], num_workers=0, persistent_workers=False)


def test_batches_are_pinned_unless_the_config_says_no() -> None:
    for given, expected in (({}, True), (dict(pin_memory=False), False)):
        config = loaders(**given)
        pin_batches(config)
        assert config.train_dataloader.pin_memory is expected and config.val_dataloader.pin_memory is True


# ---------------------------------------------------------------- copies beside the step


class Cuda:
    """What `beside_the_step` asks of torch.cuda; notes in which order and on which stream."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.main, self.now = self.Stream("main"), "main"

    def Stream(self, device: Any) -> Any:  # noqa: N802  torch's name
        cuda, name = self, "main" if device == "main" else "copies"

        class Stream:
            def wait_stream(self, other: Any) -> None:
                cuda.done.append(("waits", name, other.name))

        stream = Stream()
        stream.name = name  # type: ignore[attr-defined]
        return stream

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.now = self.now, stream.name
        yield
        self.now = before

    def current_stream(self, device: Any) -> Any:
        return self.main


def watched(cuda: Cuda, label: str) -> ImageStack:
    """A stack whose pixels note how they are moved; they stay where they are."""

    class Pixels(Tensor):
        def to(self, device: Any, non_blocking: bool = False) -> Any:  # type: ignore[override]
            assert device == torch.device("cuda", 0) and non_blocking
            cuda.done.append(("copied", label, cuda.now))
            return self

        def record_stream(self, stream: Any) -> None:
            cuda.done.append(("kept for", label, stream.name))

    stack = ImageStack.of([torch.ones(3, 2, 2, dtype=torch.uint8)])
    return ImageStack(stack.pixels.as_subclass(Pixels), stack.sizes)


def test_a_batch_is_copied_on_its_own_stream_and_waited_for() -> None:
    cuda = Cuda()
    batch = {
        name: dict(inputs=watched(cuda, name), data_samples=[f"sample {name}"])
        for name in ("labeled", "weak")
    }
    [moved] = beside_the_step(iter([batch]), torch.device("cuda", 0), cuda)
    assert cuda.done == [
        ("copied", "labeled", "copies"),
        ("copied", "weak", "copies"),
        ("waits", "main", "copies"),
        ("kept for", "labeled", "main"),
        ("kept for", "weak", "main"),
    ]
    for name in batch:  # what hooks read of a batch, bad images' notes for instance, is as it was
        assert moved[name]["data_samples"] is batch[name]["data_samples"]
        assert moved[name]["inputs"].sizes == batch[name]["inputs"].sizes


def test_nothing_is_taken_before_it_is_asked_for() -> None:
    """So an error of the loader comes at its own step, and a resumed run misses no batch."""
    taken = []

    def batches() -> Iterator[Any]:
        for number in range(3):
            taken.append(number)
            yield [number]  # of a loader that collates otherwise
        raise OSError("the disk is gone")

    moved = beside_the_step(batches(), torch.device("cuda", 0), Cuda())
    for number in range(3):
        assert next(moved) == [number] and taken[-1] == number
    with pytest.raises(OSError, match="the disk is gone"):
        next(moved)


def test_elsewhere_batches_stay_as_they_are() -> None:
    batches = [{"weak": dict(inputs=object())}, ["anything"]]
    cuda = Cuda()
    assert list(beside_the_step(iter(batches), torch.device("cpu"), cuda)) == batches
    assert not cuda.done


def test_a_run_on_such_a_device_resumes_to_the_bit(
    toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where images are drawn in the process that trains, from generators that a checkpoint holds."""
    from ssod.engine import loops
    from ssod.engine.train import train

    devices = []

    def as_if_cuda(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
        devices.append(device)
        return beside_the_step(batches, torch.device("cuda", 0), Cuda())

    config = toy_config()
    train(config, work_dir=tmp_path / "cpu")
    monkeypatch.setattr(loops, "beside_the_step", as_if_cuda)
    train(config, work_dir=tmp_path / "parts", options={"train_cfg.max_iters": 3})
    train(config, work_dir=tmp_path / "parts", resume=True)
    assert devices == [torch.device("cpu")] * 2
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.pth", weights_only=False)["state_dict"]
        for name in ("cpu", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
