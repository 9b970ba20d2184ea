"""The runs of a sweep: the grid, lists, twins, names and hashes, against what one would write by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ssod.errors import UserError
from ssod.study.sweep.definition import Definition, read_definition
from ssod.study.sweep.plan import Run, expand, run_name

from ...conftest import PROJECT

SWEEPS = PROJECT / "configs" / "sweeps"
SHIPPED = sorted(path.stem for path in SWEEPS.glob("*.py"))
KINDS = ("ladder", "thresholds", "reliability", "jitter", "decay", "unlabeled_ratio", "percent_fold")

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(autouse=True)
def roots(monkeypatch: pytest.MonkeyPatch, data_root: Path, weights_root: Path) -> None:
    """The environment that the configs read when they are loaded."""
    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))


def written(folder: Path, text: str) -> Definition:
    """A sweep file of these lines, beside the configs' folder."""
    path = folder / "mine.py"
    path.write_text(text.replace("CONFIGS", str(PROJECT / "configs")))
    return read_definition(path)


def named(runs: list[Run]) -> list[str]:
    """The runs' names without the hash."""
    return [run.name.rpartition("-")[0] for run in runs]


GRID = """
configs = "CONFIGS/{method}/shapes.py"
supervised = "CONFIGS/supervised/shapes.py"
axes = dict(method=["fixmatch", "mean_teacher"], seed=[0, 1])
"""


def test_a_grid_with_its_twins(tmp_path: Path) -> None:
    runs = expand(written(tmp_path, GRID), tmp_path)
    assert named(runs) == [
        *("supervised-s0", "fixmatch-s0", "supervised-s1", "fixmatch-s1"),
        *("mean_teacher-s0", "mean_teacher-s1"),
    ]
    assert [run.twin for run in runs] == [True, False, True, False, False, False]
    assert [run.config.randomness.seed for run in runs] == [0, 0, 1, 1, 0, 1]
    assert all(run.name.endswith(f"-{run.config_sha256[:8]}") for run in runs)
    assert len({run.config_sha256 for run in runs}) == 6
    assert runs[1].axes == {"method": "fixmatch", "seed": 0}
    again = expand(written(tmp_path, GRID), tmp_path)
    assert [run.name for run in again] == [run.name for run in runs]


def test_twins_can_be_switched_off(tmp_path: Path) -> None:
    runs = expand(written(tmp_path, GRID + "supervised = None\n"), tmp_path)
    assert named(runs) == ["fixmatch-s0", "fixmatch-s1", "mean_teacher-s0", "mean_teacher-s1"]


def test_a_twin_shares_what_is_not_the_methods(tmp_path: Path) -> None:
    """Two rates make two twins, two bounds of the method don't; nor does a ratio of unlabeled images."""
    text = """
configs = dict(soft_teacher="CONFIGS/soft_teacher/shapes.py")
supervised = "CONFIGS/supervised/shapes.py"
options = dict(rate="optim_wrapper.optimizer.lr", bound=["model.method.cls_min_score"])
axes = dict(rate=[0.001, 0.002], bound=[0.8, 0.9], unlabeled_ratio=[1, 2])
"""
    runs = expand(written(tmp_path, text), tmp_path)
    twins = [run for run in runs if run.twin]
    assert [run.axes for run in twins] == [{"method": "supervised", "rate": rate} for rate in (0.001, 0.002)]
    assert [run.config.optim_wrapper.optimizer.lr for run in twins] == [0.001, 0.002]
    others = [run for run in runs if not run.twin]
    assert len(others) == 8
    for run in others:
        assert run.config.model.method.cls_min_score == run.axes["bound"]
        assert tuple(run.config.train_dataloader.sampler.counts) == (8, 8 * run.axes["unlabeled_ratio"])
        assert run.config.train_dataloader.batch_size == 8 + 8 * run.axes["unlabeled_ratio"]


def test_explicit_runs_times_the_grid(tmp_path: Path) -> None:
    text = """
configs = "CONFIGS/{method}/shapes.py"
runs = [dict(method="fixmatch", tau=0.7), dict(method="soft_teacher")]
axes = dict(seed=[3, 4])
options = dict(tau="model.method.min_score")
"""
    runs = expand(written(tmp_path, text), tmp_path)
    assert named(runs) == [
        *("fixmatch-tau_0.7-s3", "fixmatch-tau_0.7-s4", "soft_teacher-s3", "soft_teacher-s4")
    ]
    assert runs[0].config.model.method.min_score == 0.7


