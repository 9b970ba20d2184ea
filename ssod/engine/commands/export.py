"""A trained network as mmdet's own: a config and weights that load where ssod is not installed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config

from ssod.data.plain import plain_pipeline
from ssod.engine import evaluate
from ssod.engine.config import check_names, merge_options, read_config
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.offline.labeling import categories_of
from ssod.engine.offline.provenance import hash_file, labeling_pipeline
from ssod.engine.records.box_pictures import palette
from ssod.engine.records.writing import check_out, make_folder, replacing, write_text
from ssod.engine.runner import warnings_to_log
from ssod.engine.testing import load_model, silence
from ssod.errors import RunError, UserError
from ssod.models.plain import build_plain, compute_as_mmdet, plain_model, plain_weights
from ssod.registry import register_all_modules

CONFIG, WEIGHTS = "config.py", "weights.pth"
PARTIAL = (f".{CONFIG}.partial", f".{WEIGHTS}.partial")  # left by a killed export
NO_ONNX = (
    "--onnx: neither mmdet nor ssod writes ONNX; export without it, and give {0}/config.py and "
    "{0}/weights.pth to mmdeploy (tools/deploy.py), which converts mmdet's detectors"
)
_MARK = "as a plain mmdet detector; written by ssod's tools/export.py."  # ends the first line of a config
_HEADER = '''"""The {network} of {checkpoint} {mark}

    from mmdet.apis import inference_detector, init_detector

    model = init_detector("{config}", "{weights}", device="cpu")
    boxes = inference_detector(model, "image.jpg").pred_instances
"""

'''


@dataclass(frozen=True)
class Export:
    """The files written, the network they hold, and a line for all that is not exactly the same."""

    config: Path
    weights: Path
    network: str
    notes: tuple[str, ...]


def export(
    config_path: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    which: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Export:
    """Writes `config.py` and `weights.pth` to the folder `out`: what tools/export.py calls.

    which: "teacher" or "student", by default the teacher, if there is one. An earlier export there is
    replaced. Raises UserError for bad input, for a folder with other files, and for a part of the model or
    of the test pipeline that mmdet does not have.
    """
    register_all_modules()
    folder = Path(out)
    check_out(folder, (CONFIG, WEIGHTS, *PARTIAL) if _is_exported(folder / CONFIG) else PARTIAL)
    with warnings_to_log():
        config = read_config(config_path)
        check_names(config, config_path)
        merge_options(config, options or {})
        classes = [each["name"] for each in categories_of(config)]
        pipeline, notes = plain_pipeline(labeling_pipeline(config))
        silence()
        model, content = load_model(config, checkpoint)
        [network] = evaluate.choose_networks(model, which or model.which[0])
        evaluate.check_classes(model, SimpleNamespace(metainfo={"classes": classes}))
        plain_config, more_notes = plain_model(config.model)
        make_folder(folder)
        with mistakes_in_config():
            plain = build_plain(plain_config)
        weights = plain_weights(plain, model.network(network))
        plain.load_state_dict(weights)
        _check_features(model.to("cpu"), network, plain)
        metainfo = {"classes": tuple(classes), "palette": palette(len(classes))}
        parts = _config(config, plain_config, pipeline, metainfo)
        meta = {
            "dataset_meta": metainfo,
            "iter": content.get("meta", {}).get("iter"),
            "ssod": {"network": network, "checkpoint_sha256": hash_file(checkpoint)},
        }
        text = _text(parts, network, Path(checkpoint).name)
        _check_reading(text, classes)
        write_text(folder / CONFIG, text)  # first: by it the next call knows the folder
        with replacing(folder / WEIGHTS) as partial:
            torch.save({"state_dict": weights, "meta": meta}, partial)
    return Export(folder / CONFIG, folder / WEIGHTS, network, (*notes, *more_notes))


def _is_exported(config: Path) -> bool:
    """Whether the file is there and an earlier export's."""
    try:
        with config.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip().endswith(_MARK)
    except OSError:
        return False


def _config(
    config: Config,
    model: Mapping[str, Any],
    pipeline: Sequence[Mapping[str, Any]],
    metainfo: Mapping[str, Any],
) -> dict[str, Any]:
    """What mmdet's init_detector and its tools/test.py read."""
    loader = config.get("test_dataloader") or config.val_dataloader
    data = loader.dataset
    given = {key: data[key] for key in ("data_root", "ann_file", "data_prefix") if data.get(key)}
    dataset = dict(type="CocoDataset", **given, metainfo=dict(metainfo), test_mode=True)
    evaluator = config.get("test_evaluator") or config.get("val_evaluator") or {}
    parts: dict[str, Any] = {
        "default_scope": "mmdet",
        "model": dict(model),
        "test_dataloader": {
            "batch_size": 1,
            "num_workers": 2,
            "persistent_workers": False,
            "drop_last": False,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {**dataset, "pipeline": [dict(step) for step in pipeline]},
        },
    }
    if isinstance(evaluator, Mapping) and evaluator.get("ann_file"):
        parts["test_evaluator"] = {"type": "CocoMetric", "metric": "bbox", "ann_file": evaluator["ann_file"]}
        parts["test_cfg"] = {"type": "TestLoop"}
    return parts


def _text(parts: dict[str, Any], network: str, checkpoint: str) -> str:
    """The config file; what would end a text, and {{, which mmengine replaces as it reads, are escaped."""
    name = json.dumps(checkpoint, ensure_ascii=False)[1:-1].encode(errors="backslashreplace").decode()
    header = _HEADER.format(network=network, checkpoint=name, mark=_MARK, config=CONFIG, weights=WEIGHTS)
    body: str = Config(parts).pretty_text
    return (header + body).replace("{{", "{\\x7b")


def _check_reading(text: str, classes: Sequence[str]) -> None:
    """Raises UserError unless mmengine reads from the config the classes that were written to it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, CONFIG)
        path.write_text(text, encoding="utf-8")
        try:
            found = Config.fromfile(path).test_dataloader.dataset.metainfo.classes
        except Exception as error:  # of whatever kind: the file is code
            reason = " ".join(str(error).split())
            raise UserError(f"the exported config can't be read ({reason}): use plain class names") from None
    if list(found) != list(classes):
        raise UserError(f"the exported config is read with the classes {list(found)}: use plain names")


@torch.no_grad()
def _check_features(model: Any, network: str, plain: Any) -> None:
    """Raises RunError unless both see the same in an image of noise: preprocessing, backbone and neck."""
    compute_as_mmdet(model.eval())
    noise = torch.randint(256, (3, 96, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen = [
        each.data_preprocessor({"inputs": [noise], "data_samples": None}, False)["inputs"]
        for each in (model, plain)
    ]
    ours, theirs = model.network(network).extract_feat(seen[0]), plain.extract_feat(seen[1])
    pairs = zip(ours, theirs, strict=True)
    if not all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs):
        raise RunError("the exported detector does not compute what the trained one does, so nothing was "
                       "written; please report it with the model of your config")  # fmt: skip
