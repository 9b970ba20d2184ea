"""The severity of findings under a run's data policy."""

import pytest

from ssod.data.checkup.findings import Finding, fails, hurts
from ssod.data.checkup.parts import Part
from ssod.engine.checkup.policy import under_policy
from ssod.engine.faults.data_policy import DataPolicy

IMAGES = [{"id": number, "file_name": f"{number}.jpg"} for number in range(400)]


def part(name: str) -> Part:
    return Part(name, {}, f"{name}.json", "", (), images=IMAGES)


def bad(where: str, code: str, images: int) -> Finding:
    return fails(code, where, "x", "restore the files", images=images)


@pytest.mark.parametrize(
    ("where", "images", "policy", "severity"),
    [
        ("unlabeled: unlabeled.json", 4, DataPolicy(), "hurts"),  # 1 % of 400
        ("unlabeled: unlabeled.json", 5, DataPolicy(), "fails"),
        ("unlabeled: unlabeled.json", 5, DataPolicy(max_bad_fraction=0.05), "hurts"),
        ("unlabeled: unlabeled.json", 1, DataPolicy(on_bad_image="raise"), "fails"),
        ("val: val.json", 1, DataPolicy(), "fails"),
    ],
)
def test_bad_images_hurt_as_long_as_others_are_drawn(
    where: str, images: int, policy: DataPolicy, severity: str
) -> None:
    (found,) = under_policy([bad(where, "missing-image", images)], [part("unlabeled"), part("val")], policy)
    assert found.severity == severity
    assert ("draws other images" in found.mend) == (severity == "hurts")


def test_missing_and_unreadable_images_count_together() -> None:
    both = [
        bad("labeled: labeled.json", "missing-image", 3),
        bad("labeled: labeled.json", "unreadable-image", 2),
    ]
    assert [one.severity for one in under_policy(both, [part("labeled")], DataPolicy())] == ["fails", "fails"]


def test_what_a_folder_left_out_counts_among_its_images() -> None:
    """As training counts: 4 of 396 images and 4 that were left out is 1 % of 400."""
    folder = Part("unlabeled", {}, "", "photos", (), images=IMAGES[4:], left_out=("a.jpg",) * 4)
    (found,) = under_policy([bad(folder.where, "unreadable-image", 4)], [folder], DataPolicy())
    assert found.severity == "hurts"


def test_leaks_between_sources_fail_unless_allowed() -> None:
    leak = hurts("leak-between-sources", "labeled.json and unlabeled.json", "x", "split again")
    (refused,) = under_policy([leak], [], DataPolicy())
    assert refused.severity == "fails" and "allow_leaks" in refused.mend
    assert under_policy([leak], [], DataPolicy(allow_leaks=True)) == [leak]
