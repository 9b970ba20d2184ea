"""STAC from one command: three stages, skipped and refused as they should; the labeling tool killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from reference import small_run
from reference.modules import load_tool

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = PROJECT / "configs" / "stac" / "shapes.py"
# Four short steps a stage, twelve unlabeled and eight validation images, loading in the main process. A
# network this young is sure of nothing: every box counts, three an image.
SHORT = (
    "train_cfg.max_iters=4",
    "train_cfg.val_interval=4",
    "stages.teacher.train_cfg.max_iters=3",
    "train_dataloader.batch_size=4",
    "train_dataloader.sampler.counts=(2,2)",
    "train_dataloader.dataset.datasets.1.dataset.indices=12",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.dataset.indices=8",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "default_hooks.scalars.interval=2",
    "default_hooks.pictures.num_images=2",
    "default_hooks.telemetry.num_images=4",
    "model.method.min_score=0.0",
    "model.detector.test_cfg.rcnn.score_thr=0.0",
    "model.detector.test_cfg.rcnn.max_per_img=3",
)


def command(tool: str, *words: Any) -> list[str]:
    return [sys.executable, str(PROJECT / "tools" / tool), *map(str, words)]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=400)


def result_of(work_dir: Path) -> dict[str, Any]:
    return dict(json.loads((work_dir / "result.json").read_text()))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a whole run by the command."""
    out = tmp_path_factory.mktemp("stac") / "run"
    done = run(command("train.py", CONFIG, "--work-dir", out, "--cfg-options", *SHORT))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (out.parent / "printed.txt").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def train_tool() -> Any:
    return load_tool("train")


def test_result_json(finished: Path) -> None:
    result = result_of(finished)
    assert (result["schema"], result["status"], result["method"]) == (1, "done", "STAC")
    assert (result["config"], result["iterations"]) == (str(CONFIG), 4)
    assert result["batch"] == {"labeled": 2, "unlabeled": 2} and result["split"]["num_unlabeled"] == 12
    student = result_of(finished / "stage_3_student")
    assert result["metrics"] == student["metrics"] and set(result["metrics"]) == {"student"}
    stages = result["stages"]
    assert [each["name"] for each in stages] == ["stage_1_teacher", "stage_2_labels", "stage_3_student"]
    assert [each.get("iterations") for each in stages] == [3, None, 4]
    assert all(each["status"] == "done" and each["seconds"] > 0 for each in stages)
    assert result["seconds"] == pytest.approx(sum(each["seconds"] for each in stages), abs=0.01)
    assert result["pseudo_labels"]["boxes_per_image"] > 0


def test_files_of_each_stage(finished: Path) -> None:
    names = {name if "events.out" not in name else f"{Path(name).parent}/events" for name in files(finished)}
    training = {"result.json", "metrics.jsonl", "config.py", "curves.png", "train.log", ".lock", "stage.json"}
    training |= {"checkpoints/last.pth", "checkpoints/best_student.pth", "tensorboard/events"}
    assert names == {
        *("result.json", "config.py", ".lock"),
        *(f"stage_1_teacher/{name}" for name in training),
        *(f"stage_2_labels/{name}" for name in ("pseudo.json", "stage.json")),
        *(f"stage_3_student/{name}" for name in training),
        *(
            f"stage_3_student/pseudo_labels/{name}"
            for name in ("iter_0004.jpg", "calibration.png", "telemetry.json")
        ),
        *("stage_1_teacher/checkpoints/iter_00000003.pth", "stage_3_student/checkpoints/iter_00000004.pth"),
    }
    teacher = result_of(finished / "stage_1_teacher")
    assert teacher["method"] == "supervised" and teacher["batch"] == {"labeled": 2, "unlabeled": 0}
    records = [
        json.loads(line) for line in (finished / "stage_3_student/metrics.jsonl").read_text().splitlines()
    ]
    assert records[0]["unsup_loss_cls"] > 0 and records[0]["num_boxes_cls"] > 0
    content = json.loads((finished / "stage_2_labels" / "pseudo.json").read_text())
    assert len(content["images"]) == 12 and content["provenance"]["network"] == "student"