def test_one_training_is_one_run_and_knows_all_its_axes(tmp_path: Path) -> None:
    """10 jitters and 0.06 of a side are the defaults, 0.04 is the config's bound: three times the same."""
    text = """
configs = dict(soft_teacher="CONFIGS/soft_teacher/shapes.py")
runs = [dict(num=5), dict(num=10), dict(size=0.06), dict(size=0.12), dict(bound=0.04)]
options = dict(num="model.method.num_jitters", size="model.method.jitter_fraction",
               bound="model.method.box_max_spread")
"""
    runs = expand(written(tmp_path, text), tmp_path)
    assert named(runs) == ["soft_teacher-num_5", "soft_teacher-num_10", "soft_teacher-size_0.12"]
    assert runs[1].axes == {"method": "soft_teacher", "num": 10, "size": 0.06, "bound": 0.04}


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("load_from", ["/a/net.pth", "/b/net.pth"]),
        ("train_dataloader.dataset.data_root", ["/a", "/b"]),
    ],
)
def test_runs_that_differ_in_a_folder_alone_are_not_merged(
    tmp_path: Path, option: str, values: list[str]
) -> None:
    text = f"""
configs = dict(supervised="CONFIGS/supervised/shapes.py")
options = dict(place="{option}")
axes = dict(place={values})
"""
    with pytest.raises(UserError, match="differ only in where a file or the data lie") as caught:
        expand(written(tmp_path, text), tmp_path)
    for value in values:
        assert f"(place={value}, method=supervised)" in caught.value.one_line
    if option == "load_from":
        runs = expand(written(tmp_path, text.replace("/b/net", "/b/other")), tmp_path)
        assert [run.config.load_from for run in runs] == ["/a/net.pth", "/b/other.pth"]


def test_a_twin_takes_an_axis_without_the_methods_part(tmp_path: Path) -> None:
    """Of a rate and a bound that vary together the twin has the rate, and none of the method's options."""
    text = """
configs = dict(soft_teacher="CONFIGS/soft_teacher/shapes.py")
supervised = "CONFIGS/supervised/shapes.py"
options = dict(size={name: {"optim_wrapper.optimizer.lr": rate, "model.method.cls_min_score": bound}
                     for name, rate, bound in (("small", 0.001, 0.8), ("large", 0.002, 0.9))})
axes = dict(size=["small", "large"])
cfg_options = {"model.method.rpn_min_score": 0.6}
"""
    runs = expand(written(tmp_path, text), tmp_path, {"model.method.num_jitters": 5})
    assert [run.axes["size"] for run in runs if run.twin] == ["small", "large"]
    assert [run.config.optim_wrapper.optimizer.lr for run in runs] == [0.001, 0.001, 0.002, 0.002]
    for run in runs:
        method = run.config.model.get("method")
        assert (method is None) == run.twin
        if method is not None:
            assert (method.rpn_min_score, method.num_jitters) == (0.6, 5)


def done_below(work_dir: Path, runs: list[Run]) -> None:
    """Folders of these runs, as a sweep leaves them that has finished them."""
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / "run.json").write_text(json.dumps(run.describe("mine")))
        (run.folder / "result.json").write_text('{"status": "done"}')


def test_a_sweep_that_gets_another_axis_finds_its_runs_again(tmp_path: Path) -> None:
    """Seed 0 and 10 jitters are what the config says: those runs are there, under the names they had."""
    from ssod.study.sweep.prepare import prepared_runs

    text = """
configs = dict(soft_teacher="CONFIGS/soft_teacher/shapes.py")
supervised = "CONFIGS/supervised/shapes.py"
options = dict(bound="model.method.cls_min_score", num="model.method.num_jitters")
axes = dict(bound=[0.8, 0.9])
"""
    text = text.replace(', num="model.method.num_jitters"', "")
    before = expand(written(tmp_path, text), tmp_path / "w")
    done_below(tmp_path / "w", before)
    text = text.replace("cls_min_score", 'cls_min_score", num="model.method.num_jitters')
    text = text.replace("bound=[0.8, 0.9]", "seed=[0, 1], num=[10, 5], bound=[0.9, 0.8]")
    after = prepared_runs(written(tmp_path, text), tmp_path / "w", {})
    assert len(after) == 10
    there = {run.name: run for run in after if run.folder.exists()}
    assert there.keys() == {run.name for run in before}
    for run in there.values():
        assert run.axes["seed"] == 0 and (run.twin or run.axes["num"] == 10)
        assert json.loads((run.folder / "run.json").read_text()) == run.describe("mine")


