"""Pictures of pseudo labels for the page: the last validation's, as data URIs, in bounded number and size."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

from ssod.study.report.tables import Report, Table
from ssod.study.results import Run

FOLDER = "pseudo_labels"
TELEMETRY = {"calibration.png": "calibration of scores", "spread.png": "spread against IoU"}
MOST_PICTURES = 12  # of a page
MOST_BYTES = 250_000  # of a picture; larger ones are scaled down
MOST_WIDTH = 900


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its size in pixels and what stands below it."""

    uri: str
    width: int
    height: int
    label: str
    detail: str


def pictures(report: Report) -> tuple[dict[int, list[Picture]], int]:
    """{place of the table: its pictures}, one run for each row; and how many pictures found no room."""
    found: dict[int, list[Picture]] = {place: [] for place in range(len(report.tables))}
    left, unshown = MOST_PICTURES, 0
    for place, table in enumerate(report.tables):
        for path, label, detail in _paths(table):
            picture = _read(path, label, detail) if left else None
            if picture is not None:
                found[place].append(picture)
                left -= 1
            elif not left:
                unshown += 1
    return found, unshown


def _paths(table: Table) -> list[tuple[Path, str, str]]:
    """Of each row the first run's last picture, then what telemetry drew."""
    views, drawn = [], []
    for line in table.lines:
        for run in line.row.runs:
            last = last_picture(run)
            if last is not None:
                views.append((last, line.row.label, f"{run.name}, iteration {_number(last):,}"))
                folder = last.parent
                drawn += [
                    (folder / name, line.row.label, f"{what}, {run.name}")
                    for name, what in TELEMETRY.items()
                    if (folder / name).is_file()
                ]
                break
    return views + drawn


def last_picture(run: Run) -> Path | None:
    """The picture of the run's last validation."""
    paths = list((run.training_folder / FOLDER).glob("iter_*.jpg"))
    return max(paths, key=_number, default=None)


def _number(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else -1


def _read(path: Path, label: str, detail: str) -> Picture | None:
    """The picture, made smaller where it is too large; None where it can't be read."""
    from PIL import Image

    try:
        content = path.read_bytes()
        image = Image.open(io.BytesIO(content))
        kind = str(image.format).lower()
        if kind not in ("jpeg", "png") or len(content) > MOST_BYTES or image.width > MOST_WIDTH:
            content, kind = _smaller(image.convert("RGB")), "jpeg"
            image = Image.open(io.BytesIO(content))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(uri, image.width, image.height, label, detail)


def _smaller(image: object) -> bytes:
    """The image as a JPEG within the bounds, or as near to them as a small one gets."""
    width = MOST_WIDTH
    while True:
        smaller = image.copy()  # type: ignore[attr-defined]
        smaller.thumbnail((width, 4 * width))
        file = io.BytesIO()
        smaller.save(file, "JPEG", quality=80)
        if file.tell() <= MOST_BYTES or width < 200:
            return file.getvalue()
        width = width * 3 // 4
