"""The hook that counts bad images: named once, over all processes, through a resume, up to the bound."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from ssod.data.bad_images import Replaced, too_narrow
from ssod.data.decode import BadImage
from ssod.engine.faults import bad_images
from ssod.engine.faults.bad_images import BadImages
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.train import train
from ssod.errors import UserError


class Runner(SimpleNamespace):
    """What the hook asks of a runner: two datasets of 500 images, a message hub, a log, the other hooks."""

    def __init__(self, state: str = "{}", left_out: tuple[BadImage, ...] = ()) -> None:
        class Images(list[int]):
            pass

        labeled, unlabeled = Images(range(500)), Images(range(500 - len(left_out)))
        unlabeled.left_out = left_out  # type: ignore[attr-defined]
        dataset = SimpleNamespace(datasets=[labeled, unlabeled])
        self.logged: list[str] = []
        self.said: list[str] = []
        super().__init__(
            train_dataloader=SimpleNamespace(dataset=dataset),
            message_hub=SimpleNamespace(get_info=lambda name, default: state),
            logger=SimpleNamespace(warning=self.logged.append),
            call_hook=lambda name, text: self.said.append(text),
            train_loop=SimpleNamespace(stop_training=False),
            optim_wrapper=SimpleNamespace(),
            max_iters=100,
            iter=0,
        )


def batch(*notes: list[Replaced]) -> dict[str, Any]:
    """A collated batch with an item for each list of notes, and one without."""
    samples = [DetDataSample() for _ in range(len(notes) + 1)]
    for sample, note in zip(samples, notes, strict=False):
        sample.set_metainfo(dict(replaced=[tuple(each) for each in note]))
    return dict(labeled=dict(data_samples=[DetDataSample()]), weak=dict(data_samples=samples))


def begun(**options: Any) -> tuple[BadImages, Runner, dict[str, Any]]:
    hook, runner, record = BadImages(DataPolicy(), {}), Runner(**options), {}
    hook.record = record
    hook.before_train(runner)
    return hook, runner, record


def saved(hook: BadImages) -> str:
    checkpoint: dict[str, Any] = dict(message_hub=dict(runtime_info={}, resumed_keys={}))
    hook.before_save_checkpoint(None, checkpoint)
    assert checkpoint["message_hub"]["resumed_keys"]["bad_images"]
    return str(checkpoint["message_hub"]["runtime_info"]["bad_images"])


def test_files_are_named_once_and_draws_are_counted() -> None:
    hook, runner, record = begun(left_out=(BadImage("x.jpg", "not an image"),))
    assert record["bad_images"]["count"] == 1 and record["bad_images"]["replaced"] == 0
    one, two = Replaced(1, "1.jpg", "empty"), Replaced(0, "2.jpg", "truncated")
    for _ in range(3):
        hook.before_train_iter(runner, 0, batch([one], [two, one]))
    hook.before_train_iter(runner, 0, batch())
    assert record["bad_images"] == {
        "count": 3,
        "replaced": 6,
        "files": [
            {"source": "unlabeled", "path": "x.jpg", "reason": "not an image"},
            {"source": "unlabeled", "path": "1.jpg", "reason": "empty"},
            {"source": "labeled", "path": "2.jpg", "reason": "truncated"},
        ],
    }
    assert len(runner.logged) == len(runner.said) == 3


def test_the_console_names_a_few_the_log_all() -> None:
    hook, runner, _ = begun()
    for number in range(4):
        hook.before_train_iter(runner, 0, batch([Replaced(number % 2, f"{number}.jpg", "empty")]))
    assert len(runner.logged) == 4 and len(runner.said) == 4 and "train.log" in runner.said[-1]


@pytest.mark.parametrize("source", [0, 1])
def test_the_bound_is_of_each_dataset(source: int) -> None:
    hook, runner, _ = begun()
    runner.iter = 7
    other = [Replaced(1 - source, f"other {number}.jpg", "empty") for number in range(5)]
    hook.before_train_iter(runner, 0, batch(other))  # 1 % of 500 are 5
    for number in range(5):
        hook.before_train_iter(runner, 0, batch([Replaced(source, f"{number}.jpg", "empty")]))
    hook.after_train_iter(runner, 0)
    hook.refuse_too_many()
    assert not runner.train_loop.stop_training
    hook.before_train_iter(runner, 0, batch([Replaced(source, "5.jpg", "empty")]))
    hook.after_train_iter(runner, 0)
    assert runner.train_loop.stop_training  # the checkpoint is written as at any stop
    name = ("labeled", "unlabeled")[source]
    with pytest.raises(UserError, match=f"6 of 500 {name} images can't be read, and 5 may be") as caught:
        hook.refuse_too_many()
    assert all(f"{number}.jpg (empty)" in str(caught.value) for number in range(6))
    assert "\n" not in str(caught.value)


def test_a_resumed_run_goes_on_counting_without_what_was_mended(tmp_path: Path) -> None:
    hook, runner, _ = begun()
    paths = [str(tmp_path / name) for name in ("1.jpg", "2.jpg")]
    for path in paths:
        Path(path).write_bytes(b"")
        hook.before_train_iter(runner, 0, batch([Replaced(1, path, "empty (0 bytes)")]))
    state = saved(hook)
    assert json.loads(state)["replaced"] == 2
    cv2.imwrite(paths[0], np.zeros((8, 8, 3), np.uint8))
    again, _, record = begun(state=state)
    assert record["bad_images"]["count"] == 1 and record["bad_images"]["replaced"] == 2
    assert [each["path"] for each in record["bad_images"]["files"]] == paths[1:]
    assert json.loads(saved(again))["files"] == [[1, paths[1], "empty (0 bytes)"]]


def test_an_image_that_is_too_narrow_stays_counted(tmp_path: Path) -> None:
    """It can be read, and yet be used no more than before; a wider one in its place can."""
    hook, runner, _ = begun()
    paths = [str(tmp_path / name) for name in ("1.png", "2.png")]
    for path in paths:
        cv2.imwrite(path, np.zeros((1, 3000, 3), np.uint8))
        with pytest.raises(cv2.error) as caught:
            cv2.resize(cv2.imread(path), (320, 0))
        reason = too_narrow(caught.value, path).reason
        hook.before_train_iter(runner, 0, batch([Replaced(1, path, reason)]))
    cv2.imwrite(paths[1], np.zeros((9, 3000, 3), np.uint8))
    _, _, record = begun(state=saved(hook))
    assert [each["path"] for each in record["bad_images"]["files"]] == paths[:1]


def test_processes_tell_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hooks as two processes: what each found, both count, and both stop at the same place."""
    monkeypatch.setattr(bad_images, "get_world_size", lambda: 2)
    hooks = [begun() for _ in range(2)]
    for number, (hook, runner, _) in enumerate(hooks):
        notes = [[Replaced(1, f"{number} {each}.jpg", "empty")] for each in range(3)]
        hook.before_train_iter(runner, 0, batch(*notes))
    waiting = [hook.waiting for hook, _, _ in hooks]
    monkeypatch.setattr(bad_images, "all_gather_object", lambda own: waiting)
    for hook, runner, record in hooks:
        assert record["bad_images"]["count"] == 0
        hook.after_scalars(runner, 0, {})
        hook.after_train_iter(runner, 0)
        assert runner.train_loop.stop_training
        with pytest.raises(UserError, match="6 of 500"):
            hook.refuse_too_many()
        assert record["bad_images"]["count"] == record["bad_images"]["replaced"] == 6


def on_rank(rank: int, meeting: Path, config: Path, out: Path) -> None:
    """One of two ranks trains; the third batch of the second one came with a note."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    batches = iter(range(8))
    note = [[Replaced(0, "bad.jpg", "empty")]]
    # In this process only: it was forked.
    bad_images.notes_of = lambda _: note if (next(batches), rank) == (2, 1) else []  # type: ignore[attr-defined]
    options = {"default_hooks.checkpoint.keep": 3, "data_policy.max_bad_fraction": 0.5}
    train(config, work_dir=out, launcher="pytorch", options=options)


def test_a_checkpoint_between_two_log_intervals_has_what_every_process_found(
    toy_config: Callable[..., Path], tmp_path: Path
) -> None:
    """Logged after 2 and 4 iterations, saved after 3."""
    words = (tmp_path / "meeting", toy_config(), tmp_path / "run")
    torch.multiprocessing.start_processes(on_rank, words, nprocs=2, start_method="fork")
    for name in ("iter_00000003", "last"):
        content = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.pth", weights_only=True)
        state = json.loads(content["message_hub"]["runtime_info"]["bad_images"])
        assert state == {"replaced": 1, "files": [[0, "bad.jpg", "empty"]]}
