"""Pieces of HTML that the page is made of; every text that comes from a file passes through `text`."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any


def text(value: object) -> str:
    """The value as text that means nothing in HTML."""
    return escape(str(value), quote=True)


def data(content: Any) -> str:
    """The content as JSON for a script element of type application/json, which no string in it can end."""
    plain = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        plain = plain.replace(sign, f"\\u{ord(sign):04x}")
    return plain


def cell(shown: str, value: object = None, kind: str = "number") -> str:
    """A table's cell of HTML `shown`; `value` is what it is sorted by."""
    sort = "" if value is None else f' data-value="{text(value)}"'
    return f'<td class="{kind}"{sort}>{shown}</td>'


def row_header(shown: str, value: object) -> str:
    """The cell that says what a row is."""
    return f'<th scope="row" data-value="{text(value)}">{shown}</th>'


def column(name: str, place: int, kind: str = "number", extra: str = "") -> str:
    """A column's header with the button that sorts by it."""
    return (
        f'<th scope="col" class="{kind}" data-column="{place}"><button type="button">{name}'
        f'<span class="arrow" aria-hidden="true"></span></button>{extra}</th>'
    )


def table(identity: str, caption: str, head: str, body: Sequence[str], kind: str = "") -> str:
    """A sortable table in a box of its own, which scrolls where the page is narrow."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{identity}-caption">'
        f'<table class="sortable {kind}" id="{identity}">'
        f'<caption id="{identity}-caption"><span>{caption}</span></caption>'
        f"<thead>{head}</thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table></div>"
    )
