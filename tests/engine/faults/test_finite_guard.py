"""Steps that are not finite: counted through a resume, explained in a file, shared by all processes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.optim import OptimWrapper

from ssod.engine.faults.finite_guard import DivergedError, FiniteGuard, image_paths
from ssod.engine.optim import GuardedOptimWrapper
from ssod.engine.train import train
from ssod.errors import UserError

Config = Callable[..., Path]


def result_of(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((work_dir / "result.json").read_text())
    return content


def limit(number: int) -> dict[str, Any]:
    return {"default_hooks.finite_guard.max_bad_steps": number}


def test_the_count_survives_a_resume(toy_config: Config, tmp_path: Path) -> None:
    config = toy_config("model.update(bad_steps=(1, 2, 4))\n")
    assert train(config, work_dir=tmp_path / "run", options={"train_cfg.max_iters": 3})["bad_steps"] == 2
    result = train(config, work_dir=tmp_path / "run", resume=True)
    assert result["status"] == "done" and result["bad_steps"] == 3 == result_of(tmp_path / "run")["bad_steps"]


def test_a_row_of_bad_steps_goes_on_after_a_resume(toy_config: Config, tmp_path: Path) -> None:
    config = toy_config("model.update(bad_steps=(1, 2, 3))\n")
    train(config, work_dir=tmp_path / "run", options={"train_cfg.max_iters": 3})
    with pytest.raises(DivergedError, match="3 steps in a row"):
        train(config, work_dir=tmp_path / "run", resume=True, options=limit(3))


def test_what_is_known_is_in_a_file(toy_config: Config, tmp_path: Path) -> None:
    config, out = toy_config("model.update(bad_steps=(1, 3, 4))\n"), tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        train(config, work_dir=out, options=limit(2))
    assert str(out / "diverged.json") in str(caught.value) and "\n" not in str(caught.value)
    content = json.loads((out / "diverged.json").read_text())
    assert content["error"] == str(caught.value) and content["bad_steps"] == 3
    assert [step["iteration"] for step in content["steps"]] == [3, 4]
    last = content["steps"][-1]
    assert last["learning_rates"] == [0.1] and last["first_bad_parameter"] is None
    assert last["first_bad_gradient"] == "student.weight"
    assert last["first_bad_loss"] == {
        "name": "sup_loss_fit", "value": "nan", "process": 0, "iteration": 4,
    }  # fmt: skip
    assert last["batches"][0]["losses"]["num_boxes_cls"] == 2.5
    result = result_of(out)
    assert result["status"] == "failed" and result["bad_steps"] == 3


def test_an_accumulated_step_counts_once(toy_config: Config, tmp_path: Path, capfd: Any) -> None:
    more = "optim_wrapper.update(accumulative_counts=3)\nmodel.update(bad_steps=(1, 3))\n"
    result = train(toy_config(more), work_dir=tmp_path / "run", options=limit(3))
    assert result["bad_steps"] == 2  # those of iterations 2 and 5; the last, of 7, is taken
    said = capfd.readouterr().out
    assert "iteration 2, learning rate 0.1, first bad loss term: sup_loss_fit is nan" in said
    weights = torch.load(tmp_path / "run/checkpoints/last.pth", weights_only=False)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_another_optimizer_wrapper_is_refused(toy_config: Config, tmp_path: Path) -> None:
    runner = SimpleNamespace(optim_wrapper=OptimWrapper(torch.optim.SGD([torch.zeros(1)], lr=0.1)))
    with pytest.raises(UserError, match="GuardedOptimWrapper"):
        FiniteGuard().before_train(runner)


def test_paths_of_a_batch_come_once() -> None:
    def samples(*paths: str) -> dict[str, Any]:
        return dict(data_samples=[DetDataSample(metainfo=dict(img_path=path)) for path in paths])

    batch = dict(labeled=samples("a.jpg"), weak=samples("b.jpg", "c.jpg"), strong=samples("b.jpg", "c.jpg"))
    assert image_paths(batch) == ["a.jpg", "b.jpg", "c.jpg"]
    assert image_paths(samples("a.jpg")) == ["a.jpg"]
    assert image_paths(dict(data_samples=[1.5])) == image_paths(None) == []


# ---------------------------------------------------------------- looking seldom, and the loss scale


class Steps:
    """A runner whose loss is `value` times a weight; a guard looks on as on a GPU, every `interval` steps."""

    def __init__(self, interval: int, max_bad_steps: int = 5) -> None:
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.model = torch.nn.Module()
        self.model.register_parameter("weight", self.weight)
        self.optim_wrapper = GuardedOptimWrapper(torch.optim.SGD([self.weight], lr=0.0))
        self.optim_wrapper.device = "cuda"  # only decides who looks
        self.told: list[int] = []
        self.info: dict[str, Any] = {}
        self.message_hub = SimpleNamespace(get_info=self.info.get, update_info=self.info.__setitem__)
        self.logger = SimpleNamespace(warning=lambda text: None)
        self.iter, self.work_dir = 0, ""
        self.guard = FiniteGuard(max_bad_steps, interval)
        self.guard.before_train(self)

    def call_hook(self, name: str, **what: Any) -> None:
        self.told.append(self.iter)

    def run(self, *values: float) -> None:
        for value in values:
            loss = (self.weight * value).sum()
            self.guard.before_train_iter(self, self.iter)
            self.optim_wrapper.update_params(loss)
            self.guard.after_train_iter(self, self.iter, outputs={"loss": loss})
            self.iter += 1


def test_between_two_looks_the_device_counts() -> None:
    steps, nan = Steps(interval=4), float("nan")
    steps.run(1, nan, 1, 1, nan, nan, 1, nan, 1)
    assert steps.told == [4, 5]  # a look every 4 steps, and at each step while something is wrong
    steps.guard.after_train(steps)
    assert steps.info["bad_steps"] == 4


def test_an_overflow_through_the_loss_scale_never_ends_a_run() -> None:
    steps, scale = Steps(interval=1, max_bad_steps=3), [65536.0]
    steps.optim_wrapper.scaler = SimpleNamespace(
        unscale_=lambda _: steps.weight.grad.mul_(torch.inf), step=lambda _: None, update=lambda: None,
        get_scale=lambda: scale[0], scale=lambda loss: loss, _found_inf_per_device=lambda _: {},
    )  # fmt: skip
    steps.run(*[1.0] * 10)
    assert steps.told == [] and steps.guard.in_a_row == 0
    scale[0] = 1.0  # nothing left to make smaller
    steps.run(1.0)
    assert steps.guard.in_a_row == 1


# ---------------------------------------------------------------- two processes


def on_rank(rank: int, meeting: Path, config: Path, out: Path, bad: tuple[tuple[int, ...], ...]) -> None:
    """One of two ranks trains; its images are nan in the iterations that are its own."""
    from ssod.registry import MODELS

    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    toy = MODELS.get("ToyModel")
    forward, told = toy.forward, FiniteGuard.after_train_iter
    verdicts: list[Any] = []

    def spoilt(self: Any, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        hit = mode == "loss" and self.step in bad[rank]
        return forward(self, [each * torch.nan if hit else each for each in inputs], data_samples, mode)

    def noted(self: FiniteGuard, runner: Any, *values: Any, **options: Any) -> None:
        try:
            told(self, runner, *values, **options)
        finally:
            verdicts.append((runner.iter, self.in_a_row))

    toy.forward, FiniteGuard.after_train_iter = spoilt, noted  # in this process only: it was forked
    try:
        said = train(config, work_dir=out, launcher="pytorch", options=limit(3))["status"]
    except DivergedError as error:
        said = str(error)
    torch.save({"said": said, "verdicts": verdicts}, out.parent / f"{rank}.pth")


def two_ranks(config: Path, tmp_path: Path, *bad: tuple[int, ...]) -> list[dict[str, Any]]:
    """What two ranks noted: `{said, verdicts}` of each."""
    words = (tmp_path / "meeting", config, tmp_path / "run", bad)
    torch.multiprocessing.start_processes(on_rank, words, nprocs=2, start_method="fork")
    return [torch.load(tmp_path / f"{rank}.pth") for rank in range(2)]


def test_one_process_s_bad_images_are_everybody_s_bad_step(toy_config: Config, tmp_path: Path) -> None:
    first, second = two_ranks(toy_config(), tmp_path, (5,), (1, 2))
    assert first["said"] == second["said"] == "done"
    expected = [(0, 0), (1, 1), (2, 2), (3, 0), (4, 0), (5, 1), (6, 0), (7, 0)]
    assert first["verdicts"] == second["verdicts"] == expected
    weights = torch.load(tmp_path / "run/checkpoints/last.pth", weights_only=False)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert {name.split(".")[0] for name in weights} == {"teacher", "student"}
    assert result_of(tmp_path / "run")["bad_steps"] == 3


def test_two_processes_give_up_together(toy_config: Config, tmp_path: Path) -> None:
    """Each alone has no three bad steps in a row."""
    first, second = two_ranks(toy_config(), tmp_path, (3,), (2, 4))
    assert first["said"] == second["said"] and first["verdicts"] == second["verdicts"]
    assert "3 steps in a row" in first["said"] and "sup_loss_fit is nan (process 1)" in first["said"]
    steps = json.loads((tmp_path / "run/diverged.json").read_text())["steps"]
    found = [(step["iteration"], step["first_bad_loss"]["process"]) for step in steps]
    assert found == [(2, 1), (3, 0), (4, 1)]
    assert {batch["process"] for batch in steps[0]["batches"]} == {0, 1}