def test_the_console_is_quiet(finished: Path) -> None:
    text = (finished.parent / "printed.txt").read_text()
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("stage ")] == [
        "stage 1 of 3, train the teacher",
        "stage 2 of 3, label",
        "stage 3 of 3, train the student",
    ]
    noise = ("mmengine", "Warning", "pycocotools", "IoU", "Loads", "index", "OneDL", "Traceback")
    assert not [line for line in text.splitlines() if any(word in line for word in noise)]


def test_what_is_done_is_skipped_and_what_differs_refused(
    finished: Path, train_tool: Any, capsys: Any
) -> None:
    before = files(finished)
    words = [str(CONFIG), "--work-dir", str(finished)]
    assert train_tool.main([*words, "--resume", "--cfg-options", *SHORT]) == 0
    assert capsys.readouterr().out.count("done before, skipped") == 3
    assert train_tool.main([*words, "--cfg-options", *SHORT]) == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert (
        train_tool.main([*words, "--resume", "--cfg-options", *SHORT, "model.method.unsup_weight=1.0"]) == 2
    )
    said = capsys.readouterr().err
    assert "stage_3_student was trained with another config" in said and said.count("\n") == 1
    assert train_tool.main([*words, "--cfg-options", *SHORT, "stages.round=2"]) == 2
    assert "did you mean rounds?" in capsys.readouterr().err
    assert files(finished) == before


@pytest.mark.slow
def test_a_signal_in_the_student_then_resume(finished: Path, tmp_path: Path) -> None:
    """Exit 75 inside stage 3; --resume goes on there, and neither trains nor labels again."""
    out = tmp_path / "run"
    long = [*SHORT, "train_cfg.max_iters=30", "train_cfg.val_interval=30"]
    words = command("train.py", CONFIG, "--work-dir", out, "--cfg-options", *long)
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.time() + 300
    while not (out / "stage_3_student" / "metrics.jsonl").exists() and process.poll() is None:
        assert time.time() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 75
    assert result_of(out)["status"] == "stopped"
    kept = {name: data for name, data in files(out).items() if name.startswith(("stage_1", "stage_2"))}
    done = run([*words[:5], "--resume", *words[5:]])
    assert done.returncode == 0, done.stderr
    assert result_of(out)["status"] == "done" and result_of(out)["iterations"] == 30
    assert {name: files(out)[name] for name in kept} == kept


@pytest.mark.slow
def test_two_processes_share_the_labeling(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = run([*torchrun, *command("train.py", CONFIG, "--work-dir", out, "--cfg-options", *SHORT)[1:]])
    assert done.returncode == 0, done.stderr
    result = result_of(out)
    assert (result["status"], result["world_size"]) == ("done", 2)
    content = json.loads((out / "stage_2_labels" / "pseudo.json").read_text())
    assert len(content["images"]) == 12 and len(content["annotations"]) == 36
    assert done.stdout.count("stage 2 of 3, label") == 1


@pytest.mark.slow
def test_a_killed_labeling_resumes_to_the_same_bytes(tmp_path: Path, registered: None) -> None:
    """kill -9, no chance to tidy up."""
    small_run.write_images(tmp_path / "images")
    images = tmp_path / "list.txt"
    for copy in range(40):  # enough to be caught in the middle
        (tmp_path / str(copy)).symlink_to(tmp_path / "images")
    names = [f"{copy}/{number}.png" for copy in range(40) for number in range(len(small_run.SHAPES))]
    images.write_text("\n".join(names))
    config = small_run.write_config(tmp_path / "config.py")
    checkpoint = small_run.write_checkpoint(tmp_path / "model.pth", small_run.build())
    words = command("pseudo_label.py", config, checkpoint, images, "--min-score", "0.5", "--out")
    assert run([*words, str(tmp_path / "whole.json")]).returncode == 0
    out = tmp_path / "labels.json"
    partial = tmp_path / "labels.json.partial-0"
    process = subprocess.Popen([*words, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 200
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 3):
        assert time.time() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL and not out.exists()
    assert run([*words, str(out)]).returncode == 2
    done = run([*words, str(out), "--resume"])
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes() and not partial.exists()