def test_of_two_folders_with_one_training_the_done_one_counts(tmp_path: Path) -> None:
    from ssod.study.sweep.state import folders_by_hash

    for name, status in (("a", "stopped"), ("b", "done"), ("c", "running")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"training_sha256": "77"}')
        (tmp_path / name / "result.json").write_text(f'{{"status": "{status}"}}')
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"config_sha256": "88"}')
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_text('{"config_sha256": "66", "training_sha256": "99"}')
    assert folders_by_hash(tmp_path) == {
        "77": tmp_path / "b",
        "88": tmp_path / "old",
        "99": tmp_path / "new",
    }


def test_two_files_of_one_name_are_not_drawn_from(tmp_path: Path, data_root: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.json").write_bytes((data_root / "bccd" / "train.json").read_bytes())
    text = f"""
configs = dict(
    stac="CONFIGS/stac/bccd_10.py",
    soft_teacher=dict(config="CONFIGS/soft_teacher/bccd_10.py",
                      options={{"train_dataloader.dataset.datasets.0.data_root": "{other}"}}),
)
axes = dict(percent=[5])
splits = dict(protocol="own")
"""
    with pytest.raises(UserError, match=f"splits of .* and of {other}/train.json would both be train.1@5"):
        expand(written(tmp_path, text), tmp_path)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("axes['rate'] = [0.1]\noptions = dict(rate='optim_wrapper.optimizer.lr')\n",
         {"optim_wrapper.optimizer.lr": 0.7}, "lr: axis rate sets optim_wrapper.optimizer.lr: leave one out"),
        ("axes['rate'] = [0.1]\noptions = dict(rate='optim_wrapper.optimizer.lr')\n",
         {"optim_wrapper.optimizer": {"lr": 0.7}}, "axis rate sets optim_wrapper.optimizer.lr"),
        ("", {"randomness.seed": 7}, "axis seed sets randomness.seed"),
    ],
)  # fmt: skip
def test_the_command_line_does_not_set_what_an_axis_varies(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        expand(written(tmp_path, GRID + text), tmp_path, options)


def test_a_seed_is_the_runs_seed_whatever_else_it_sets(tmp_path: Path) -> None:
    text = GRID + "options = dict(seed='train_dataloader.sampler.seed')\n"
    for run in expand(written(tmp_path, text), tmp_path):
        assert run.config.randomness.seed == run.axes["seed"]
        assert run.twin or run.config.train_dataloader.sampler.seed == run.axes["seed"]


def test_values_may_stand_for_several_options(tmp_path: Path) -> None:
    text = """
configs = dict(soft_teacher="CONFIGS/soft_teacher/shapes.py")
options = dict(size={"small": {"model.teacher.decay": 0.9}, "large": {"model.teacher.decay": 0.99,
    "train_cfg.val_interval": 7}})
axes = dict(size=["small", "large"])
"""
    small, large = expand(written(tmp_path, text), tmp_path)
    assert (small.config.model.teacher.decay, large.config.train_cfg.val_interval) == (0.9, 7)


def test_iterations_scale_and_options_are_taken_as_they_stand(tmp_path: Path) -> None:
    text = GRID + 'iterations = 600\ncfg_options = {"train_cfg.val_interval": 55}\n'
    runs = expand(written(tmp_path, text), tmp_path, {"val_dataloader.num_workers": 0})
    assert {run.total for run in runs} == {600}
    assert {run.config.train_cfg.val_interval for run in runs} == {55}
    assert {run.config.val_dataloader.num_workers for run in runs} == {0}
    assert runs[1].config.model.method.unsup_weight.start == 167
    [lengths] = [
        expand(
            written(tmp_path, GRID + "axes = dict(method=['fixmatch'], seed=[0], iterations=[90, 180])"),
            tmp_path,
        )
    ]
    assert named(lengths) == [
        f"{name}-i{count}-s0" for count in (90, 180) for name in ("supervised", "fixmatch")
    ]


def test_what_does_not_change_the_training_does_not_change_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = expand(written(tmp_path, GRID), tmp_path)
    options = {
        "default_hooks.checkpoint.interval": 7,
        "train_dataloader.num_workers": 3,
        "hidden_truth": None,
    }
    looked_at = expand(written(tmp_path, GRID), tmp_path / "elsewhere", options)
    assert [run.name for run in looked_at] == [run.name for run in plain]
    other = expand(written(tmp_path, GRID), tmp_path, {"optim_wrapper.optimizer.lr": 0.5})
    assert not {run.name for run in other} & {run.name for run in plain}


SPLIT = """
configs = "CONFIGS/{method}/bccd_10.py"
supervised = "CONFIGS/supervised/bccd_10.py"
axes = dict(method=["stac", "soft_teacher"], percent=[5, 10], fold=[1, 2])
splits = dict(protocol="own")
"""


def test_percent_and_fold_name_the_splits_files(tmp_path: Path, data_root: Path) -> None:
    """Both datasets have the split's files, STAC's within its PseudoLabeled, and no list of ids is left."""
    from ssod.study.sweep.splits import parts_of

    runs = expand(written(tmp_path, SPLIT), tmp_path)
    assert named(runs)[:6] == [
        *("supervised-p5-f1", "stac-p5-f1", "supervised-p5-f2", "stac-p5-f2"),
        *("supervised-p10-f1", "stac-p10-f1"),
    ]
    for run in runs:
        base = str(tmp_path / "splits" / f"train.{run.axes['fold']}@{run.axes['percent']}")
        parts = parts_of(run.config)
        assert [part.ann_file for part in parts] == [f"{base}.json", f"{base}-unlabeled.json"][: len(parts)]
        assert len(parts) == (1 if run.twin else 2)
        assert run.config.get("hidden_truth") in (None, str(data_root / "bccd" / "train.json"))
        assert not any({"only_ids", "except_ids"} & set(part) for part in parts)
    assert len({run.config_sha256 for run in runs}) == 12


def test_splits_are_drawn_and_found_again(tmp_path: Path, data_root: Path) -> None:
    """5 % of 205 images are 10; the manifest says the same as tools/split_data.py's split of that fold."""
    from ssod.data.split_manifest import read_splits
    from ssod.data.splits import SplitOptions, split_file
    from ssod.study.sweep.prepare import prepared_runs

    definition = written(tmp_path, SPLIT)
    runs = prepared_runs(definition, tmp_path / "w", {})
    found = read_splits(tmp_path / "w" / "splits")
    assert {name: each["labeled"]["num_images"] for name, each in found.items()} == {
        f"train.{fold}@{percent}": number for percent, number in ((5, 10), (10, 21)) for fold in (1, 2)
    }
    options = SplitOptions("own", percents=["5", "10"], folds=[1, 2])
    assert found == split_file(data_root / "bccd" / "train.json", tmp_path / "by_hand", options)
    listed = json.loads((tmp_path / "w" / "sweep.json").read_text())
    assert [each["name"] for each in listed["runs"]] == [run.name for run in runs]
    assert listed["sweep"] == "mine" and listed["runs"][1]["axes"] == runs[1].axes
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "w" / "configs").iterdir()}
    assert len(before) == 12
    prepared_runs(definition, tmp_path / "w", {})
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "w" / "configs").iterdir()}


