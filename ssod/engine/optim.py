"""The optimizer wrapper: precision, clipping, and no step along a gradient that is not finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from ssod.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]


@OPTIM_WRAPPERS.register_module()
class GuardedOptimWrapper(OptimWrapper):  # type: ignore[misc]
    """mmengine's OptimWrapper, which skips a step whose gradient holds an inf or a nan.

    So a student can't be poisoned by one bad batch, nor its teacher through it. A loss that is not finite
    makes the whole gradient nan, on every process through the average and for all of an accumulated step: all
    leave out the same step, and nobody has to ask. The norm of the gradient, and the count of steps that were
    left out, stay on the device (mmengine's wrapper waits for the norm in every step).

    precision: of the forward pass under autocast; "float16" scales the loss · clip_grad:
    dict(max_norm=..., norm_type=2) or None · accumulative_counts: iterations per optimizer step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict[str, Any] | None = None,
        precision: Precision = "float32",
    ) -> None:
        if precision not in ("float32", "bfloat16", "float16"):
            raise UserError(f"optim_wrapper: precision {precision!r}; use 'float32', 'bfloat16' or 'float16'")
        if clip_grad is not None and set(clip_grad) - {"max_norm", "norm_type"}:
            raise UserError(
                f"optim_wrapper: clip_grad={dict(clip_grad)}; its keys are max_norm and norm_type"
            )
        super().__init__(optimizer, accumulative_counts)
        self.max_norm = float((clip_grad or {}).get("max_norm", float("inf")))
        self.norm_type = float((clip_grad or {}).get("norm_type", 2))
        for group in optimizer.param_groups:
            if group.get("fused") and group.get("momentum") and group.get("dampening"):
                raise UserError("optim_wrapper: fused SGD can't skip a step with dampening; set fused=False")
        self.precision = precision
        self.device = self._parameters()[0].device.type
        if precision == "float16" and self.device == "cpu":
            raise UserError("optim_wrapper: precision 'float16' needs a GPU; use 'bfloat16'")
        self.scaler = torch.amp.GradScaler() if precision == "float16" else None
        self.grad_norm: Tensor | None = None  # of the last step, on the device
        self.norms: Tensor | None = None  # (P,) the same for each parameter that had a gradient
        self.with_gradient: list[nn.Parameter] = []  # those P parameters
        self.taken: Tensor | None = None  # whether the last step was, where the device alone decides
        self.steps = 0  # taken or left out
        self.left_out: Tensor | int = 0  # of them, for a gradient that was not finite; on the device

    def _parameters(self) -> list[nn.Parameter]:
        return [each for group in self.optimizer.param_groups for each in group["params"]]

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Adds the gradient of `loss`, scaled for float16; nan everywhere if the loss is not finite."""
        loss = loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)
        super().backward(loss if self.scaler is None else self.scaler.scale(loss), **options)

    def step(self, **options: Any) -> None:
        """Clips and steps; leaves parameters and state alone if the gradient is not finite."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        parameters = [each for each in self._parameters() if each.grad is not None]
        if not parameters:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        self.norms = torch.stack(torch._foreach_norm(gradients, self.norm_type))
        self.grad_norm = torch.linalg.vector_norm(self.norms, self.norm_type)
        self.with_gradient = parameters
        self.steps += 1
        finite = torch.isfinite(self.grad_norm)
        self.left_out = self.left_out + (~finite).long()
        if self.max_norm < float("inf"):
            factor = (self.max_norm / (self.grad_norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, factor)
        _fill_momentum(self.optimizer)
        self._step_if(finite, options)

    def first_bad_gradient(self) -> nn.Parameter | None:
        """The first parameter whose gradient in the last step was not finite; waits for the device."""
        if self.norms is None or torch.isfinite(self.norms).all():
            return None
        return self.with_gradient[int(torch.isfinite(self.norms).int().argmin())]

    def skips_on_device(self) -> bool:
        """Whether the optimizer leaves out a step when it is told so on the device: then nobody waits."""
        return self.device != "cpu" and getattr(self.optimizer, "_step_supports_amp_scaling", False)

    def _step_if(self, finite: Tensor, options: dict[str, Any]) -> None:
        """Steps; a bad gradient is noticed by the scaler, by the fused kernel, or by the host."""
        if self.scaler is not None:
            # It looks at single elements, of which a norm that overflows may have none that is bad.
            for found_inf in self.scaler._found_inf_per_device(self.optimizer).values():
                found_inf.copy_(~finite)
            self.taken = finite
            self.scaler.step(self.optimizer, **options)
            self.scaler.update()
        elif self.skips_on_device():
            self.taken = finite
            self.optimizer.found_inf = (~finite).float()
            self.optimizer.grad_scale = None
            self.optimizer.step(**options)
        elif finite:  # sync: an optimizer that is not fused has no other way
            self.optimizer.step(**options)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """A context for the forward pass: autocast, and no gradient exchange between steps."""
        enabled = self.precision != "float32"
        dtype = getattr(torch, self.precision) if enabled else None
        with (
            super().optim_context(model),
            torch.autocast(self.device, dtype=dtype, enabled=enabled),
        ):
            yield

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and the loss scale if any, as mmengine's AMP wrapper has it."""
        state: dict[str, Any] = super().state_dict()
        if self.scaler is not None:
            state["loss_scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what `state_dict` returned, with this or another precision, on this or another device."""
        scale = state_dict.pop("loss_scaler", None)
        if scale and self.scaler is not None:
            self.scaler.load_state_dict(scale)
        groups = self.optimizer.param_groups
        kernels = [{key: group[key] for key in ("fused", "foreach") if key in group} for group in groups]
        # torch would take over the saved kernel, too; not every one leaves out a step that is not finite.
        saved = [{**group, **own} for group, own in zip(state_dict["param_groups"], kernels, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": saved})


def _fill_momentum(optimizer: Optimizer) -> None:
    """Gives parameters that are to step for the first time a momentum of 0, as fused SGD needs it.

    Left to itself it makes bare memory of it and counts on its kernel to fill that, which a skipped step does
    not; and it takes no parameter whose first gradient comes later than others'. Without dampening a
    momentum of 0 is what a first step has. Adam's averages begin with 0 anyway.
    """
    if not isinstance(optimizer, SGD):
        return
    for group in optimizer.param_groups:
        for each in group["params"] if group.get("fused") and group["momentum"] else ():
            if each.grad is not None and optimizer.state[each].get("momentum_buffer") is None:
                optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)


def iterations_a_step(wrapper: Any) -> int:
    """How many iterations gather the gradient of one optimizer step."""
    count: int = getattr(wrapper, "_accumulative_counts", 1)
    return count


def at_optimizer_step(runner: Any) -> bool:
    """Whether the optimizer stepped in this iteration, so that no gradient waits for more to come."""
    done: int = runner.iter + 1
    return done % iterations_a_step(runner.optim_wrapper) == 0 or done == runner.max_iters
