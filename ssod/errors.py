"""The exceptions that end a command with one line and no traceback: bad input, or a run that can't go on."""

from collections.abc import Sequence


class UserError(Exception):
    """Bad input: the message is one line that says what, where and how to mend it.

    Raised anywhere below `tools/`, caught only there. A message that comes back from a loader
    worker carries the worker's traceback; `one_line` recovers the sentence.
    """

    @property
    def one_line(self) -> str:
        """The sentence without the traceback that a DataLoader worker puts in front of it."""
        last = str(self).strip().splitlines()[-1] if str(self).strip() else "bad input"
        for kind in ("UserError", "BadImageError"):
            last = last.removeprefix(f"ssod.errors.{kind}: ")
        return last


class RunError(RuntimeError):
    """A run that can't go on, through no fault of the input: one line, exit code 1, no traceback.

    The line says what happened, where (iteration, file, process) and what to do; the last checkpoint is
    intact.
    """


class BadImageError(UserError):
    """An image file that can't be read: `path`, and `reason` in a few words.

    Both are lost on the way out of a loader worker, which keeps the message alone.
    """

    def __init__(self, message: str, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


def check_choice(owner: str, option: str, value: object, choices: Sequence[str], hint: str = "") -> None:
    """Raises UserError unless an option's value is one of its choices; the hint says what else would do."""
    if value not in choices:
        known = " or ".join(repr(each) for each in choices)
        raise UserError(f"{owner}: {option} {value!r}; use {known}{hint and f' ({hint})'}")
