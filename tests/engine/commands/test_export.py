"""tools/export.py: what is written, that nothing else is overwritten, one line for bad input."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from reference import small_run

from ssod.engine.commands import export
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")
TOOL = Path(__file__).parents[3] / "tools/export.py"


@pytest.fixture(scope="module")
def place(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `config.py`, `model.pth`, and `plain.*` without a teacher."""
    root = tmp_path_factory.mktemp("export")
    small_run.write_trained(root)
    return root


def main(*words: Any) -> int:
    code: int = runpy.run_path(str(TOOL))["main"]([str(word) for word in words])
    return code


@pytest.mark.parametrize("which", [None, "teacher", "student"])
def test_the_files_hold_the_network_and_nothing_of_ours(
    place: Path, tmp_path: Path, which: str | None, capsys: Any
) -> None:
    out = tmp_path / "deep/out"
    words = [place / "config.py", place / "model.pth", "--out", out, *(["--which", which] if which else [])]
    assert main(*words) == 0
    network = which or "teacher"
    assert capsys.readouterr().out == (
        f"wrote {out}/config.py and {out}/weights.pth: the {network} of {place}/model.pth\n"
    )
    assert sorted(path.name for path in out.iterdir()) == ["config.py", "weights.pth"]
    content = torch.load(out / "weights.pth", weights_only=True)
    state = torch.load(place / "model.pth", weights_only=True)["state_dict"]
    prefix = f"{network}."
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    assert content["state_dict"].keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in content["state_dict"].items())
    assert content["meta"]["dataset_meta"]["classes"] == small_run.CLASSES
    assert content["meta"]["iter"] == 1 and content["meta"]["ssod"]["network"] == network
    text = (out / "config.py").read_text()
    code = text[text.index('"""', 3) :]
    assert "ssod" not in code and "Semi" not in code and "custom_imports" not in code
    config = Config.fromfile(out / "config.py")
    assert config.default_scope == "mmdet" and config.model.type == "FasterRCNN"
    given = small_run.model_config()["data_preprocessor"]
    assert config.model.data_preprocessor == {**given, "type": "DetDataPreprocessor"}
    assert config.model.test_cfg == small_run.model_config()["detector"].test_cfg
    dataset = config.test_dataloader.dataset
    assert dataset.type == "CocoDataset" and tuple(dataset.metainfo.classes) == small_run.CLASSES
    assert [step["type"] for step in dataset.pipeline] == ["LoadImageFromFile", "Resize", "PackDetInputs"]


