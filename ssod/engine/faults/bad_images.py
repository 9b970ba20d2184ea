"""The hook that counts the images a run could not read, names each once, and stops at too many."""

import json
from collections.abc import Iterable
from typing import Any

from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.hooks import Hook

from ssod.data.bad_images import Replaced, notes_of
from ssod.data.decode import read_image
from ssod.engine.faults.data_in_use import sources_of
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.optim import at_optimizer_step
from ssod.errors import BadImageError, UserError

SAID = 3  # files that the console names; the log names all
NAMED = 8  # files that an error names
LISTED = 1000  # files that result.json names
_STATE = "bad_images"  # in a checkpoint's message hub


class BadImages(Hook):  # type: ignore[misc]
    """Keeps `bad_images` of result.json: `count, replaced, files`, of the whole run, over all processes.

    `count` is of files, those without an image's header included, which no draw ever reaches; `replaced` is
    of draws. Above the policy's bound for a dataset the run ends with UserError, its checkpoint written: with
    one process after the step, with several after the next log interval or checkpoint, all of them together.
    A resumed run takes up the count as its checkpoint has it, without the files that can be read by now.
    """

    priority = "VERY_HIGH"

    def __init__(self, policy: DataPolicy, record: dict[str, Any]) -> None:
        self.policy = policy
        self.record = record
        self.files: dict[tuple[int, str], str] = {}  # (dataset, path) -> reason
        self.replaced = 0
        self.too_many = ""  # the sentence that ends the run
        self.waiting: list[list[Replaced]] = []  # notes that the other processes don't know yet

    def before_train(self, runner: Any) -> None:
        """Takes up a resumed run's count, and adds what the datasets left out."""
        datasets = sources_of(runner.train_dataloader)
        self.sizes = [len(each) + len(getattr(each, "left_out", ())) for each in datasets]
        state = json.loads(runner.message_hub.get_info(_STATE, "{}"))
        self.replaced = state.get("replaced", 0)
        before = [Replaced(*each) for each in state.get("files", ())]
        left_out = [
            Replaced(i, *each) for i, one in enumerate(datasets) for each in getattr(one, "left_out", ())
        ]
        self._add(runner, [each for each in before if each.source < len(datasets) and _is_bad(each)])
        self._add(runner, left_out)
        self._check()
        self.refuse_too_many()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Takes the notes that a batch carries."""
        notes = notes_of(data_batch)
        if not notes:
            return
        if get_world_size() > 1:
            self.waiting += notes
        else:
            self._take(runner, notes)

    def after_scalars(self, runner: Any, iteration: int, scalars: dict[str, float]) -> None:
        """Tells the other processes, at each log interval."""
        self._exchange(runner)

    def before_capture(self, runner: Any) -> None:
        """Tells the other processes, before each checkpoint."""
        self._exchange(runner)

    def after_train(self, runner: Any) -> None:
        """Tells the other processes, before the run ends."""
        self._exchange(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Puts the count where a resumed run finds it."""
        files = [[source, path, reason] for (source, path), reason in self.files.items()]
        state = json.dumps({"replaced": self.replaced, "files": files})
        checkpoint["message_hub"]["runtime_info"][_STATE] = state
        checkpoint["message_hub"]["resumed_keys"][_STATE] = True

    def _exchange(self, runner: Any) -> None:
        if get_world_size() > 1:
            everyone = all_gather_object(self.waiting)
            self.waiting = []
            self._take(runner, [notes for each in everyone for notes in each])

    def _take(self, runner: Any, notes: list[list[Replaced]]) -> None:
        """Counts draws and files, and stops the run at too many."""
        self.replaced += len(notes)
        known = len(self.files)
        self._add(runner, (Replaced(*file) for note in notes for file in note))
        if len(self.files) > known:
            self._check()

    def _add(self, runner: Any, files: Iterable[Replaced]) -> None:
        """Names files that are new, and keeps the record up to date."""
        for file in files:
            if (file.source, file.path) in self.files:
                continue
            self.files[(file.source, file.path)] = file.reason
            if is_main_process():
                runner.logger.warning(f"image {file.path} can't be read: {file.reason}")
            if len(self.files) <= SAID:
                runner.call_hook("after_notice", text=f"image {file.path} can't be read: {file.reason}")
            elif len(self.files) == SAID + 1:
                runner.call_hook("after_notice", text="more images can't be read: see train.log")
        listed = [
            {"source": _name(source), "path": path, "reason": reason}
            for (source, path), reason in list(self.files.items())[:LISTED]
        ]
        self.record["bad_images"] = {"count": len(self.files), "replaced": self.replaced, "files": listed}

    def _check(self) -> None:
        """Notes where a dataset has more bad images than the policy admits."""
        for source, size in enumerate(self.sizes):
            bad = [(path, reason) for (number, path), reason in self.files.items() if number == source]
            most = self.policy.most_bad(size)
            if len(bad) <= most:
                continue
            shown = ", ".join(f"{path} ({reason})" for path, reason in bad[:NAMED])
            more = f", ... {len(bad)} in all, see train.log" if len(bad) > NAMED else ""
            self.too_many = (
                f"{len(bad)} of {size} {_name(source)} images can't be read, and {most} may be: {shown}"
                f"{more}; restore or remove them, or raise data_policy.max_bad_fraction"
            )

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the run where there are too many, once the optimizer has stepped, with a checkpoint."""
        if self.too_many and at_optimizer_step(runner):
            runner.train_loop.stop_training = True

    def refuse_too_many(self) -> None:
        """Raises UserError where there were too many."""
        if self.too_many:
            raise UserError(self.too_many)


def _name(source: int) -> str:
    return "unlabeled" if source else "labeled"


def _is_bad(file: Replaced) -> bool:
    """Whether a file still can't be read, or is an image as narrow as before (`too_narrow`)."""
    try:
        height, width = read_image(file.path).shape[:2]
    except BadImageError:
        return True
    return file.reason.endswith(f"{width} x {height} px")
