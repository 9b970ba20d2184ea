"""What the data policy makes of findings: what training goes on with only hurts, what it refuses fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ssod.data.checkup.findings import Finding
from ssod.data.checkup.parts import Part
from ssod.engine.faults.data_policy import DataPolicy

BAD_IMAGES = ("missing-image", "unreadable-image")


def under_policy(findings: Iterable[Finding], parts: Sequence[Part], policy: DataPolicy) -> list[Finding]:
    """The findings with the severity that they have under `data_policy`.

    Bad images of a trained part hurt as long as the policy draws others in their place; images that are both
    labeled and unlabeled fail unless it allows leaks.
    """
    findings = list(findings)
    bad = Counter[str]()
    for one in findings:
        if one.code in BAD_IMAGES:
            bad[one.where] += one.values["images"]
    replaced = {
        part.where
        for part in parts
        if not part.evaluated
        and 0 < bad[part.where] <= policy.most_bad(len(part.images) + len(part.left_out))
    }
    return [_under(one, replaced, policy) for one in findings]


def _under(one: Finding, replaced: set[str], policy: DataPolicy) -> Finding:
    """One finding with its severity under the policy."""
    if one.code in BAD_IMAGES and one.where in replaced:
        mend = f"{one.mend}; until then training draws other images in their place"
        return replace(one, severity="hurts", mend=mend)
    if one.code == "leak-between-sources" and not policy.allow_leaks:
        mend = f"{one.mend}; or allow it with data_policy=dict(allow_leaks=True)"
        return replace(one, severity="fails", mend=mend)
    return one
