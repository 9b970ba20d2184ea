"""Every selection policy against loops over single boxes; state that lasts; what a config may say."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import pseudo_labels as reference

from ssod.core.labels import BoxLabels
from ssod.core.selection import ClassAdaptive, IgnoreBand, ScoreAbove, Selection
from ssod.errors import UserError

COUNTS = st.lists(st.sampled_from([0, 1, 2, 7, 30]), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**31)
SCORES = st.integers(0, 99).map(lambda number: number / 100)
PINNED = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def pairs(labels: BoxLabels) -> list[list[tuple[int, float]]]:
    """(class, score) of every valid box, image by image."""
    return [
        [(int(labels.classes[i, k]), float(labels.scores[i, k])) for k in range(len(row)) if row[k]]
        for i, row in enumerate(labels.valid)
    ]


def marked(labels: BoxLabels, where: torch.Tensor) -> list[list[bool]]:
    """The marks of the slots that hold a box."""
    return [where[i, row].tolist() for i, row in enumerate(labels.valid)]


# ---------------------------------------------------------------- against loops


@PINNED
@given(COUNTS, SEEDS, SCORES)
@example([0], 0, 0.5)
@example([1], 0, 0.5)
@example([500, 0, 1], 0, 0.5)
def test_score_above(counts: list[int], seed: int, bound: float) -> None:
    labels = reference.random_labels(counts, seed)
    chosen = ScoreAbove(bound)(labels)
    assert chosen.ignored is None and not (chosen.valid & ~labels.valid).any()
    as_float = torch.tensor(bound).item()
    expected = [[score > as_float for _, score in image] for image in pairs(labels)]
    assert marked(labels, chosen.valid) == expected
    at_least = ScoreAbove(bound, inclusive=True)(labels)
    expected = [[score >= as_float for _, score in image] for image in pairs(labels)]
    assert marked(labels, at_least.valid) == expected and not (at_least.valid & ~labels.valid).any()


@PINNED
@given(COUNTS, SEEDS, SCORES, st.integers(1, 60).map(lambda number: number / 100))
@example([0], 0, 0.5, 0.4)
@example([1], 0, 0.5, 0.4)
@example([500, 0, 1], 0, 0.5, 0.4)
def test_ignore_band(counts: list[int], seed: int, low: float, width: float) -> None:
    labels = reference.random_labels(counts, seed)
    chosen = IgnoreBand(low, low + width)(labels)
    assert chosen.ignored is not None
    low32, high32 = torch.tensor([low, low + width]).tolist()
    assert marked(labels, chosen.valid) == [[score >= high32 for _, score in one] for one in pairs(labels)]
    band = [[low32 <= score < high32 for _, score in one] for one in pairs(labels)]
    assert marked(labels, chosen.ignored) == band
    assert not ((chosen.valid | chosen.ignored) & ~labels.valid).any()


@PINNED
@given(
    st.lists(COUNTS, min_size=1, max_size=4),
    SEEDS,
    st.sampled_from(["share", "count"]),
    st.sampled_from([0.0, 0.5, 0.9, 0.999]),
    st.sampled_from([0.0, 0.3, 0.7]),
)
@example([[0]], 0, "share", 0.9, 0.0)
@example([[1]], 0, "share", 0.9, 0.0)
@example([[500, 0, 1], [500]], 0, "share", 0.9, 0.0)
@example([[0], [500, 1]], 0, "count", 0.9, 0.0)
def test_class_adaptive(
    batches: list[list[int]], seed: int, effect: Any, decay: float, lowest: float
) -> None:
    """Several batches one after the other: thresholds to 1e-5, and what they choose exactly."""
    policy = ClassAdaptive(reference.CLASSES, 0.7, lowest, decay, effect)
    oracle = reference.ClassThresholds(0.7, lowest, decay, effect)
    oracle.min_score = torch.tensor(0.7).item()
    for step, counts in enumerate(batches):
        labels = reference.random_labels(counts, seed + step)
        before = policy.thresholds()
        expected = [oracle.threshold(each) for each in range(reference.CLASSES)]
        torch.testing.assert_close(before, torch.tensor(expected), rtol=1e-5, atol=1e-6)
        chosen = policy(labels)
        bounds = before.tolist()
        kept = [[score > bounds[label] for label, score in image] for image in pairs(labels)]
        assert marked(labels, chosen.valid) == kept and chosen.ignored is None
        oracle.count(pairs(labels))
    seen, learned = policy.counts.tolist()
    assert seen == pytest.approx(oracle.seen, rel=1e-5) and learned == pytest.approx(oracle.learned, rel=1e-5)


# ---------------------------------------------------------------- by hand


def labels_of(*pairs: tuple[int, float]) -> BoxLabels:
    """One image with boxes of these classes and scores."""
    return BoxLabels.pad(
        [torch.tensor([[0.0, 0, 9, 9]]).repeat(len(pairs), 1)],
        [torch.tensor([label for label, _ in pairs])],
        [torch.tensor([score for _, score in pairs])],
    )


SEEN = labels_of((0, 0.95), (0, 0.95), (0, 0.95), (0, 0.6), (1, 0.95), (1, 0.6))


def test_thresholds_by_hand() -> None:
    """3 of 4 boxes of class 0 are sure, 1 of 2 of class 1, class 2 was never seen; 2 of 6 are unused.

    share: β = 1, (1/2) / (3/4) = 2/3, 0, mapped to 1, 1/2, 0. count: β = 3/3, 1/3, 0, mapped to 1, 1/5, 0.
    """
    for effect, expected in (("share", [0.8, 0.4, 0.1]), ("count", [0.8, 0.16, 0.1])):
        policy = ClassAdaptive(3, min_score=0.8, lowest=0.1, effect=effect)  # type: ignore[arg-type]
        assert policy.thresholds().tolist() == pytest.approx([0.1] * 3)
        policy(SEEN)
        assert policy.thresholds().tolist() == pytest.approx(expected)


def test_while_most_boxes_are_unsure_all_thresholds_are_low() -> None:
    """The paper's warm-up: 1 of 10 boxes is sure, so β is 1/9 by counts, (1/2) / (9/10) by shares."""
    labels = labels_of((0, 0.95), (0, 0.5), *[(1, 0.5)] * 8)
    for effect, beta in (("count", 1 / 9), ("share", 5 / 9)):
        policy = ClassAdaptive(2, min_score=0.9, lowest=0.0, effect=effect)  # type: ignore[arg-type]
        policy(labels)
        assert policy.thresholds().tolist() == pytest.approx([0.9 * beta / (2 - beta), 0.0])


