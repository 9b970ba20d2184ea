"""What the tools share: exit codes, and one line for bad input."""

import argparse

import pytest

from ssod.cli import add_config_options, exit_code
from ssod.errors import RunError, UserError


@pytest.mark.parametrize("code", [0, 75])
def test_the_tools_own_code_comes_through(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: code) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "said", ["no such file", "Traceback of a worker\n  line\nssod.errors.UserError: no such file"]
)
def test_bad_input_is_one_line(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise UserError(said)

    assert exit_code(refuse) == 2
    assert capsys.readouterr().err == "error: no such file\n"


def test_a_run_that_cant_go_on_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def break_off() -> int:
        raise RunError("disk full")

    assert exit_code(break_off) == 1
    assert capsys.readouterr().err == "error: disk full\n"


def test_anything_else_is_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: 1 // 0) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert exit_code(interrupt) == 130
    assert capsys.readouterr() == ("", "stopped by Ctrl-C\n")


def test_other_exits_are_not_swallowed() -> None:
    def leave() -> int:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        exit_code(leave)


def test_config_options_are_keys_and_values() -> None:
    parser = argparse.ArgumentParser()
    add_config_options(parser, "a.b=1")
    assert parser.parse_args(["--cfg-options", "a.b=2", "c=x"]).cfg_options == {"a.b": 2, "c": "x"}
    assert parser.parse_args([]).cfg_options == {}
    assert "a.b=1" in parser.format_help()


@pytest.mark.parametrize("words", [["max_iters"], ["a=1", "=2"], ["a", "=", "1"]])
def test_a_word_without_a_value_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_config_options(parser, "a.b=1")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--cfg-options", *words])
    assert caught.value.code == 2
    assert "give KEY=VALUE, without spaces around =" in capsys.readouterr().err
