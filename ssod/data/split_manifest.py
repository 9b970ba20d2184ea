"""manifest.json beside split files: which images they hold, how these were drawn, and from what."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssod.data.file_cache import cache_file, turn
from ssod.errors import UserError

MANIFEST = "manifest.json"
SCHEMA = 1
PARTS = ("labeled", "unlabeled", "held_out")
Splits = dict[str, dict[str, Any]]


def hash_of_ids(ids: Iterable[Any]) -> str:
    """The SHA-256 of the sorted ids, one a line: equal hashes mean the same images."""
    return hashlib.sha256("\n".join(str(each) for each in sorted(ids)).encode()).hexdigest()


def read_splits(folder: str | Path) -> Splits:
    """The splits of the folder's manifest by their names, such as `instances_train2017.1@10`.

    Empty where there is no manifest. Raises UserError for one that can't be read.
    """
    path = Path(folder, MANIFEST)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"manifest {path} can't be read ({reason}): split the data again") from None
    ours = isinstance(content, dict) and content.get("schema") == SCHEMA
    splits = content.get("splits") if ours else None
    if not isinstance(splits, dict):
        return {}  # a manifest.json of something else
    for name, split in splits.items():
        _check_split(path, name, split)
    return dict(splits)


def _check_split(path: Path, name: str, split: Any) -> None:
    """Raises UserError for an entry without what we read of it."""
    parts = [split.get(part) for part in PARTS] if isinstance(split, dict) else [None]
    whole = all(isinstance(each, dict) and {"file", "ids_sha256"} <= each.keys() for each in parts if each)
    if not isinstance(split, dict) or not parts[0] or not whole or "protocol" not in split:
        raise UserError(f"manifest {path} has a broken entry {name!r}: remove the entry, or split again")


def find_split(ann_file: str | Path, part: str) -> tuple[str, dict[str, Any]] | None:
    """The name and the entry of the split whose labeled or unlabeled part a file is; None if of none."""
    path = Path(ann_file)
    for name, split in read_splits(path.parent).items():
        if split.get(part) and split[part]["file"] == path.name:
            return name, split
    return None


def claim(folder: Path, splits: Mapping[str, dict[str, Any]]) -> None:
    """Enters splits into the folder's manifest, before their files are written.

    An interrupted call can so be repeated. Raises UserError, and enters nothing, where the folder holds a
    file of the same name that another source, protocol or set of options made.
    """
    # Calls for other splits may run beside this one; the lock leaves no file in the user's folder.
    with turn(cache_file("manifest", str(folder.resolve()))):
        _claim(folder, splits)


def _claim(folder: Path, splits: Mapping[str, dict[str, Any]]) -> None:
    present = read_splits(folder)
    for name, split in splits.items():
        old = present.get(name)
        if old is not None and _identity(old) != _identity(split):
            source = (old.get("source") or {}).get("file")
            raise UserError(
                f"{folder} holds another split {name} (protocol {old['protocol']}, from {source}; this one "
                f"would differ in {_difference(old, split)}): choose another --out"
            )
    listed = {part["file"]: part["ids_sha256"] for split in present.values() for part in _parts(split)}
    for part in (part for split in splits.values() for part in _parts(split)):
        known = listed.get(part["file"])
        if known not in (None, part["ids_sha256"]):
            raise UserError(
                f"{folder} holds another {part['file']}, which other splits there use: choose another --out"
            )
        if known is None and (folder / part["file"]).exists():
            raise UserError(
                f"{folder / part['file']} exists and no {MANIFEST} of ours says what it is: choose another "
                "--out, or remove it"
            )
    path, partial = folder / MANIFEST, folder / f".{MANIFEST}.partial"
    if path.exists() and not present:
        raise UserError(f"{path} is not a list of splits: choose another --out")
    content = {"schema": SCHEMA, "splits": dict(sorted({**present, **splits}.items()))}
    try:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path} ({error.strerror}): check --out and the disk") from None


def _parts(split: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [split[part] for part in PARTS if split.get(part)]


def _identity(split: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without what may differ between equal splits."""
    return {key: value for key, value in split.items() if key != "tool_version"}


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The keys whose values differ, the telling ones first."""
    order = ("protocol", "source", *new)
    return ", ".join(dict.fromkeys(key for key in order if old.get(key) != new.get(key)))
