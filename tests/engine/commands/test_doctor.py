"""The doctor whole: the dry run, the tool's exit code and JSON, the shipped configs, the documented codes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from reference.modules import load_tool

from ...reference.doctor_world import World

PROJECT = Path(__file__).resolve().parents[3]
SHIPPED = sorted(
    path.relative_to(PROJECT / "configs").as_posix()
    for path in (PROJECT / "configs").glob("*/*.py")
    if path.name.startswith(("shapes", "bccd")) and path.parent.name not in ("_base_", "sweeps")
)

pytestmark = pytest.mark.usefixtures("registered", "no_collection")


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """tools/doctor.py, to be called in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    module: ModuleType = load_tool("doctor")
    return module


def examined(world: World, **options: Any) -> list[Any]:
    from ssod.engine.commands.doctor import examine

    return examine(world.save(), work_dir=world.folder / "out", world_size=1, **options)


def by_code(findings: list[Any]) -> dict[str, Any]:
    return {one.code: one for one in findings}


def severe(findings: list[Any]) -> list[Any]:
    return [one for one in findings if one.severity in ("fails", "lies")]


# ---------------------------------------------------------------- the dry run


def test_two_steps_of_the_method_itself(tmp_path: Path) -> None:
    """Burn-in or not, the unsupervised losses are there; nothing is left behind."""
    world = World(tmp_path)
    before = np.random.get_state()[1].tolist()
    findings = examined(world)
    assert np.random.get_state()[1].tolist() == before
    assert severe(findings) == []
    shown = by_code(findings)["dry-run"]
    assert shown.severity == "fact" and shown.where == "training"
    scalars = shown.values["scalars"]
    assert scalars["unsup_weight"] == 1.0 and scalars["unsup_loss_cls"] >= 0 and scalars["loss"] > 0
    assert shown.values["boxes_per_image"] >= 0 and shown.values["seconds_per_step"] > 0
    assert shown.values["checkpoint_bytes"] > 1e6
    assert not (tmp_path / "out").exists()


def test_a_published_burn_in_does_not_hide_the_method(tmp_path: Path) -> None:
    """Unbiased Teacher's default is a burn-in of 2,000 steps, which no config names."""
    world = World(tmp_path)
    world.config["model"]["method"] = dict(type="UnbiasedTeacher")
    world.config["train_cfg"]["max_iters"] = 10_000
    scalars = by_code(examined(world))["dry-run"].values["scalars"]
    assert scalars["unsup_weight"] == 4.0