def test_without_a_teacher_the_student_is_exported(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(place / "plain.py", place / "plain.pth", "--out", tmp_path / "out") == 0
    assert "the student of" in capsys.readouterr().out


def test_options_are_heard_and_an_earlier_export_is_replaced(place: Path, tmp_path: Path) -> None:
    words = [place / "config.py", place / "model.pth", "--out", tmp_path / "out"]
    assert main(*words) == 0
    before = Config.fromfile(tmp_path / "out/config.py").model.test_cfg.rcnn.score_thr
    assert main(*words, "--cfg-options", "model.detector.test_cfg.rcnn.score_thr=0.4") == 0
    after = Config.fromfile(tmp_path / "out/config.py").model.test_cfg.rcnn.score_thr
    assert (before, after) == (0.05, 0.4)


def test_what_is_evaluated_goes_along(place: Path, tmp_path: Path) -> None:
    """For mmdet's tools/test.py: the images and annotations of the config's test, or else its validation."""
    config = Config.fromfile(place / "config.py")
    config.val_dataloader.dataset.update(data_root="d", ann_file="val.json", data_prefix=dict(img="i/"))
    config.val_evaluator = dict(type="CocoMetric", ann_file="d/val.json", metric="bbox")
    config.dump(tmp_path / "config.py")
    assert main(tmp_path / "config.py", place / "model.pth", "--out", tmp_path / "a") == 0
    made = Config.fromfile(tmp_path / "a/config.py")
    assert made.test_dataloader.dataset.ann_file == "val.json"
    assert made.test_evaluator.ann_file == "d/val.json" and made.test_cfg.type == "TestLoop"
    test = {**config.val_dataloader, "dataset": {**config.val_dataloader.dataset, "ann_file": "test.json"}}
    config.test_dataloader, config.test_evaluator = test, {**config.val_evaluator, "ann_file": "d/test.json"}
    config.dump(tmp_path / "config.py")
    assert main(tmp_path / "config.py", place / "model.pth", "--out", tmp_path / "b") == 0
    made = Config.fromfile(tmp_path / "b/config.py")
    assert (made.test_dataloader.dataset.ann_file, made.test_evaluator.ann_file) == (
        "test.json",
        "d/test.json",
    )


def test_pretrained_weights_need_not_be_there(place: Path, tmp_path: Path) -> None:
    """A checkpoint takes their place: one moves config and checkpoint to another machine, and no more."""
    from ssod.registry import MODELS

    config = Config.fromfile(place / "config.py")
    backbone = dict(type="TorchvisionBackbone", model="mobilenet_v2", out_indices=(6, 13, 17))
    config.model.detector.backbone = {**backbone, "_delete_": True}
    config.model.detector.backbone = backbone
    config.model.detector.neck.in_channels = [32, 96, 320]
    small_run.write_checkpoint(tmp_path / "model.pth", MODELS.build(config.model))
    config.model.detector.backbone.weights = "gone/mobilenet.pth"
    config.dump(tmp_path / "config.py")
    assert main(tmp_path / "config.py", tmp_path / "model.pth", "--out", tmp_path / "out") == 0
    assert "gone" not in (tmp_path / "out/config.py").read_text()


# ---------------------------------------------------------------- bad input


def holding(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    return folder


def changed(place: Path, root: Path, change: Callable[[Any], Any]) -> Path:
    config = Config.fromfile(place / "config.py")
    change(config)
    config.dump(root / "changed.py")
    return root / "changed.py"


def few(config: Any) -> None:
    config.val_dataloader.dataset.metainfo = dict(classes=("a", "b"))


def own_step(config: Any) -> None:
    config.val_dataloader.dataset.pipeline.insert(1, dict(type="BatchResize"))


def no_classes(config: Any) -> None:
    config.val_dataloader.dataset.metainfo = None


def twins(config: Any) -> None:
    config.val_dataloader.dataset.metainfo = dict(classes=(*"abcdefg", "a"))


Case = Callable[[Path, Path], dict[str, Any]]
BAD: list[tuple[str, Case, str]] = [
    ("another model", lambda place, root: {"checkpoint": place / "plain.pth"}, "belongs to another model"),
    ("no checkpoint", lambda place, root: {"checkpoint": root / "gone.pth"}, "gone.pth does not exist"),
    (
        "no teacher",
        lambda place, root: {
            "config": place / "plain.py",
            "checkpoint": place / "plain.pth",
            "more": ["--which", "teacher"],
        },
        "no network 'teacher'",
    ),
    ("classes", lambda place, root: {"config": changed(place, root, few)}, "has num_classes=8, but"),
    ("no classes", lambda place, root: {"config": changed(place, root, no_classes)}, "names no classes"),
    ("step", lambda place, root: {"config": changed(place, root, own_step)}, "transform BatchResize is not"),
    ("other files", lambda place, root: {"out": holding(root / "o", "a.txt")}, "other files (a.txt)"),
    ("a config", lambda place, root: {"out": holding(root / "o", "config.py")}, "other files (config.py)"),
    (
        "weights",
        lambda place, root: {"out": holding(root / "o", "weights.pth")},
        "other files (weights.pth): name a new",
    ),
    (
        "both",
        lambda place, root: {"out": holding(root / "o", "config.py", "weights.pth")},
        "other files (config.py, weights.pth): name a new",
    ),
    ("twins", lambda place, root: {"config": changed(place, root, twins)}, "names class 'a' twice"),
    (
        "below a file",
        lambda place, root: {"out": holding(root / "o", "a.txt") / "a.txt/sub"},
        "can't be a folder (Not a directory)",
    ),
    ("a file", lambda place, root: {"out": holding(root / "o", "a.txt") / "a.txt"}, "is a file"),
    ("onnx", lambda place, root: {"more": ["--onnx"]}, "mmdeploy"),
]


@pytest.mark.parametrize(("case", "change", "said"), BAD, ids=[row[0] for row in BAD])
def test_bad_input_is_one_line(
    place: Path, tmp_path: Path, capsys: Any, case: str, change: Case, said: str
) -> None:
    given: dict[str, Any] = {"config": place / "config.py", "checkpoint": place / "model.pth"}
    given |= {"out": tmp_path / "out", "more": [], **change(place, tmp_path)}
    assert main(given["config"], given["checkpoint"], "--out", given["out"], *given["more"]) == 2
    complained = capsys.readouterr().err
    assert said in complained
    assert complained.startswith("error: ") and complained.count("\n") == 1
    assert all(path.read_text() == "mine" for path in tmp_path.rglob("weights.pth"))


def test_an_export_that_computes_something_else_is_not_written(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = export.plain_weights

    def spoilt(plain: Any, network: Any) -> Any:
        found = original(plain, network)
        found["backbone.layer1.0.conv1.weight"] *= 1.01
        return found

    monkeypatch.setattr(export, "plain_weights", spoilt)
    assert main(place / "config.py", place / "model.pth", "--out", tmp_path / "out") == 1
    assert "does not compute what the trained one does" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


# ---------------------------------------------------------------- names


ODD = ("a'b", 'c"d', "e\\u", "new\nline", "日本", "{{ fileBasename }}", "{{{{ _base_.x }}", "{{$HOME:x}}")


def test_class_names_are_read_as_they_were(place: Path, tmp_path: Path) -> None:
    config = Config.fromfile(place / "config.py")
    config.val_dataloader.dataset.metainfo = dict(classes=ODD)
    with pytest.MonkeyPatch.context() as patch:  # a file that computes the names would give them so
        patch.setattr(export, "read_config", lambda path: config)
        made = export.export(place / "config.py", place / "model.pth", tmp_path / "out")
    assert tuple(Config.fromfile(made.config).test_dataloader.dataset.metainfo.classes) == ODD
    assert torch.load(made.weights, weights_only=True)["meta"]["dataset_meta"]["classes"] == ODD


@pytest.mark.parametrize(
    "name", ["run\\used.pth", 'a"""b.pth', "日本.pth", "a\nb.pth", "{{ fileBasename }}.pth"]
)
def test_a_checkpoint_may_have_any_name(place: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(place / "model.pth", tmp_path / name)
    words = [place / "config.py", tmp_path / name, "--out", tmp_path / "out"]
    assert main(*words) == main(*words) == 0, "an export is known for one"
    space: dict[str, Any] = {}
    exec((tmp_path / "out/config.py").read_text(), space)  # its text says the name
    assert space["__doc__"].startswith(f"The teacher of {name} as a plain")
    assert Config.fromfile(tmp_path / "out/config.py").model.type == "FasterRCNN"


def test_a_config_that_is_read_otherwise_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is read with the classes \['b'\]: use plain names"):
        export._check_reading("test_dataloader = dict(dataset=dict(metainfo=dict(classes=('b',))))", ["a"])
    with pytest.raises(UserError, match="exported config can't be read") as caught:
        export._check_reading("x = '\\u'", ["a"])
    assert "\n" not in str(caught.value)


def test_a_killed_export_does_not_stand_in_the_way(place: Path, tmp_path: Path) -> None:
    out = holding(tmp_path / "out", ".config.py.partial", ".weights.pth.partial")
    assert main(place / "config.py", place / "model.pth", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["config.py", "weights.pth"]
