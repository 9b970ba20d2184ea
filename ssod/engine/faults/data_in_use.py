"""Which images a run uses: their hashes, the split they belong to, and that all processes have the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import get_world_size

from ssod.data.split_manifest import find_split, hash_of_ids
from ssod.engine.processes import agree
from ssod.errors import UserError


def describe_data(dataloader: Any) -> dict[str, Any]:
    """`batch` and `split` of result.json, from the datasets and the sampler that are in use.

    Raises UserError where the files are not those that the manifest beside them describes.
    """
    sources = sources_of(dataloader)
    counts = list(getattr(dataloader.sampler, "counts", [dataloader.batch_size]))
    return {
        "batch": {"labeled": counts[0], "unlabeled": sum(counts[1:])},
        "split": {
            **_drawn_as(sources),
            "num_labeled": len(sources[0]),
            "num_unlabeled": sum(len(source) for source in sources[1:]),
            "ids_sha256": ids_sha256(sources[0]),
        },
    }


def check_agreement(dataloader: Any) -> None:
    """Raises UserError, on every process, unless all have the same labeled and unlabeled images."""
    if get_world_size() == 1:
        return
    for number, source in enumerate(sources_of(dataloader)):
        what = (
            f"{'unlabeled' if number else 'labeled'} images ({getattr(source, 'ann_file', '') or 'dataset'})"
        )
        agree(what, f"{len(source)} images, ids {ids_sha256(source)[:12]}")


def sources_of(dataloader: Any) -> list[Any]:
    """The datasets of a loader: the labeled one first, then those without boxes."""
    dataset = dataloader.dataset
    return list(getattr(dataset, "datasets", [dataset]))


def ids_sha256(dataset: Any) -> str:
    """The hash of the ids of a dataset's images: of its part of the file, before `filter_cfg` drops any.

    So a result names the same split as the manifest does, whatever a run leaves out of it.
    """
    if _takes_all(dataset) and hasattr(dataset, "part_sha256"):
        return str(dataset.part_sha256)
    return hash_of_ids(dataset.get_data_info(index)["img_id"] for index in range(len(dataset)))


def _takes_all(dataset: Any) -> bool:
    """Whether mmengine's `indices` take no further part of a dataset."""
    return getattr(dataset, "_indices", None) is None


def _drawn_as(sources: Sequence[Any]) -> dict[str, Any]:
    """`protocol`, `percent` and `fold`, from the manifest beside the labeled file; "file" without one."""
    found = _split_of(sources[0], "labeled")
    for source in sources[1:]:
        other = _split_of(source, "unlabeled")
        if found and other and _overlap(found[1], other[1]):
            labeled, unlabeled = (found[1][part]["file"] for part in ("labeled", "unlabeled"))
            raise UserError(
                f"labeled images are of split {found[0]}, unlabeled ones of {other[0]} of the same file, so "
                f"they overlap: name the two files of one split, {labeled} and {unlabeled}"
            )
    if found is None:
        return {"protocol": "file", "percent": None, "fold": None}
    return {key: found[1].get(key) for key in ("protocol", "percent", "fold")}


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries are different splits of one file."""
    same = one.get("source") == other.get("source")
    return same and one["labeled"]["ids_sha256"] != other["labeled"]["ids_sha256"]


def _split_of(dataset: Any, part: str) -> tuple[str, dict[str, Any]] | None:
    """The split whose part a dataset is, checked; None for a dataset that is no whole file of a split."""
    whole = getattr(dataset, "only_ids", None) is None and getattr(dataset, "except_ids", None) is None
    if not getattr(dataset, "ann_file", None) or not whole or not _takes_all(dataset):
        return None
    found = find_split(dataset.ann_file, part)
    if found is not None and found[1][part]["ids_sha256"] != ids_sha256(dataset):
        raise UserError(
            f"{dataset.ann_file} was changed: its images are not those of split {found[0]} in the "
            "manifest.json beside it; write it again with tools/split_data.py, or give it another name"
        )
    return found