def test_what_is_written_trains_the_same(tmp_path: Path) -> None:
    from ssod.engine.config import load_config
    from ssod.engine.offline.provenance import hash_config
    from ssod.study.sweep.prepare import config_path, prepared_runs
    from ssod.study.sweep.resolve import identity

    for run in prepared_runs(written(tmp_path, SPLIT), tmp_path / "w", {}):
        config = load_config(config_path(tmp_path / "w", run))
        assert hash_config(identity(config)) == run.config_sha256, run.name


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"method": "soft_teacher", "percent": 10, "fold": 1, "seed": 0}, "soft_teacher-p10-f1-s0"),
        ({"method": "a/b c", "seed": 2, "x": (1, 2)}, "a_b_c-x_1_2-s2"),
        ({"method": "m", "long": "z" * 300}, "m-long_" + "z" * 93),
    ],
)
def test_names_are_readable_and_safe(axes: dict[str, Any], expected: str) -> None:
    name = run_name(axes, "3fa94c1e" + "0" * 56)
    assert name == f"{expected}-3fa94c1e" and re.fullmatch(r"[\w.-]+", name)


MISTAKES = [
    ("", "has no configs"),
    ("configs = 'x.py'\nconfig = 1\n", "nothing reads 'config'; did you mean configs"),
    ("configs = 'x.py'\naxes = dict(metod=['a'])\n", "axis 'metod' changes nothing; did you mean method"),
    ("configs = 'x.py'\naxes = dict(method='a')\n", "axis method is 'a': give a list"),
    ("configs = 'x.py'\naxes = dict(seed=[0])\n", "a run has no method"),
    ("configs = '{model}.py'\naxes = dict(method=['a'])\n", "'{model}.py' names 'model'"),
    ("configs = 'x.py'\naxes = dict(method=['a'])\n", "x.py does not exist"),
    ("configs = dict(a='x.py')\naxes = dict(method=['b'])\n", "configs has no 'b'"),
    ("configs = 'x.py'\naxes = dict(method=['a'], fold=[1])\n", "percent and fold need splits"),
    ("configs = 'x.py'\naxes = dict(method=['a'])\noptions = dict(q='r')\n", "options has 'q'"),
    (GRID + "cfg_options = {'val_dataloadr.batch_size': 3}\n", "did you mean val_dataloader"),
    (
        GRID + "cfg_options = {'optim_wrapper.optimizer.lrr': 3}\n",
        "AdamW has no option 'lrr'; did you mean lr",
    ),
    (
        GRID + "cfg_options = {'optim_wrapper.optimizer.lr': 'fast'}\n",
        "seed=0: .*lr is 'fast': give a number",
    ),
    (GRID + "cfg_options = {'model.teacher.decey': 0.9}\n", "has no option 'decey'; did you mean decay"),
    (GRID + "iterations = 9\ncfg_options = {'train_cfg.max_iters': 3}\n", "both say how long"),
    (GRID + "axes['unlabeled_ratio'] = [0.3]\n", "unlabeled_ratio=0.3 does not fit"),
    (GRID + "axes['tau'] = [2]\noptions = dict(tau='model.method.threshold')\n", "threshold"),
    (SPLIT + "splits = dict(annotations='none.json')\n", "there is no .*none.json to draw from"),
    (SPLIT + "splits = dict(protocoll='own')\n", "protocoll"),
    (SPLIT + "axes['percent'] = [500]\n", "500"),
    (SPLIT + "axes['percent'] = [[10]]\n", "give a number from"),
    (GRID + "axes = None\n", "axes is None: give a dict of axis"),
    (GRID + "runs = [3]\n", r"runs is \[3\]: give a list of dicts"),
    (GRID + "slurm = 3\n", "slurm is 3: give a dict"),
    (GRID + "gpus = 0\n", "gpus is 0: give the number of processes"),
    (GRID + "supervised = 3\n", "supervised is 3: give a path"),
    (GRID + "options = dict(tau=3)\n", "options.tau is 3: give a config option"),
    (GRID + "options = dict(tau={1: 'x'})\n", "options.tau is .*: give a config option"),
    (GRID + "axes['seed'] = ['a']\n", "axis seed is 'a': give whole numbers"),
    (GRID + "runs = [dict(seed=True)]\n", "axis seed is True: give whole numbers"),
    (GRID + "axes['unlabeled_ratio'] = ['a']\n", "axis unlabeled_ratio is 'a': give numbers"),
    (GRID + "axes['unlabeled_ratio'] = [float('nan')]\n", "axis unlabeled_ratio is nan: give numbers"),
    (GRID + "axes['iterations'] = ['a']\n", "axis iterations is 'a': give whole numbers of at least 1"),
    (GRID + "axes['method'] = [3]\n", "axis method is 3: give a method's name"),
    (
        GRID + "axes['tau'] = [[1]]\noptions = dict(tau={1: {'model.method.tau': 1}})\n",
        r"options.tau does not say what \[1\] is",
    ),
    (SPLIT + "axes['fold'] = ['x']\n", "axis fold is 'x': give whole numbers"),
    (SPLIT + "splits = dict(files='x.{fol}@{percent}')\n", "splits.files .* can't be filled in"),
    (SPLIT + "splits = dict(seed='a')\n", "splits: seed is 'a': give a whole number"),
    (SPLIT + "splits = 'own'\n", "splits is 'own': give a dict"),
    (SPLIT + "splits = dict(files='{percent}')\n", "train the same: fold changes nothing.* as {fold}"),
    (GRID + "configs = 'CONFIGS/fixmatch/shapes.py'\n", "train the same: method changes nothing.*{method}"),
    (GRID + "configs = dict(a=dict(config='x.py', option={}))\n", r"configs\['a'\] is .*: give a path, or"),
    (GRID + "configs = dict(a=dict(options={}))\n", r"configs\['a'\] is .*: give a path, or"),
    (GRID + "configs = dict(a=dict(config='x.py', options=[1]))\n", r"configs\['a'\] is .*: give a path"),
    (GRID + "configs = {1: 'x.py'}\n", "configs is {1: 'x.py'}: give a path, or a dict"),
    (GRID + "cfg_options = {1: 1}\n", "cfg_options is {1: 1}: give a dict of config option"),
    (GRID + "axes = {'method': ['fixmatch'], 1: [2]}\n", "axes is .*: give a dict of axis"),
    (GRID + "runs = [{1: 2}]\n", r"runs is .*: give a list of dicts"),
    (
        GRID + "axes['tau'] = [1]\noptions = dict(tau={1: {2: 3}})\n",
        "options.tau is .*: give a config option",
    ),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_mistakes_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        expand(written(tmp_path, text), tmp_path)
    assert "\n" not in caught.value.one_line
    assert not (tmp_path / "splits").exists()


# ---------------------------------------------------------------- what is shipped


def test_each_kind_is_there_for_each_data_set() -> None:
    assert sorted(f"{kind}_{data}" for kind in KINDS for data in ("shapes", "bccd", "coco")) == SHIPPED


COUNTS = {  # runs without the twins, and twins
    "ladder": (15, 3),
    "thresholds": (6, 1),
    "reliability": (6, 1),
    "jitter": (9, 1),
    "decay": (5, 1),
    "decay_bccd": (15, 3),
    "unlabeled_ratio": (4, 1),
    "percent_fold_shapes": (45, 9),
    "percent_fold_bccd": (27, 9),
    "percent_fold_coco": (100, 20),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sweeps_expand_and_their_configs_build(name: str, tmp_path: Path) -> None:
    """Every method builds; every detector does in test_configs.py, which has the same ones."""
    from ssod.registry import METHODS, TEACHERS

    definition = read_definition(SWEEPS / f"{name}.py")
    runs = expand(definition, tmp_path)
    counted = COUNTS.get(name) or COUNTS[name.rpartition("_")[0]]
    assert (sum(not run.twin for run in runs), sum(run.twin for run in runs)) == counted
    lengths = {"shapes": 600, "bccd": 300, "coco": 180_000}
    for run in runs:
        assert run.config.train_cfg.max_iters == lengths[name.rpartition("_")[2]]
        assert run.total == run.config.train_cfg.max_iters * (2 if run.axes["method"] == "stac" else 1)
        model = run.config.model
        assert (model.get("method") is None) == run.twin
        if not run.twin:
            METHODS.build(model.method)
        if model.get("teacher"):
            TEACHERS.build(model.teacher)
    seeds = {run.config.randomness.seed for run in runs}
    assert seeds == ({0, 1, 2} if name.startswith(("ladder", "decay_bccd")) else {0})


@pytest.mark.parametrize("data", ["shapes", "bccd", "coco"])
def test_the_ladders_rungs_are_the_configs_of_those_names(data: str, tmp_path: Path) -> None:
    """What the sweep sets by options is what the rung's own config file has, where there is one."""
    from ssod.engine.config import load_config

    runs = {
        run.axes["method"]: run.config
        for run in expand(read_definition(SWEEPS / f"ladder_{data}.py"), tmp_path)
        if run.axes["seed"] == 0
    }
    assert list(runs) == [
        *("supervised", "stac", "fixmatch", "fixmatch_ema", "soft_teacher_no_jitter", "soft_teacher")
    ]
    no_jitter = {
        "soft_teacher_no_jitter": f"soft_teacher/{dict(shapes='shapes').get(data, 'coco_10')}_no_jitter"
    }
    files = {"shapes": {**no_jitter, "fixmatch_ema": "fixmatch/shapes_ema"}, "coco": no_jitter, "bccd": {}}
    for method, file in files[data].items():
        rung, own = runs[method].model.method, load_config(PROJECT / f"configs/{file}.py").model.method
        assert {**rung, "unsup_weight": 0} == {**own, "unsup_weight": 0}
    top, without = runs["soft_teacher"], runs["soft_teacher_no_jitter"]
    assert without.model.method == {**top.model.method, "box_selection": "score"}
    assert runs["fixmatch_ema"].model.method == {**runs["fixmatch"].model.method, "labeler": "teacher"}
