"""tools/train.py and tools/test.py as they are typed: files, exit codes, signals, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from reference.modules import load_tool

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = PROJECT / "configs" / "soft_teacher" / "shapes.py"
# Six short steps, eight validation images, loading in the main process.
SHORT = (
    "train_cfg.max_iters=6",
    "train_cfg.val_interval=3",
    "val_dataloader.dataset.indices=8",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "default_hooks.scalars.interval=2",
    "default_hooks.pictures.num_images=2",
    "default_hooks.telemetry.num_images=4",
)
LONG = (*SHORT, "train_cfg.max_iters=400", "train_cfg.val_interval=400")


def command(tool: str, *words: Any) -> list[str]:
    return [sys.executable, str(PROJECT / "tools" / tool), *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(tool: str, *words: Any) -> subprocess.CompletedProcess[str]:
    """A whole command, from another folder."""
    return subprocess.run(
        command(tool, *words), capture_output=True, text=True, env=environment(), timeout=300
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def result_of(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((work_dir / "result.json").read_text())
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a short run, begun, run and ended by the command."""
    out = tmp_path_factory.mktemp("finished") / "run"
    done = run("train.py", CONFIG, "--work-dir", out, "--seed", 5, "--cfg-options", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (out.parent / "printed.txt").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def train_tool() -> ModuleType:
    return load_tool("train")


@pytest.fixture
def fails(train_tool: ModuleType, tmp_path: Path, capsys: Any) -> Callable[..., str]:
    """Function: runs the command's main, which must answer 2 and one line; returns the line."""

    def expect(*words: Any, work_dir: Path | None = None) -> str:
        code = train_tool.main([*map(str, words), "--work-dir", str(work_dir or tmp_path / "run")])
        _, complained = capsys.readouterr()
        assert code == 2, complained
        assert complained.startswith("error: ") and complained.count("\n") == 1
        return str(complained)

    return expect


def test_result_json(finished: Path) -> None:
    result = result_of(finished)
    assert result["schema"] == 1 and result["status"] == "done"
    assert result["method"] == "SoftTeacher" and result["config"] == str(CONFIG)
    assert result["seed"] == 5 and result["world_size"] == 1 and result["iterations"] == 6
    labeled, unlabeled = result["batch"]["labeled"], result["batch"]["unlabeled"]
    assert result["images_seen"] == {"labeled": 6 * labeled, "unlabeled": 6 * unlabeled}
    split = result["split"]
    assert (split["num_labeled"], split["num_unlabeled"]) == (50, 950)
    assert len(split["ids_sha256"]) == 64
    assert result["test"]["evaluator"].startswith("CocoMetric")
    assert result["test"]["score_thr"] > 0
    assert set(result["metrics"]) == {"teacher", "student"}
    assert 0 <= result["metrics"]["teacher"]["bbox_mAP"] <= 1
    assert {"torch", "torchvision", "mmdet", "mmengine", "mmcv", "ssod", "python"} == set(result["versions"])
    assert result["seconds"] > 0 and "boxes_per_image" in result["pseudo_labels"]


def test_the_other_files(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(each["kind"], each["iteration"]) for each in records] == [
        ("train", 2), ("pseudo_labels", 3), ("val", 3),
        ("train", 4), ("train", 6), ("pseudo_labels", 6), ("val", 6),
    ]  # fmt: skip
    assert records[0]["sup_loss_rpn_cls"] > 0 and records[0]["grad_norm"] > 0
    assert records[1]["images"] == records[1]["images_with_truth"] == 4
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    [events] = {name for name in names if name.startswith("tensorboard/")}
    assert events.startswith("tensorboard/events.out.tfevents.")
    assert names - {events} == {
        *("result.json", "metrics.jsonl", "config.py", "curves.png", "train.log", ".lock"),
        *("pseudo_labels/iter_0003.jpg", "pseudo_labels/iter_0006.jpg"),
        *(f"pseudo_labels/{name}" for name in ("telemetry.json", "calibration.png", "spread.png")),
        *(f"checkpoints/{name}.pth" for name in ("last", "best_teacher", "best_student")),
        "checkpoints/iter_00000006.pth",
    }


def test_the_console_is_quiet(finished: Path) -> None:
    lines = (finished.parent / "printed.txt").read_text().splitlines()
    assert len(lines) < 25
    noise = ("mmengine", "Warning", "pycocotools", "IoU", "Loads", "index", "OneDL")
    assert not [line for line in lines if any(word in line for word in noise)]
    assert any("eta" in line and "loss" in line for line in lines)
    assert any("AP teacher" in line for line in lines)


def test_test_tool(finished: Path, tmp_path: Path) -> None:
    out, last = tmp_path / "ap.json", finished / "checkpoints" / "last.pth"
    done = run("test.py", finished / "config.py", last, "--which", "teacher", "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert set(report["metrics"]) == {"teacher"}
    # The last validation saw the same weights.
    assert report["metrics"]["teacher"] == result_of(finished)["metrics"]["teacher"]
    assert "teacher" in done.stdout and "student" not in done.stdout


def test_test_tool_refuses_another_models_checkpoint(finished: Path, capsys: Any) -> None:
    words = [str(finished / "config.py"), str(finished / "checkpoints" / "last.pth")]
    tool = load_tool("test")
    assert tool.main([*words, "--cfg-options", "model.teacher=None", "model.method=None"]) == 2
    said = capsys.readouterr().err
    assert "belongs to another model" in said and "unexpected (first: teacher." in said
    assert said.count("\n") == 1


def test_a_finished_run_is_refused_and_unchanged(finished: Path, fails: Callable[..., str]) -> None:
    before = files(finished)
    said = fails(CONFIG, "--cfg-options", *SHORT, work_dir=finished)
    assert "holds a finished run" in said and "--work-dir" in said
    assert files(finished) == before


def test_sigint_then_resume(tmp_path: Path, fails: Callable[..., str]) -> None:
    out = tmp_path / "run"
    words = command("train.py", CONFIG, "--work-dir", out, "--cfg-options", *LONG)
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        assert time.time() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert said.endswith("\nrun the same command with --resume to go on\n")
    stopped = result_of(out)
    assert stopped["status"] == "stopped" and 2 <= stopped["iterations"] < 400
    assert (out / "checkpoints" / "last.pth").exists()

    assert "--resume" in fails(CONFIG, "--cfg-options", *LONG, work_dir=out)

    end = stopped["iterations"] + 2
    short = (*LONG, f"train_cfg.max_iters={end}")
    done = run("train.py", CONFIG, "--work-dir", out, "--resume", "--cfg-options", *short)
    assert done.returncode == 0, done.stderr
    result = result_of(out)
    assert (result["status"], result["iterations"]) == ("done", end)
    assert result["seconds"] > stopped["seconds"]


def test_a_missing_config(fails: Callable[..., str]) -> None:
    said = fails(CONFIG.parent / "shape.py")
    assert "does not exist" in said and "did you mean" in said and "shapes.py" in said


def test_a_syntax_error(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("model = dict(\n")
    assert "syntax error" in fails(path)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("train_cfg.max_iter=6", "did you mean max_iters"),
        ("model.metod.floor=0.3", "model has no 'metod'; did you mean method"),
        ("model.method.flor=0.3", "SoftTeacher has no option 'flor'; did you mean floor"),
        ("model.method.type=SoftTeachr", "'SoftTeachr'; did you mean SoftTeacher"),
        ("train_dataloader.dataset.datasets.0.ann_file=gone.json", "gone.json"),
        ("val_evaluator.ann_file=gone.json", "gone.json does not exist"),
        ("train_dataloader.sampler.counts=(4,0)", "at least 1"),
        ("train_dataloader.batch_size=3", "make them equal"),
        ("train_cfg.max_epochs=3", "epochs"),
        ("model.detector.roi_head.bbox_head.num_classes=5", "num_classes=5"),
    ],
)
def test_bad_options(fails: Callable[..., str], option: str, said: str) -> None:
    short = [each for each in SHORT if each.split("=")[0] != option.split("=")[0]]
    more = ["train_dataloader.batch_size=4"] if "counts" in option else []
    assert said in fails(CONFIG, "--cfg-options", *short, *more, option)


def test_an_unknown_name_in_the_config(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "typo.py"
    path.write_text(f"_base_ = [{str(CONFIG)!r}]\noptim_wraper = dict()\n")
    assert "'optim_wraper'; did you mean optim_wrapper?" in fails(path)


def test_an_internal_error_shows_its_traceback(train_tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "config.py"
    path.write_text(f"_base_ = [{str(CONFIG)!r}]\nmodel = dict(data_preprocessor=dict(mean='three'))\n")
    code = train_tool.main([str(path), "--work-dir", str(tmp_path / "run"), "--cfg-options", *SHORT])
    assert code == 1
    assert "Traceback" in capsys.readouterr().err
    assert result_of(tmp_path / "run")["status"] == "failed"


@pytest.mark.slow
def test_two_processes_find_their_ranks(tmp_path: Path) -> None:
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*torchrun, *command("train.py", CONFIG, "--work-dir", out)[1:]]
    options = ["--cfg-options", *SHORT, "train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    done = subprocess.run([*words, *options], capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    result = result_of(out)
    assert result["world_size"] == 2 and result["status"] == "done"
    assert result["images_seen"]["labeled"] == 4 * result["batch"]["labeled"]
    assert done.stdout.count("done after 2 iterations") == 1