def test_a_rare_class_is_not_an_unlearned_one() -> None:
    """Nine sure boxes of one class, one sure box of another: by share both are learned."""
    labels = labels_of(*[(0, 0.95)] * 9, (1, 0.95))
    share, count = ClassAdaptive(2, lowest=0.0), ClassAdaptive(2, lowest=0.0, effect="count")
    share(labels), count(labels)
    assert share.thresholds().tolist() == pytest.approx([0.9, 0.9])
    assert count.thresholds().tolist() == pytest.approx([0.9, 0.9 / 17])


def test_a_batch_is_judged_before_it_counts() -> None:
    policy = ClassAdaptive(3, min_score=0.8, lowest=0.1)
    assert policy(SEEN).valid.all()  # nothing is known yet
    assert policy(SEEN).valid.tolist() == [[True, True, True, False, True, True]]


def test_looking_does_not_count() -> None:
    policy = ClassAdaptive(3).eval()
    policy(SEEN)
    assert policy.counts.abs().sum() == 0


def test_counts_survive_a_checkpoint() -> None:
    policy = ClassAdaptive(3, min_score=0.8, lowest=0.1)
    policy(SEEN)
    again = ClassAdaptive(3, min_score=0.8, lowest=0.1)
    again.load_state_dict(policy.state_dict())
    assert list(policy.state_dict()) == ["counts"]
    assert again.thresholds().equal(policy.thresholds()) and again(SEEN).valid.equal(policy(SEEN).valid)


