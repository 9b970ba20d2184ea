"""`data_policy=dict(...)` of a config: what a run does about bad images and leaks; and classes named once."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mmengine.config import Config

from ssod.engine.mistakes import suggest
from ssod.errors import UserError, check_choice

FEW_BAD = 3  # bad images that any dataset may have, however small it is
# Datasets of ours that take the config's classes where they name none.
_INHERITING = ("LabeledCoco", "UnlabeledCoco", "UnlabeledImages")


@dataclass(frozen=True)
class DataPolicy:
    """What to do about data that are not as they should be.

    on_bad_image: "skip" draws another training image where one can't be read, "raise" stops the run at the
    first. Validation images always stop it · max_bad_fraction: with "skip", the part of each dataset's images
    that may be bad, in [0, 1]; above 0 it always admits `FEW_BAD` of them · allow_leaks: True reports images
    that are both labeled and unlabeled, or trained on and tested on; False refuses them.
    """

    on_bad_image: str = "skip"
    max_bad_fraction: float = 0.01
    allow_leaks: bool = False

    @staticmethod
    def of(config: Mapping[str, Any]) -> "DataPolicy":
        """The policy of a config, the default for one without; UserError for what it can't be."""
        given = dict(config.get("data_policy") or {})
        known = [field.name for field in fields(DataPolicy)]
        for name in given:
            if name not in known:
                near = suggest(name, known)
                raise UserError(f"data_policy has no option {name!r}{near} (it takes {', '.join(known)})")
        policy = DataPolicy(**given)
        check_choice("data_policy", "on_bad_image", policy.on_bad_image, ("raise", "skip"))
        fraction = policy.max_bad_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
            raise UserError(f"data_policy.max_bad_fraction is {fraction!r}: a number between 0 and 1")
        if not isinstance(policy.allow_leaks, bool):
            raise UserError(f"data_policy.allow_leaks is {policy.allow_leaks!r}: use True or False")
        return policy

    def as_config(self) -> dict[str, Any]:
        """The policy as a config holds it."""
        return asdict(self)

    def most_bad(self, num_images: int) -> int:
        """How many bad images a dataset of that many may have."""
        if self.on_bad_image == "raise" or not self.max_bad_fraction:
            return 0
        return max(FEW_BAD, math.floor(self.max_bad_fraction * num_images + 1e-9))


def share_classes(config: Config) -> None:
    """Gives the classes to datasets that name no `metainfo`: those of the labeled images, else `classes`."""
    parts = [
        part for name in ("train", "val", "test") for part in _datasets(config.get(f"{name}_dataloader"))
    ]
    named = [part.metainfo["classes"] for part in parts if (part.get("metainfo") or {}).get("classes")]
    classes = named[0] if named else config.get("classes")
    if not classes:
        return
    for part in parts:
        if part.get("type") in _INHERITING and not part.get("metainfo"):
            part["metainfo"] = {"classes": tuple(classes)}


def _datasets(node: Any) -> Iterator[Any]:
    """All dataset configs below a dataloader's or a wrapper's config."""
    if not isinstance(node, Mapping):
        return
    below = [node.get("dataset"), *(node.get("datasets") or ())]
    for each in below:
        if isinstance(each, Mapping):
            yield each
            yield from _datasets(each)
