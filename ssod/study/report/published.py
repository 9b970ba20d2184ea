"""Published numbers to stand beside ours, where data, split protocol and share of labels are the same."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ssod.study.report.sections import Section


@dataclass(frozen=True)
class Published:
    """One number of a paper or of a repository's page, in per cent."""

    method: str
    ap: float
    source: str
    note: str


@cache
def _table() -> dict[str, Any]:
    return dict(json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8")))


def published_for(section: Section) -> tuple[list[Published], str]:
    """The published numbers for a section, and one sentence on why there are none, where there are none."""
    table = _table()
    if section.labeled_file != table["dataset"] or section.tested_file != table["tested_on"]:
        data = section.dataset or "unknown data"
        return [], f"No published numbers: they are for COCO train2017, tested on val2017; this is {data}."
    share = f"{section.percent:g}" if section.percent is not None else "no"
    same = [each for each in table["results"] if each["protocol"] == section.protocol]
    if not same:
        known = ", ".join(sorted({each["protocol"] for each in table["results"]}))
        return [], (
            f"No published numbers: none that we know is for split protocol {section.protocol} "
            f"(known: {known}), and another protocol has other labeled images."
        )
    found = [
        Published(each["method"], each["ap"][share], each["source"], each.get("note", ""))
        for each in same
        if share in each["ap"]
    ]
    if not found:
        return [], f"No published numbers for {share} % labeled images under protocol {section.protocol}."
    return found, ""
