"""Runs the checks of a config: a value that one of them can't read is a finding, and the others go on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial

from mmengine.config import Config

from ssod.data.checkup.findings import Finding, fails
from ssod.engine.checkup.setup import Setup
from ssod.engine.config import complete
from ssod.errors import UserError


def found_by(checks: Iterable[partial[Iterator[Finding]]], setup: Setup) -> list[Finding]:
    """What the checks find; where one can't go on, what tools/train.py says of the config, or its error."""
    findings: list[Finding] = []
    errors: dict[str, str] = {}  # each once, however many checks end with it
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # whatever a wrong value leads to
            line = f"{type(error).__name__}: {' '.join(str(error).split())}"
            errors.setdefault(line, f"{check.func.__name__.replace('_', ' ')} can't be checked: {line}")
    if errors:
        refusal = _refusal(setup)
        known = {one.what for one in findings}
        mend = "change the value that the message speaks of"
        for line in [refusal] if refusal else errors.values():
            if line not in known:
                findings.append(fails("value-refused", setup.path, line, mend))
    return findings


def _refusal(setup: Setup) -> str | None:
    """The line with which training would refuse the config before it builds anything; None if it takes it."""
    try:
        complete(Config(copy.deepcopy(setup.config.to_dict())), setup.path)
    except UserError as error:
        return error.one_line
    except Exception:
        return None
    return None
