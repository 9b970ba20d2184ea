"""What the command does before its first run: a signal, and what it refuses."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from reference.toy_sweep import write_sweep

from ssod.errors import UserError
from ssod.study.sweep import command
from ssod.study.sweep.command import sweep

pytestmark = pytest.mark.usefixtures("registered")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """While configs are resolved and splits drawn, which takes minutes for many runs."""

    def strike(*_: Any) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(command, "prepared_runs", strike)
    before = signal.getsignal(number)
    assert sweep(write_sweep(tmp_path), "debug", work_dir=tmp_path / "w") == 75
    assert signal.getsignal(number) == before
    assert "stopped before a run was started" in capsys.readouterr().out


def test_what_the_command_refuses(tmp_path: Path, registered: None) -> None:
    path = write_sweep(tmp_path)
    for options, said in (
        (dict(executor="cloud"), "executor 'cloud'; use 'local' or 'slurm' or 'debug'"),
        (dict(max_parallel=0), "--max-parallel 0"),
    ):
        with pytest.raises(UserError, match=said):
            sweep(path, work_dir=tmp_path / "w", **options)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        sweep(path, work_dir=tmp_path / "file" / "w")
