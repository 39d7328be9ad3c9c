"""Muon for the hidden matrices, AdamW for everything else, as one optimizer that Lightning can hold.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) orthogonalizes the momentum of each weight matrix;
the kernel of a convolution counts as the matrix `[out, in * kernel]`. PyTorch's takes the matrices one by one and
always multiplies in bfloat16, at which processors without it are far slower than at float32; `BatchedMuon` takes those
of one shape together, in what the device is fast at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .model_files import fast_bf16

Chooser = Callable[[str, nn.Parameter], bool]


def block_matrices(name: str, parameter: nn.Parameter) -> bool:
    """The 2-D weights of a transformer's blocks: what Muon is for."""
    return name.startswith("transformer_blocks.") and name.endswith(".weight") and parameter.ndim == 2


def kernels(name: str, parameter: nn.Parameter) -> bool:
    """Every weight with two or more axes: the kernels of a convolutional codec."""
    return parameter.ndim >= 2


class BatchedMuon(torch.optim.Muon):
    """`torch.optim.Muon`, its options and state, with all matrices of one shape in the same products."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step; the gradients are there already."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, matrices in shapes.items():
                momentum = torch.stack([self._momentum(p, group) for p in matrices])
                updates = orthogonal(momentum, group["ns_coefficients"], group["ns_steps"])
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(matrices, updates.to(momentum.dtype), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _momentum(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        """The momentum of a matrix after its gradient, with a look ahead."""
        assert p.grad is not None
        if "momentum_buffer" not in self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffer = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Matrices `[M, rows, columns]` with all singular values near 1: the quintic Newton-Schulz iteration."""
    a, b, c = coefficients
    x = matrices.bfloat16() if fast_bf16(matrices.device) else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on chosen weights, `torch.optim.AdamW` on the rest.

    The groups of Muon hold views of the weights as matrices, whose gradients appear in `step` alone: a caller who clips
    them reaches AdamW's parameters. Muon needs no clipping, since the size of a gradient does not change its step.

    Args:
        model: what is trained.
        lr: learning rate of Muon; scaled per matrix by `max(1, rows / columns) ** 0.5`.
        adamw_lr: learning rate of AdamW.
        weight_decay: of both; vectors (norms, biases) are not decayed.
        chosen: `chosen(name, parameter)` says which weights go to Muon.
    """

    def __init__(
        self, model: nn.Module, lr: float, adamw_lr: float, weight_decay: float, chosen: Chooser = block_matrices
    ) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.matrices = [p for name, p in named if chosen(name, p)]
        others = [p for name, p in named if not chosen(name, p)]
        self.flat = [nn.Parameter(p.data.view(len(p), -1)) for p in self.matrices]  # the same storage, as matrices
        self.muon = BatchedMuon(self.flat, lr=lr, weight_decay=weight_decay, adjust_lr_fn="original")
        self.adamw = torch.optim.AdamW(
            [
                {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
                {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=adamw_lr,
            betas=(0.9, 0.95),
        )
        super().__init__(self.matrices + others, {})
        self._share_groups()

    def _share_groups(self) -> None:
        """One list of groups, whose learning rates a schedule sets for both."""
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both; `closure` computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for flat, p in zip(self.flat, self.matrices, strict=True):
            flat.data = p.data.view(len(p), -1)  # where a checkpoint or `.to()` moved the storage
            flat.grad = None if p.grad is None else p.grad.view(len(p), -1)
        self.muon.step()
        self.adamw.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of all parameters."""
        for p in self.matrices:
            p.grad = None if set_to_none else (p.grad.zero_() if p.grad is not None else None)
        for flat in self.flat:
            flat.grad = None
        self.adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both, by name."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores both; the shared parameter groups are kept shared."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()