def test_an_error_in_the_dry_run_is_one_line(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.config["model"]["method"]["min_scroe"] = 0.5
    [finding] = severe(examined(world))
    assert (finding.severity, finding.code, finding.where) == ("fails", "dry-run-failed", "training")
    assert "min_scroe" in finding.what and "\n" not in finding.what


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.config["optim_wrapper"]["optimizer"]["lr"] = 1e30  # the second step sees what the first one did
    [finding] = severe(examined(world))
    assert (finding.severity, finding.code) == ("fails", "loss-not-finite")
    assert "loss" in finding.what


def test_without_a_dry_run_the_model_is_built(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.config["model"]["teacher"] = None
    [finding] = severe(examined(world, try_training=False))
    assert (finding.severity, finding.code) == ("fails", "model-refused")
    assert "EMATeacher" in finding.what


def test_half_a_config_is_examined_as_far_as_it_goes(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in ("model", "optim_wrapper", "train_cfg"):
        del world.config[name]
    world.dataset("val").update(indices=2)
    codes = [one.code for one in severe(examined(world))]
    assert codes == ["config-incomplete", "schedule-not-in-iterations", "evaluator-counts-more"]


def test_what_would_fail_spares_the_dry_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.config["data_policy"] = dict(on_bad_image="raise")
    world.image("unlabeled").unlink()
    findings = by_code(examined(world))
    assert "dry-run-left-out" in findings and "dry-run" not in findings
    assert findings["missing-image"].severity == "fails"


def test_stages_are_tried_one_by_one(tmp_path: Path) -> None:
    from ssod.data.pipelines import pseudo_labeled

    world = World(tmp_path)
    sources = world.config["train_dataloader"]["dataset"]["datasets"]
    sources[1] = pseudo_labeled(sources[1])
    world.config["model"].update(method=dict(type="STAC"), teacher=None)
    world.config["stages"] = dict(teacher=dict(), rounds=1)
    findings = examined(world)
    assert severe(findings) == []
    runs = {one.where: one.values["scalars"] for one in findings if one.code == "dry-run"}
    assert list(runs) == ["stage 1, teacher", "stage 3, student"]
    assert "unsup_weight" not in runs["stage 1, teacher"]
    assert runs["stage 3, student"]["num_boxes_cls"] == 1.0  # the made-up boxes


# ---------------------------------------------------------------- the tool


def test_a_healthy_config_is_0_and_the_most_harmful_comes_first(
    tool: ModuleType, tmp_path: Path, capsys: Any
) -> None:
    world = World(tmp_path / "healthy")
    assert tool.main([str(world.save()), "--no-dry-run", "--world-size", "1"]) == 0
    text, complained = capsys.readouterr()
    assert complained == "" and "nothing to mend" in text and "bolt" in text
    world = World(tmp_path / "ill")
    world.config["data_policy"] = dict(on_bad_image="raise")
    world.image("unlabeled").unlink()  # fails
    world.dataset("val").update(indices=2)  # lies
    world.config["train_cfg"]["val_interval"] = 5_000  # a note
    world.config["optim_wrapper"].pop("clip_grad")  # hurts
    assert tool.main([str(world.save()), "--world-size", "1"]) == 2
    text = capsys.readouterr().out
    places = [text.index(word) for word in ("FAILS", "LIES", "HURTS", "NOTE")]
    assert places == sorted(places)
    for code in ("missing-image", "evaluator-counts-more", "no-gradient-clipping", "one-validation"):
        assert code in text


def test_options_change_the_config_and_the_work_dir(tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    world = World(tmp_path / "world")
    words = [str(world.save()), "--no-dry-run", "--json", "--world-size", "1"]
    assert tool.main([*words, "--cfg-options", "model.teacher.decay=1.0"]) == 2
    assert "teacher-never-moves" in [one["code"] for one in json.loads(capsys.readouterr().out)]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "result.json").write_text('{"status": "done"}')
    assert tool.main([*words, "--work-dir", str(tmp_path / "taken")]) == 2
    found = {one["code"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["work-dir-taken"]["where"] == str(tmp_path / "taken")
    assert tool.main([*words[:-1], "9"]) == 0  # 9 x 2 of 4 labeled images
    assert "more-slots-than-images" in [one["code"] for one in json.loads(capsys.readouterr().out)]


def test_what_stops_reading_is_one_line(tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    path = World(tmp_path / "world").save()
    for words in (["gone.py"], [str(path), "--cfg-options", "modle.x=1"]):
        assert tool.main([*words, "--no-dry-run"]) == 2
        text, complained = capsys.readouterr()
        assert text == "" and complained.startswith("error: ") and complained.count("\n") == 1


@pytest.mark.slow
def test_json_stands_alone_on_stdout(tmp_path: Path) -> None:
    """The whole command: what mmdet prints at import, and a training, must not get in between."""
    world = World(tmp_path)
    world.config["model"]["teacher"]["decay"] = 1.0
    words = [sys.executable, str(PROJECT / "tools" / "doctor.py"), str(world.save()), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2 and done.stderr == ""
    findings = json.loads(done.stdout)
    assert set(findings[0]) == {"severity", "code", "where", "what", "mend", "values"}
    assert (findings[0]["severity"], findings[0]["code"]) == ("lies", "teacher-never-moves")
    assert "dry-run" in [one["code"] for one in findings]


# ---------------------------------------------------------------- no false alarm


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_neither_fail_nor_lie(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path, weights_root: Path
) -> None:
    from ssod.engine.commands.doctor import check_config, set_up

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))
    setup = set_up(PROJECT / "configs" / name, {}, None, 1)
    found = [one.code for one in check_config(setup)]
    assert found == []


@pytest.mark.parametrize("name", ["soft_teacher/shapes.py", "soft_teacher/bccd_10.py"])
def test_shipped_data_neither_fail_nor_lie(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path, weights_root: Path
) -> None:
    from ssod.data.doctor import examine_data, read_parts
    from ssod.engine.config import load_config

    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))
    parts, findings = read_parts(load_config(PROJECT / "configs" / name))
    findings += examine_data(parts)
    assert [one.code for one in findings if one.severity != "fact"] == []
    assert len(parts) == (4 if "bccd" in name else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soft_teacher/shapes.py", "stac/bccd_10.py"])
def test_shipped_configs_pass_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path, weights_root: Path
) -> None:
    from ssod.engine.commands.doctor import examine

    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))
    findings = examine(PROJECT / "configs" / name, work_dir=tmp_path / "out", decode_all=True)
    assert severe(findings) == [] and "dry-run" in by_code(findings)


# ---------------------------------------------------------------- the documented codes


def codes_in_the_code() -> dict[str, set[str]]:
    """{code: severities} of every call that makes a finding, read from the source."""
    kinds = {"fails", "lies", "hurts", "note", "fact"}
    found: dict[str, set[str]] = {}
    files = [*(PROJECT / "ssod/data/checkup").glob("*.py"), *(PROJECT / "ssod/engine/checkup").glob("*.py")]
    files += [PROJECT / "ssod/data/doctor.py", PROJECT / "ssod/engine/commands/doctor.py"]
    for file in files:
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef) or function.name in kinds:
                continue
            chosen = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} & kinds
            for node in ast.walk(function):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                code = _literal(node.args[0])
                name = node.func.id if isinstance(node.func, ast.Name) else ""
                makes = name in kinds | {"say", "_dropped"} or isinstance(node.func, ast.IfExp)
                if makes and code:
                    severities = {name} if name in kinds else chosen or {"lies", "hurts"}
                    for each in code:
                        found.setdefault(each, set()).update(severities)
    return found


def _literal(node: ast.expr) -> list[str]:
    """The codes that an argument may be: one, or one for each kind of record."""
    if isinstance(node, ast.JoinedStr):
        return ["duplicate-image-id", "duplicate-annotation-id"]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_the_page_lists_exactly_the_codes() -> None:
    page = (PROJECT / "docs/doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w, ]+) \| .+ \|.* \|$", page, re.MULTILINE)
    assert len(rows) == len({code for code, _ in rows})
    assert {code: set(severities.split(", ")) for code, severities in rows} == codes_in_the_code()


def test_each_code_has_its_planted_fault() -> None:
    """But for facts: a code without a test in the tables or in this file would be a promise."""
    files = [*PROJECT.glob("tests/*/checkup/test_*.py"), Path(__file__)]
    text = "".join(file.read_text() for file in files)
    codes = [code for code, severities in codes_in_the_code().items() if severities != {"fact"}]
    assert len(codes) > 60 and [code for code in codes if f'"{code}"' not in text] == []
