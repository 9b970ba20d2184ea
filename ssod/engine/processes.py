"""The processes of a run: which launcher started them, how they find each other, what one does for all."""

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    init_dist,
    is_distributed,
    is_main_process,
)

from ssod.errors import UserError

PATIENCE = 1800.0  # seconds; process 0 evaluates a large validation set while the others wait
GRACE = 30.0  # seconds by which an exchange outlasts the rank watch, which knows more


def choose_launcher(wanted: str | None = None) -> str:
    """What is wanted, else "pytorch" under torchrun, "slurm" under srun with tasks, or "none"."""
    environment = os.environ
    if wanted and wanted != "none":
        return wanted
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return "pytorch"
    # sbatch sets SLURM_NTASKS for its script, too, which is one process; a step has this one.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return "slurm"
    return "none"


def timeout_of(config: Config) -> float:
    """Seconds without progress after which a run ends: `env_cfg.dist_cfg.timeout`; UserError for others."""
    given: Mapping[str, Any] = (config.get("env_cfg") or {}).get("dist_cfg") or {}
    unknown = sorted(set(given) - {"timeout"})
    if unknown:
        raise UserError(
            f"env_cfg.dist_cfg has no option {unknown[0]!r}; its only one is timeout, in seconds (the "
            "backend is nccl with GPUs, gloo without)"
        )
    seconds = given.get("timeout", PATIENCE)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        raise UserError(f"env_cfg.dist_cfg.timeout is {seconds!r}; give a number of seconds above 0")
    return float(seconds)


def start_processes(launcher: str, timeout: float = PATIENCE) -> None:
    """Joins the processes that the launcher started: over nccl with GPUs, over gloo without.

    timeout: seconds, see `timeout_of`; an exchange between processes fails `GRACE` later.
    """
    if launcher == "none" or is_distributed():
        return
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if launcher == "slurm":  # not mmengine's own start: see slurm_variables
        ours = slurm_variables(os.environ)
        if gpus:  # a task that was given a GPU of its own sees no other, and calls it 0
            ours["LOCAL_RANK"] = str(int(ours["LOCAL_RANK"]) % gpus)
        os.environ.update(ours)
        launcher = "pytorch"
    if gpus:
        init_dist(launcher, backend="nccl", timeout=timeout + GRACE, **_meeting_after_a_restart())
        return
    missing = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name not in os.environ]
    if missing:
        raise UserError(f"--launcher {launcher}: {missing[0]} is not set; start with torchrun or srun")
    torch.distributed.init_process_group(
        "gloo", timeout=timedelta(seconds=timeout + GRACE), **_meeting_after_a_restart()
    )


def _meeting_after_a_restart() -> dict[str, Any]:
    """Where processes meet that torchrun has restarted, for init_process_group; {} for its own way.

    torchrun's agent keeps its store over restarts, and with it the addresses of the processes that are no
    more: who reads them before they are written anew is refused. A prefix for each life keeps them apart.
    Agents on several machines may count differently; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 helps.
    """
    environment = os.environ
    life = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    kept = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if life == "0" or not kept or environment.get("GROUP_WORLD_SIZE") != "1":
        return {}
    distributed: Any = torch.distributed
    store, rank, world_size = next(distributed.rendezvous("env://"))
    return dict(store=distributed.PrefixStore(f"life/{life}", store), rank=rank, world_size=world_size)


def was_restarted() -> bool:
    """Whether torchrun has restarted the run, on every process alike.

    An agent that joins later has not restarted its own processes, so any process's count will do.
    """
    counts: list[int] = all_gather_object(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
    return max(counts) > 0


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would set for this task of a SLURM step: RANK ... MASTER_PORT.

    The step's numbers, not the job's. The processes meet where the first task runs: on the step's first
    node, which is not always the job's first nor the one that srun was typed on. mmengine asks `scontrol`
    for the job's, which containers lack, and always takes port 29500, on which two jobs of a node collide.
    MASTER_ADDR and MASTER_PORT stay where they are set. UserError outside of a step.
    """
    theirs = dict(
        RANK="SLURM_PROCID",
        WORLD_SIZE="SLURM_STEP_NUM_TASKS",
        LOCAL_RANK="SLURM_LOCALID",
        MASTER_ADDR="SLURM_STEP_NODELIST",
        JOB="SLURM_JOB_ID",
        STEP="SLURM_STEP_ID",
    )
    missing = [name for name in theirs.values() if name not in environment]
    if missing:
        raise UserError(f"--launcher slurm: {missing[0]} is not set; start with srun")
    found = {ours: environment[name] for ours, name in theirs.items()}
    # Below what a system takes for its own connections (Linux: 32768 and up).
    port = 10_000 + (int(found.pop("JOB")) + 4_999 * int(found.pop("STEP"))) % 20_000
    found["MASTER_ADDR"] = environment.get("MASTER_ADDR") or first_host(found["MASTER_ADDR"])
    found["MASTER_PORT"] = environment.get("MASTER_PORT") or str(port)
    return found


def first_host(nodes: str) -> str:
    """The first host of SLURM's list of nodes: "gpu007" of "gpu[007-012,031],login1"."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]


def on_main(work: Callable[[], Any]) -> Any:
    """What `work` returns on the first process, on all of them; so with its UserError."""
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[1] = error.one_line
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    return outcome[0]


def on_all(work: Callable[[], Any]) -> Any:
    """What `work` returns on each process; the first UserError of any is raised on all of them."""
    value, said = None, None
    try:
        value = work()
    except UserError as error:
        said = error.one_line
    first = next((each for each in all_gather_object(said) if each is not None), None)
    if first is not None:
        raise UserError(first)
    return value


def agree(what: str, value: str) -> None:
    """Raises UserError on every process unless all have the same value; `what` begins the sentence."""
    values: list[str] = all_gather_object(value)
    strange = next((rank for rank, each in enumerate(values) if each != values[0]), None)
    if strange is not None:
        raise UserError(
            f"{what} differ between processes: process 0 has {values[0]}, process {strange} has "
            f"{values[strange]}; give all machines the same files"
        )
