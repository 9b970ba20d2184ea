"""Writes a report in the formats that are asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ssod.engine.records.writing import replacing
from ssod.errors import UserError, check_choice
from ssod.study.report.between import compare
from ssod.study.report.tables import Report

FORMATS = ("md", "tex", "csv", "html")
MARKS = {  # what stands in each file of a report, whatever its runs
    "report.md": "| run | row | seed | fold | teacher AP |",
    "report.tex": "\n% \\usepackage{booktabs}\n\n",
    "report.csv": "section,dataset,protocol,percent,",  # which reports of earlier versions have, too
    "differences.csv": "section,dataset,protocol,percent,",
    "runs.csv": "run,status,method,seed,fold",
    "report.html": "Written by ssod ",
}


def write_report(report: Report, out: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """The files written below `out`, made if need be: `report.html` and so on, and `runs.csv`.

    An earlier report is replaced. Raises UserError for an unknown format, a folder that can't be written, and
    a file of one of these names that is no report.
    """
    folder = Path(out)
    for name in formats:
        check_choice("report", "format", name, FORMATS)
    texts = {file: make for name in dict.fromkeys(formats) for file, make in _makers(name, report).items()}
    written = []
    try:
        for name in texts:
            _check_free(folder / name, MARKS[name])
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in texts.items():
            with replacing(folder / name) as partial:
                partial.write_text(make(report), encoding="utf-8", errors="backslashreplace")
            written.append(folder / name)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None
    return written


def _check_free(path: Path, mark: str) -> None:
    """Raises UserError for somebody else's file; one that is not there or is empty may be written."""
    if not path.is_file():
        return
    found = path.read_text(encoding="utf-8", errors="replace")
    if found.strip(' "\n') and mark not in found:
        raise UserError(f"{path} is no report that this tool wrote: move it away, or choose another --out")


def _makers(name: str, report: Report) -> dict[str, Callable[[Report], str]]:
    """{file: what gives its text} of a format; imports what a format needs, which the others don't."""
    if name == "csv":
        from ssod.study.report import frames

        return {
            "report.csv": lambda report: frames.to_csv(frames.averages(report)),
            "differences.csv": lambda report: frames.to_csv(frames.differences(report)),
            "runs.csv": lambda report: frames.to_csv(frames.runs(report)),
        }
    if name == "html":
        from ssod.study.report import page

        found: dict[str, Callable[[Report], str]] = {"report.html": page.write}
        if any(rows and not rows.is_small for rows in map(compare, report.tables)):  # the page refers to it
            found["differences.csv"] = _makers("csv", report)["differences.csv"]
        return found
    from ssod.study.report import latex, markdown

    return {"report.md": markdown.write} if name == "md" else {"report.tex": latex.write}
