"""One walk over the text of a COCO file: which records there are, whose they are, and where they stand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssod.data.coco_file import check_unique
from ssod.errors import UserError

# What is said of an image before anyone looked at it. Other keys may tell what is to be seen there: LVIS has
# `neg_category_ids`, exports of labeling tools have tags.
IMAGE_FACTS = frozenset(
    {"id", "file_name", "width", "height", "license", "coco_url", "flickr_url", "date_captured"}
)
_SPACE = re.compile(r"[ \t\n\r]*")


class Records:
    """What one walk over the text finds: ids and places of images and annotations, the rest as values.

    Raises UserError for what is no COCO file, ValueError for what is no JSON.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text, self.place = path, text, 0
        self.decode = json.JSONDecoder().raw_decode
        self.head: dict[str, Any] = {}
        self.sections: set[str] = set()
        self.ids: list[Any] = []
        self.spans: list[tuple[int, int]] = []
        self.bare: dict[int, str] = {}
        self.annotation_images: list[Any] = []
        self.annotation_categories: list[Any] = []
        self.annotation_spans: list[tuple[int, int]] = []
        self.crowd: list[bool] = []
        self._read()
        if self.place != len(text):
            raise json.JSONDecodeError("Extra data", text, self.place)
        check_ids(path, "images", self.ids)

    def _read(self) -> None:
        take = {"images": self._take_image, "annotations": self._take_annotation}
        for _ in self._members("{}"):
            key = self._value()
            self._symbol(":")
            if key not in take or self._symbol_ahead() != "[":
                self.head[key] = self._value()
                continue
            if key in self.sections:
                raise UserError(f"annotation file {self.path} has two lists '{key}': join them")
            self.sections.add(key)
            for number, begin in enumerate(self._members("[]")):
                record = self._value()
                if not isinstance(record, dict):
                    raise UserError(f"record {number} of '{key}' in {self.path} is no object: remove it")
                take[key](record, begin, self.place)

    def _take_image(self, record: dict[str, Any], begin: int, end: int) -> None:
        if not record.keys() <= IMAGE_FACTS:
            facts = {key: value for key, value in record.items() if key in IMAGE_FACTS}
            self.bare[len(self.ids)] = json.dumps(facts)
        self.ids.append(record.get("id"))
        self.spans.append((begin, end))

    def _take_annotation(self, record: dict[str, Any], begin: int, end: int) -> None:
        self.annotation_images.append(record.get("image_id"))
        self.annotation_categories.append(record.get("category_id"))
        self.annotation_spans.append((begin, end))
        self.crowd.append(bool(record.get("iscrowd")))

    def _members(self, brackets: str) -> Iterator[int]:
        """The place where each member of a list or object begins; who asks reads the member."""
        self._symbol(brackets[0])
        if self._symbol_ahead() == brackets[1]:
            self._symbol(brackets[1])
            return
        separators = "," + brackets[1]
        while True:
            yield self.place
            if self._symbol(separators) == brackets[1]:
                return

    def _value(self) -> Any:
        value, self.place = self.decode(self.text, self.place)
        return value

    def _symbol_ahead(self) -> str:
        return self.text[self.place : self.place + 1]

    def _symbol(self, choices: str) -> str:
        """The next character that is no space, one of the choices; goes on to the one after it."""
        place = self._after_space(self.place)
        found = self.text[place : place + 1]
        if not found or found not in choices:
            raise json.JSONDecodeError(f"Expecting {' or '.join(choices)}", self.text, place)
        self.place = self._after_space(place + 1)
        return found

    def _after_space(self, place: int) -> int:
        match = _SPACE.match(self.text, place)
        return match.end() if match else place


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a whole number or a string."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def check_ids(path: Path, section: str, ids: list[Any]) -> None:
    """Raises UserError unless all are numbers or all strings, and none is there twice."""
    wrong = next((n for n, value in enumerate(ids) if not is_id(value)), None)
    if wrong is not None:
        raise UserError(
            f"record {wrong} of '{section}' in {path} has the id {ids[wrong]!r}: give each record a number"
        )
    check_unique(path, section, ids)
