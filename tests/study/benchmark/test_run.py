"""A small benchmark, whole: what is in the report, and the counts that our step is held to."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from reference import benchmark as reference

from ssod.errors import UserError
from ssod.study.benchmark.run import benchmark, entries, prepared
from ssod.study.benchmark.settings import Settings

pytestmark = pytest.mark.usefixtures("no_collection")
TOOL = str(Path(__file__).parents[3] / "tools/benchmark.py")
SMALL = ["--device", "cpu", "--drawn", "--size", "128x96", "--rounds", "1", "--warm-steps", "1"]
ONE_THREAD = ["--threads", "1", "--clock", "processor"]


@pytest.fixture(scope="module")
def report(registered: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A Soft Teacher beside mmdet's, by the command; `files` are those it wrote."""
    folder = tmp_path_factory.mktemp("benchmark")
    config, json_file, trace = reference.write(folder / "tiny.py"), folder / "it.json", folder / "trace.json"
    words = [
        config,
        *SMALL,
        *ONE_THREAD,
        "--against",
        "mmdet",
        "--mmdet-kernels",
        "both",
        "--trace",
        str(trace),
    ]
    tool = runpy.run_path(TOOL)
    assert tool["main"]([*words, "--json", str(json_file), "--out", str(folder / "out")]) == 0
    found: dict[str, Any] = json.loads(json_file.read_text())
    return found | {"files": folder}


def test_the_ratios_have_the_names_that_others_read(report: dict[str, Any]) -> None:
    for name in ("method/supervised", "method/mmdet_method", "supervised/mmdet_supervised"):
        low, high = report["ratio_spreads"][name]
        assert low <= report["ratios"][name] <= high
    assert set(report["seconds"]) == {
        *("supervised", "method", "mmdet_supervised", "mmdet_method"),
        *("mmdet_supervised_ssod_kernels", "mmdet_method_ssod_kernels"),
    }
    assert all(len(each["rounds"]) == 1 for each in report["seconds"].values())
    speed = report["images_per_second"]["method"] * report["seconds"]["method"]["median"]
    assert speed == pytest.approx(5)


def test_phases_are_shares_of_one_step(report: dict[str, Any]) -> None:
    assert report["phases_of"] == "method"
    assert sum(each["share"] for each in report["phases"].values()) == pytest.approx(1)
    assert {"teacher trunk", "jitter", "soft weights", "backward", "EMA"} < set(report["phases"])


def test_both_soft_teachers_find_the_same_boxes(report: dict[str, Any]) -> None:
    ours, theirs = report["boxes"]["method"]["candidates"], report["boxes"]["mmdet_method"]["candidates"]
    assert ours == theirs
    assert 12 <= ours <= 18


def test_our_step_is_held_to_its_counts(report: dict[str, Any]) -> None:
    """Operators, and those that would make the host wait for a GPU; bounds to lower, never to raise."""
    operators, waits = report["operators"], report["waits"]["method"]
    assert operators["method"] <= 0.32 * operators["mmdet_method"]
    assert operators["supervised"] <= 0.45 * operators["mmdet_supervised"]
    assert report["waits"]["mmdet_method"]["total"] >= 300
    ours = {
        (each["file"], each["operator"]): each["count"]
        for each in waits["places"]
        if each["file"].startswith("ssod/")
    }
    # The kernel that waits by itself: for the RPN of labeled and strong view (1 + 4 images), of the weak one
    # and for the teacher's boxes (4 + 4).
    assert ours == {("ssod/models/suppression.py", "torchvision::nms"): 13}
    assert waits["total"] <= 15


def test_memory_and_loader(report: dict[str, Any]) -> None:
    sizes = report["memory"]["bytes"]
    assert set(sizes) == set(report["seconds"])
    assert all(2**20 < each < 2**28 for each in sizes.values())
    assert report["loader"]["workers"] == 0
    assert report["loader"]["images_per_second"] > 0


