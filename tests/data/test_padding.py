"""Shares of padding against closed forms."""

import pytest

from ssod.data.padding import padding_shares
from ssod.data.steps import resize_to

pytestmark = pytest.mark.usefixtures("registered")
LYING, STANDING = (640, 320), (320, 640)
FIXED = resize_to((640, 320))[0]


def test_images_of_one_size_and_one_scale_have_none() -> None:
    shares = padding_shares([[LYING] * 3, [LYING] * 8], (1, 4), FIXED, batches=10)
    assert shares == {"student": 0.0, "weak": 0.0}


def test_the_divisor_pads_too() -> None:
    """330 rows become 352."""
    shares = padding_shares([[(640, 330)]], (1,), resize_to((640, 330))[0], batches=3)
    assert shares == {"student": pytest.approx(1 - 330 / 352)}


def test_mixed_orientations_fill_half_of_a_square() -> None:
    """Two lying or standing images of aspect 2 have none; one of each is half padding, half of the time."""
    sources = [[LYING, STANDING] * 50]
    assert padding_shares(sources, (2,), FIXED, batches=200)["student"] == 0.0
    mixed = padding_shares(sources, (2,), FIXED, group_by_orientation=False, batches=2000)["student"]
    # Half of the batches have 1 unit of image pixels in 1 of stack, the other half 1 in 2.
    assert mixed == pytest.approx(1 - 2 / 3, abs=0.03)


def test_the_student_sees_labeled_and_strong_views_in_one_batch() -> None:
    """A labeled image beside an unlabeled one of a quarter of its pixels; the weak stack is its own."""
    [half] = resize_to([(640, 320), (640, 320)])
    shares = padding_shares([[LYING], [(640, 160)]], (1, 1), half, batches=2)
    assert shares["student"] == pytest.approx(0.25) and shares["weak"] == 0.0


def test_scales_are_drawn_for_each_image() -> None:
    """Both sides scaled by s, s' of [1/2, 1]: E[s²] = 7/12 of E[max²] = 17/24."""
    [drawn] = resize_to([(4096, 1024), (4096, 2048)])
    share = padding_shares([[(2048, 2048)] * 10], (2,), drawn, batches=3000, divisor=1)["student"]
    assert share == pytest.approx(1 - (7 / 12) / (17 / 24), abs=0.01)


def test_images_of_one_size_and_one_drawn_scale_have_none() -> None:
    [drawn] = resize_to([(4096, 1024), (4096, 2048)])
    shares = padding_shares([[(2048, 2048)] * 10] * 2, (2, 3), drawn, same_scale=True, batches=20, divisor=1)
    assert shares == {"student": 0.0, "weak": 0.0}
