"""Each method with bounds so low that random networks have something to teach; a new one adds its line."""

from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "SoftTeacher": dict(floor=0.3, rpn_min_score=0.4, cls_min_score=0.4, box_max_spread=0.5),
    "MeanTeacher": dict(rpn_weight=1.0),
    "FixMatch": dict(min_score=0.4),
    "FixMatch, teacher": dict(min_score=0.4, labeler="teacher"),
    "UnbiasedTeacher": dict(min_score=0.4),
    "STAC": dict(min_score=0.4),
}