def test_policies_work_under_bf16() -> None:
    for spec in (0.9, dict(type="IgnoreBand", low=0.7, high=0.9), dict(type="ClassAdaptive", num_classes=3)):
        one, other = Selection.of(spec), Selection.of(spec)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                half = one(SEEN)
            full = other(SEEN)
            assert half.valid.equal(full.valid)
        assert [each.dtype for each in one.buffers()] == [torch.float32] * len(list(one.buffers()))
        assert all(a.equal(b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def count_on_rank(rank: int, meeting: Path, found: Any) -> None:
    """One of two ranks: the first sees 3 sure boxes of class 0, the other 1 unsure box of class 1."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    policy = ClassAdaptive(2, decay=0.0)
    policy(labels_of(*[(0, 0.95)] * 3) if rank == 0 else labels_of((1, 0.2)))
    found.put(policy.counts.tolist())
    torch.distributed.destroy_process_group()


def test_ranks_agree_on_the_mean_of_their_counts(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # ten times as fast as two new interpreters
    found = context.Queue()
    ranks = [context.Process(target=count_on_rank, args=(rank, tmp_path / "meet", found)) for rank in (0, 1)]
    for each in ranks:
        each.start()
    assert [found.get(timeout=60) for _ in ranks] == [[[1.5, 0.5], [1.5, 0.0]]] * 2
    for each in ranks:
        each.join(60)


# ---------------------------------------------------------------- what a config may say


def test_of_takes_what_a_config_may_hold() -> None:
    given = IgnoreBand(0.5, 0.9)
    assert Selection.of(given) is given
    for number in (0.9, 1):
        policy = Selection.of(number)
        assert isinstance(policy, ScoreAbove) and policy.min_score == policy.floor == number
    spec = dict(type="ClassAdaptive", num_classes=7, min_score=0.8, lowest=0.6, decay=0.9, effect="count")
    policy = Selection.of(spec)
    assert isinstance(policy, ClassAdaptive) and policy.counts.shape == (2, 7)
    assert (policy.min_score, policy.floor, policy.decay, policy.effect) == (0.8, 0.6, 0.9, "count")
    assert spec["type"] == "ClassAdaptive"  # the config is left as it was
    assert Selection.of(dict(type="IgnoreBand", low=0.4, high=0.8)).floor == 0.4


def test_a_policy_of_ones_own_is_found_by_name() -> None:
    class OnlyClass(Selection):
        """Labels of one class."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number, self.floor = number, 0.0

        def forward(self, labels: BoxLabels) -> BoxLabels:
            return labels.where(labels.classes == self.number)

    policy = Selection.of(dict(type="OnlyClass", number=1))
    assert policy(SEEN).valid.tolist() == [[False] * 4 + [True] * 2]


WRONG: list[tuple[str, Any, str]] = [
    ("unknown type", dict(type="TopK", k=3), "selection 'TopK' is unknown; use a score or .* ScoreAbove, "),
    ("no type", dict(min_score=0.9), "selection None is unknown"),
    ("a bare name", "ClassAdaptive", "ClassAdaptive"),
    ("unknown option", dict(type="IgnoreBand", low=0.1, top=0.9), "IgnoreBand.*top"),
    ("no score", 90, r"min_score is 90; a score lies in \[0, 1\]"),
    ("band upside down", dict(type="IgnoreBand", low=0.9, high=0.5), "use 0 <= low < high"),
    ("band below 0", dict(type="IgnoreBand", low=-0.1, high=0.5), "use 0 <= low < high"),
    ("no classes", dict(type="ClassAdaptive", num_classes=0), "num_classes is 0"),
    ("lowest above τ", dict(type="ClassAdaptive", num_classes=2, lowest=0.95), "lowest=0.95"),
    ("decay 1", dict(type="ClassAdaptive", num_classes=2, decay=1.0), r"share in \[0, 1\)"),
    ("unknown effect", dict(type="ClassAdaptive", num_classes=2, effect="sum"), "use 'share' or 'count'"),
]


@pytest.mark.parametrize(("spec", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_specs_are_named_in_one_line(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Selection.of(spec)
    assert "\n" not in str(caught.value)
