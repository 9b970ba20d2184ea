"""mmengine's Runner without noise: its log goes to a file, its files to one folder."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import _ParamScheduler
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from ssod.data.workers import SteadyWorker
from ssod.engine.evaluate import prints_to
from ssod.engine.mistakes import mistakes_in_config
from ssod.engine.records.event_files import with_folders
from ssod.engine.records.writing import write_text
from ssod.models.folding import unfold_norms
from ssod.written_config import readable

LOG = "train.log"
# The hooks that mmengine adds unless their entry is None; it takes None for no other.
_ADDED_BY_MMENGINE = {
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint",
}  # fmt: skip


class SemiRunner(Runner):  # type: ignore[misc]
    """A Runner that prints nothing, writes `train.log` and `config.py`, and works on CPUs."""

    _experiment_name: str
    _log_dir: str
    _load_from: str | None
    _resume: bool
    _train_loop: Any
    _val_loop: Any
    moved: tuple[int, int] | None = None  # the iteration of a checkpoint, and what it is here: resume.py
    optim_wrapper: Any
    param_schedulers: Any

    def build_logger(self, log_level: Any = "INFO", log_file: Any = None, **options: Any) -> MMLogger:
        """A logger that writes to `<work dir>/train.log` only; Python's warnings go there, too."""
        with suppress(OSError):
            os.rmdir(self._log_dir)  # mmengine's folder with the time as its name: nothing goes there
        self._log_dir = self.work_dir
        # mmengine keeps loggers and message hubs by this name, for good: a second run in the same
        # second would get those of the first.
        self._experiment_name = f"{self._experiment_name}_{time.time_ns()}"
        logger = super().build_logger(log_level, str(Path(self.work_dir, LOG)), **options)
        logger.handlers = [each for each in logger.handlers if isinstance(each, logging.FileHandler)]
        for handler in logger.handlers:
            # Python prints a traceback where a line can't be written; whatever matters fails by itself.
            handler.handleError = _lose_line
        warnings_logger = logging.getLogger("py.warnings")
        warnings_logger.handlers = list(logger.handlers) or [logging.NullHandler()]
        warnings_logger.propagate = False
        return logger

    @staticmethod
    def build_dataloader(*given: Any, **options: Any) -> DataLoader[Any]:
        """mmengine's loader, with workers that leave the job's signals to this process."""
        loader: DataLoader[Any] = Runner.build_dataloader(*given, **options)
        if not isinstance(loader.worker_init_fn, SteadyWorker):
            loader.worker_init_fn = SteadyWorker(loader.worker_init_fn)
        return loader

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """The config's visualizer, its files in the work dir; without one, one that keeps nothing."""
        if visualizer is None:
            visualizer = {"type": "Visualizer", "vis_backends": None}
        if isinstance(visualizer, Mapping):
            visualizer = with_folders(visualizer, Path(self.work_dir))
        return super().build_visualizer(visualizer)

    def register_default_hooks(self, hooks: Any = None) -> None:
        """Registers the config's hooks; None switches any of them off."""
        chosen = {n: hook for n, hook in (hooks or {}).items() if hook or n in _ADDED_BY_MMENGINE}
        super().register_default_hooks(chosen)

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """The model on its device, exchanging gradients where there are more processes."""
        wrapped: nn.Module
        if self.cfg.get("sync_bn"):
            unfold_norms(model)  # mmengine exchanges the norms
        if not self.distributed or torch.cuda.is_available():
            wrapped = super().wrap_model(model_wrapper_cfg, model)
        else:  # mmengine names a GPU for each process, and there is none
            wrapped = MMDistributedDataParallel(
                module=revert_sync_batchnorm(model),
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get("find_unused_parameters", False),
            )
        return wrapped

    def dump_config(self) -> None:
        """Writes the resolved config to `config.py`, from which the run can be repeated."""
        if is_main_process():
            config = Config(readable(self.cfg.to_dict()))
            for name in ("work_dir", "launcher", "test_cfg"):  # of this run, not of the experiment
                config.pop(name, None)
            write_text(Path(self.work_dir, "config.py"), config.pretty_text)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """The wrapped optimizer; KeyError for one that is not registered, which mmengine would call."""
        optimizer = optim_wrapper.get("optimizer") if isinstance(optim_wrapper, Mapping) else None
        kind = optimizer.get("type") if isinstance(optimizer, Mapping) else None
        if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
            raise KeyError(f"{kind} is not in the mmengine::optimizer registry")
        return super().build_optim_wrapper(optim_wrapper)

    def _build_param_scheduler(self, scheduler: Any, optim_wrapper: Any) -> list[Any]:
        """Schedules in iterations; mmengine asks for the length of an epoch, and there are none."""
        listed = scheduler if isinstance(scheduler, (list, tuple)) else [scheduler]
        return [
            each
            if isinstance(each, _ParamScheduler)
            else PARAM_SCHEDULERS.build(
                {"end": self.max_iters, **each}, default_args={"optimizer": optim_wrapper}
            )
            for each in listed
        ]

    def _init_model_weights(self) -> None:
        """Initialises the weights; where they come from goes to the log."""
        with prints_to(self.logger.info):
            super()._init_model_weights()

    def load_or_resume(self) -> None:
        """Loads what was asked for; what mmengine prints about it goes to the log."""
        with prints_to(self.logger.info):
            super().load_or_resume()

    def resume_from(self, path: str) -> None:
        """Makes `train` go on from a checkpoint."""
        self._load_from, self._resume = path, True

    def close_log(self) -> None:
        """Closes the log's file, and lets go of it: mmengine writes on to a logger's files, open or not."""
        for handler in self.logger.handlers:
            with suppress(OSError):  # a full disk: what was not written is lost
                handler.close()
        for logger in (self.logger, logging.getLogger("py.warnings")):
            logger.handlers = [logging.NullHandler()]

    def build_all(self) -> None:
        """Builds loops, optimizer and schedules, in the order in which `train` would."""
        self._train_loop = self.build_train_loop(self._train_loop)
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        if self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
        if self._val_loop is not None:
            self._val_loop = self.build_val_loop(self._val_loop)


def _lose_line(record: logging.LogRecord) -> None:
    """Nothing: a line of the log is lost."""


def build_runner(config: Config) -> SemiRunner:
    """A runner with everything built; UserError for what the config names wrongly."""
    if "test_dataloader" in config:
        config.test_cfg = {}  # mmengine wants all three or none; tools/test.py reads the other two
    with mistakes_in_config(), prints_to(None):
        runner: SemiRunner = SemiRunner.from_cfg(config)
        runner.build_all()
    return runner


@contextmanager
def warnings_to_log() -> Iterator[None]:
    """A block whose Python warnings go to the run's log and not to the console."""
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