def test_what_is_written(report: dict[str, Any]) -> None:
    folder: Path = report["files"]
    assert sorted(each.name for each in (folder / "out").iterdir()) == [
        *("benchmark.json", "benchmark.md", "phases.png")
    ]
    assert (folder / "out/phases.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "out/benchmark.md").read_text()
    assert "| method/mmdet_method |" in page
    assert "box_max_spread is" in page  # what was changed is said
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert {"jitter", "student trunk"} <= {each["name"] for each in events}


def test_a_supervised_config_beside_mmdets(registered: None, tmp_path: Path) -> None:
    config = reference.write(tmp_path / "tiny.py", supervised=True)
    settings = Settings(
        config, "mmdet", device="cpu", rounds=1, size=(96, 64), batch=(1, 1), drawn=True, warm_steps=0
    )
    found = benchmark(settings)
    assert set(found["ratios"]) == {"supervised/mmdet_supervised"}
    assert (found["phases_of"], found["method"], found["batch"]) == (
        "supervised",
        None,
        {"labeled": 2, "unlabeled": 0},
    )
    with pytest.raises(UserError, match="nothing to compare: add --against mmdet"):
        benchmark(Settings(config, device="cpu", drawn=True, batch=(1, 1)))


def test_every_step_starts_from_the_same_weights(registered: None, tmp_path: Path) -> None:
    from ssod.study.benchmark import ours

    config = reference.write(tmp_path / "tiny.py", method=dict(type="FixMatch", min_score=0.5))
    settings = Settings(config, device="cpu", size=(96, 64), batch=(1, 1), drawn=True, warm_steps=1)
    with prepared(settings) as made:
        _, method = ours.contestants(made.config, made.model, made.batches)
        method.prepare(0)
        before = [each.clone() for each in made.model.parameters()]
        first = method.step()
        assert any(not torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))
        method.prepare(0)
        assert all(torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))
        second = method.step()
    assert first["num_boxes_cls"] > 0
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_some_steps_alone(registered: None, tmp_path: Path) -> None:
    config = reference.write(tmp_path / "tiny.py", method=dict(type="FixMatch", min_score=0.5))
    words = [config, *SMALL, "--batch", "1+1", "--steps-only", "--out", str(tmp_path / "out")]
    words += ["--also", "teacher_bf16", "amp"]
    main = runpy.run_path(TOOL)["main"]
    names = ("method", "method_amp", "method_teacher_bf16")
    assert main([*words, "--steps", *names]) == 0
    found = json.loads((tmp_path / "out/benchmark.json").read_text())
    assert set(found["seconds"]) == set(names) and found["ratios"] == found["phases"] == {}
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["benchmark.json", "benchmark.md"]
    assert main([*words, "--steps", "mmdet_method"]) == 2  # without --against there is none


def test_other_precisions_of_a_step(registered: None, tmp_path: Path) -> None:
    """Nearly the same losses, not to the digit; and the step in float32 stays what it is."""
    config = reference.write(tmp_path / "tiny.py")
    options = dict(size=(96, 64), batch=(1, 1), drawn=True, warm_steps=1, also=("teacher_bf16", "amp"))
    losses = {}
    with prepared(Settings(config, device="cpu", **options)) as made:
        found = {each.name: each for each in entries(made)}
        for name in ("method", "method_teacher_bf16", "method_amp", "method"):
            found[name].prepare(0)
            value = float(found[name].step()["loss"])
            assert losses.setdefault(name, value) == value
    exact = losses["method"]
    assert all(value != exact for name, value in losses.items() if name != "method")
    assert losses["method_teacher_bf16"] == pytest.approx(exact, rel=0.1)
    assert losses["method_amp"] == pytest.approx(exact, rel=0.1)
    with pytest.raises(UserError, match="leave out one"):
        Settings(config, device="cpu", amp=True, also=("amp",))


AMP: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({}, ("float32", "float32")),
    (dict(amp=True), ("bfloat16", "float32")),
    (dict(amp=True, amp_mmdet=True), ("bfloat16", "bfloat16")),
]


@pytest.mark.parametrize(("options", "expected"), AMP, ids=[str(row[0]) for row in AMP])
def test_amp_is_ours_alone_unless_asked(options: dict[str, Any], expected: tuple[str, str]) -> None:
    from ssod.study.benchmark import ours, peers, run

    config, settings = Config(reference.config()), Settings("", "mmdet", device="cpu", **options)
    config.optim_wrapper.precision = "float16"  # a recipe's own: what is asked for counts
    config.optim_wrapper.accumulative_counts = 4
    own = ours.set_precision(config, settings.amp, "cpu")
    assert config.optim_wrapper.precision == own
    assert (own, run.mmdet_precision(settings)) == expected
    assert "accumulative_counts" not in config.optim_wrapper  # every iteration is a whole step
    model = torch.nn.Linear(2, 2)
    assert getattr(peers.optimizer(config, model, expected[1]), "precision", "float32") == expected[1]


def test_images_that_are_not_there(
    registered: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = reference.write(tmp_path / "tiny.py")
    assert runpy.run_path(TOOL)["main"]([config, "--device", "cpu"]) == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: cannot read annotation file")
    assert all(line.startswith("... ") for line in progress)
