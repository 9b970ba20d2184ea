"""Writes a report in the formats that are asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ssod.engine.writing import replacing
from ssod.errors import UserError, check_choice
from ssod.study.report.tables import Report

FORMATS = ("md", "tex", "csv", "html")


def write_report(report: Report, out: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """The files written below `out`, made if need be: `report.html` and so on, and `runs.csv`.

    Raises UserError for an unknown format and a folder that can't be written.
    """
    folder = Path(out)
    for name in formats:
        check_choice("report", "format", name, FORMATS)
    texts = {file: make for name in dict.fromkeys(formats) for file, make in _makers(name).items()}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in texts.items():
            with replacing(folder / name) as partial:
                partial.write_text(make(report), encoding="utf-8", errors="backslashreplace")
            written.append(folder / name)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None
    return written


def _makers(name: str) -> dict[str, Callable[[Report], str]]:
    """{file: what gives its text}; imports what a format needs, which the others don't."""
    if name == "csv":
        from ssod.study.report import frames

        return {
            "report.csv": lambda report: frames.to_csv(frames.averages(report)),
            "runs.csv": lambda report: frames.to_csv(frames.runs(report)),
        }
    if name == "html":
        from ssod.study.report import page

        return {"report.html": page.write}
    from ssod.study.report import latex, markdown

    return {"report.md": markdown.write} if name == "md" else {"report.tex": latex.write}
