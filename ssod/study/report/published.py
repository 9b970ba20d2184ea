"""Published numbers to stand beside ours, where data, split protocol and share of labels are the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ssod.study.report.sections import Section


@dataclass(frozen=True)
class Published:
    """One number of a paper or of a repository's page, in per cent; or of ours, to stand beside them."""

    method: str
    ap: float
    source: str
    ours: bool = False


@cache
def _table() -> dict[str, Any]:
    return dict(json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8")))


def _source(entry: Mapping[str, Any], share: str) -> str:
    """Where a number stands, and what is said of it."""
    note = (entry.get("notes") or {}).get(share)
    return f"{entry['source']} ({note})" if note else str(entry["source"])


def published_for(section: Section) -> tuple[list[Published], str]:
    """The published numbers for a section, and one sentence on why there are none, where there are none."""
    table = _table()
    if section.labeled_file != table["dataset"] or section.tested_file != table["tested_on"]:
        data = section.dataset or "unknown data"
        return [], f"No published numbers: they are for COCO train2017, tested on val2017; this is {data}."
    if section.percent is None:
        return (
            [],
            "No published numbers: they are for shares of the labels, and this split has no percentage.",
        )
    share = f"{section.percent:g}"
    same = [each for each in table["results"] if each["protocol"] == section.protocol]
    if not same:
        known = ", ".join(sorted({each["protocol"] for each in table["results"]}))
        return [], (
            f"No published numbers: none that we know is for split protocol {section.protocol} "
            f"(known: {known}), and another protocol has other labeled images."
        )
    found = [
        Published(each["method"], each["ap"][share], _source(each, share))
        for each in same
        if share in each["ap"]
    ]
    if not found:
        return [], f"No published numbers for {share} % labeled images under protocol {section.protocol}."
    return found, ""
