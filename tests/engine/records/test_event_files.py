"""TensorBoard's files: what a run writes is what TensorBoard reads, also after a stop and a resume."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssod.engine.records.event_files import TensorBoard, with_folders


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """{name: [(step, value), ...]} as TensorBoard shows it."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def starts(event_file: Path) -> list[int]:
    """The steps from which on an event file says that older ones are void."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = EventFileLoader(str(event_file)).Load()
    return [each.step for each in events if each.HasField("session_log")]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    backend = TensorBoard(str(tmp_path / "tensorboard"))
    assert not (tmp_path / "tensorboard").exists(), "nothing is written before there is something to write"
    backend.add_scalars({"loss": 1.5, "sup/loss": 2}, step=2)
    backend.add_scalar("loss", 1.25, step=4)
    assert read(tmp_path / "tensorboard") == {"loss": [(2, 1.5), (4, 1.25)], "sup/loss": [(2, 2.0)]}


def test_a_resumed_run_voids_what_came_after_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1_000, 9_000))
    monkeypatch.setattr("ssod.engine.records.event_files.time.time", lambda: next(times))
    stopped = TensorBoard(str(tmp_path))
    for step in (2, 4, 6):
        stopped.add_scalars({"loss": float(step)}, step=step)
    resumed = TensorBoard(str(tmp_path))
    for step in (4, 6, 8):
        resumed.add_scalars({"loss": step + 0.5}, step=step)
    assert len(list(tmp_path.iterdir())) == 2
    assert read(tmp_path) == {"loss": [(2, 2.0), (4, 4.5), (6, 6.5), (8, 8.5)]}


def test_a_resumed_run_keeps_what_its_checkpoint_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first scalar may be of a validation that was made up for, at the checkpoint's own step."""
    times = iter(range(1_000, 9_000))
    monkeypatch.setattr("ssod.engine.records.event_files.time.time", lambda: next(times))
    stopped = TensorBoard(str(tmp_path))
    for step in (2, 4, 5):
        stopped.add_scalars({"loss": float(step)}, step=step)
    resumed = TensorBoard(str(tmp_path))
    resumed.void_from = 5
    resumed.add_scalars({"mAP": 0.5}, step=4)
    resumed.add_scalars({"loss": 6.5}, step=6)
    assert read(tmp_path) == {"loss": [(2, 2.0), (4, 4.0), (6, 6.5)], "mAP": [(4, 0.5)]}


def test_two_runs_of_one_process_in_one_second_have_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssod.engine.records.event_files.time.time", lambda: 1_000.5)
    for _ in range(3):
        TensorBoard(str(tmp_path)).add_scalars({"loss": 1.0}, step=2)
    assert [starts(path) for path in sorted(tmp_path.iterdir())] == [[2]] * 3


def test_a_validation_that_is_made_up_for_voids_no_training_point(
    toy_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal comes in the validation after the last step: the resumed run has that to write, no more."""
    from ssod.engine.train import train
    from ssod.registry import MODELS

    toy = MODELS.get("ToyModel")
    predict = toy.predict

    def interrupted(self: Any, *values: Any, **options: Any) -> Any:
        if self.step == 7 and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, *values, **options)

    config = toy_config()
    with monkeypatch.context() as patch:
        patch.setattr(toy, "predict", interrupted)
        assert train(config, work_dir=tmp_path / "run")["status"] == "stopped"
    folder = tmp_path / "run/tensorboard"
    [first] = folder.iterdir()
    before = read(folder)["sup_loss_fit"]
    assert before[-1][0] == 8 and 8 not in dict(read(folder)["teacher/bbox_mAP"])
    train(config, work_dir=tmp_path / "run", resume=True)
    [second] = set(folder.iterdir()) - {first}
    assert starts(second) == [9]
    assert read(folder)["sup_loss_fit"] == before and 8 in dict(read(folder)["teacher/bbox_mAP"])


def test_each_backend_has_a_folder_in_the_work_dir(tmp_path: Path) -> None:
    given = dict(
        type="Visualizer",
        vis_backends=[
            dict(type="TensorBoard"),
            dict(type="WandbVisBackend"),
            dict(type="Local", save_dir="x"),
        ],
    )
    placed = with_folders(given, tmp_path)["vis_backends"]
    folders = [str(tmp_path / "tensorboard"), str(tmp_path / "wandb"), "x"]
    assert [each["save_dir"] for each in placed] == folders
    assert "save_dir" not in given["vis_backends"][0], "the config stays as it was"
    assert with_folders(dict(type="Visualizer", vis_backends=None), tmp_path)["vis_backends"] is None


def test_a_run_writes_them_by_default_and_not_where_it_is_told_so(
    toy_config: Callable[..., Path], tmp_path: Path
) -> None:
    from ssod.engine.train import train

    train(toy_config(), work_dir=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    expected = [(each["iteration"], each["sup_loss_fit"]) for each in lines if each["kind"] == "train"]
    everything = read(tmp_path / "run/tensorboard")
    assert [step for step, _ in everything["teacher/bbox_mAP"]] == [4, 8]
    shown = everything["sup_loss_fit"]
    assert [step for step, _ in shown] == [step for step, _ in expected]
    assert [value for _, value in shown] == pytest.approx([value for _, value in expected], rel=1e-6)
    [event_file] = (tmp_path / "run/tensorboard").iterdir()
    assert starts(event_file) == [1], "nothing before the first step is void"
    train(toy_config("visualizer = None\n"), work_dir=tmp_path / "none")
    assert not (tmp_path / "none/tensorboard").exists()
