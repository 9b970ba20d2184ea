"""Files that would run code are refused wherever weights or labels are read, and nothing of them is run."""

import os
import pickle
import socket
from email.message import Message
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch

from ssod import safe_load
from ssod.errors import UserError


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def write(path: Path, mark: Path, kind: str) -> Path:
    """A file with weights and something malicious: torch's format, its older one, or a bare pickle."""
    content = {"state_dict": {"weight": torch.zeros(2)}, "more": Malicious(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.fixture(params=["zip", "old", "pickle"])
def trap(request: Any, tmp_path: Path) -> Any:
    """A malicious file, and the file that it would leave."""
    mark = tmp_path / "executed"
    yield write(tmp_path / "trap.pth", mark, request.param)
    assert not mark.exists()


def test_the_trap_works(tmp_path: Path) -> None:
    torch.load(write(tmp_path / "trap.pth", tmp_path / "executed", "zip"), weights_only=False)
    assert (tmp_path / "executed").exists()


def test_a_file_that_would_run_code_is_refused(trap: Path) -> None:
    with pytest.raises(UserError, match=r"trap\.pth is refused: it ") as caught:
        safe_load.read(trap)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_the_refusal_names_what_would_be_called(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it would call (posix|nt)\.system"):
        safe_load.read(write(tmp_path / "trap.pth", tmp_path / "executed", "zip"))


def test_as_a_checkpoint(trap: Path) -> None:
    from ssod.engine.saving import checkpoints

    with pytest.raises(UserError, match=r"checkpoint .*trap.pth is refused"):
        checkpoints.load(trap)


def test_as_mmengines_checkpoint_and_pretrained_weights(trap: Path, registered: None) -> None:
    from mmengine.model import BaseModule
    from mmengine.runner import CheckpointLoader, load_checkpoint

    with pytest.raises(UserError, match="refused"):
        load_checkpoint(torch.nn.Linear(1, 1), str(trap))
    with pytest.raises(UserError, match="refused"):
        CheckpointLoader.load_checkpoint(str(trap))
    model = BaseModule(init_cfg=dict(type="Pretrained", checkpoint=str(trap)))
    with pytest.raises(UserError, match="refused"):
        model.init_weights()


def test_as_a_download(trap: Path, registered: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What torch's hub has already downloaded: mmengine's readers of http and of model zoos go through it."""
    from mmengine.runner import CheckpointLoader

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "weights.pth").write_bytes(trap.read_bytes())
    with pytest.raises((UserError, pickle.UnpicklingError)):
        CheckpointLoader.load_checkpoint("https://nowhere.invalid/weights.pth")


def test_without_a_network_one_line_says_where_the_file_must_lie(
    registered: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a file that lies there is taken, with no network either."""
    from mmengine.model import BaseModule

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/zoo/weights.pth?download=1"
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "weights.pth"

    class Layer(BaseModule):
        def __init__(self) -> None:
            super().__init__(init_cfg=dict(type="Pretrained", checkpoint=address))
            self.weight = torch.nn.Parameter(torch.zeros(2))

    with pytest.raises(UserError) as caught:
        Layer().init_weights()
    said = str(caught.value)
    assert said.startswith(f"weights {address} can't be fetched (") and "Connection refused): " in said
    assert f"download it elsewhere to {place}, or give a local file" in said and "\n" not in said
    assert "--cfg-options model.detector.backbone.init_cfg.checkpoint=FILE" in said
    torch.save({"weight": torch.ones(2)}, place)
    layer = Layer()
    layer.init_weights()
    assert layer.weight.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HTTPError("u", 404, "Not Found", Message(), None), "Not Found"),
        (URLError(TimeoutError("timed out")), "timed out"),
        (RemoteDisconnected("closed\nit"), "closed it"),
        (IncompleteRead(b""), "IncompleteRead(0 bytes read)"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_whatever_the_network_says(
    registered: None, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    from mmengine.runner import CheckpointLoader

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(UserError) as caught:
        CheckpointLoader.load_checkpoint("https://nowhere.invalid/weights.pth")
    assert f"weights.pth can't be fetched ({reason}): download it" in str(caught.value)


def test_as_a_backbones_weights(trap: Path, registered: None) -> None:
    from ssod.registry import MODELS

    config = dict(type="TorchvisionBackbone", model="mobilenet_v2", out_indices=(3,), weights=str(trap))
    with pytest.raises(UserError, match="refused"):
        MODELS.build(config)


def test_as_pseudo_labels(trap: Path, registered: None) -> None:
    from ssod.data.pseudo_coco import read_pseudo_coco

    with pytest.raises(UserError, match=r"trap\.pth"):
        read_pseudo_coco(trap)


def test_what_mmengine_writes_is_read(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer

    buffer = HistoryBuffer()
    buffer.update(3.0)
    content = {
        "weights": torch.arange(3.0),
        "array": np.arange(4, dtype=np.int32),
        "number": np.float64(0.5),
        "part": slice(1, 2),
        "log": buffer,
    }
    torch.save(content, tmp_path / "file.pth")
    found = safe_load.read(tmp_path / "file.pth")
    assert torch.equal(found["weights"], content["weights"])
    assert np.array_equal(found["array"], content["array"]) and found["number"] == 0.5
    assert found["part"] == slice(1, 2) and found["log"].mean() == 3.0


def test_only_a_buffers_own_methods_are_given_out() -> None:
    from mmengine.logging import HistoryBuffer

    assert safe_load._statistic(HistoryBuffer, "mean") is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, "__init__"), (os, "system"), (torch.Tensor, "mean")):
        with pytest.raises(pickle.UnpicklingError):
            safe_load._statistic(owner, name)
