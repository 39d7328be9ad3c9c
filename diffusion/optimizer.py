"""Muon for the hidden matrices, AdamW for everything else, as one optimizer that Lightning can hold.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) orthogonalizes the momentum of each weight matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` on the 2-D weights of the transformer's blocks, `torch.optim.AdamW` on the rest.

    Args:
        model: its 2-D parameters whose name starts with `transformer_blocks.` and ends with `.weight` go to Muon.
        lr: learning rate of Muon; scaled per matrix by `max(1, rows / columns) ** 0.5`.
        adamw_lr: learning rate of AdamW.
        weight_decay: of both; vectors (norms, biases) are not decayed.
    """

    def __init__(self, model: nn.Module, lr: float, adamw_lr: float, weight_decay: float) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if _is_hidden_matrix(name, p)]
        others = [p for name, p in named if not _is_hidden_matrix(name, p)]
        self.muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="original")
        self.adamw = torch.optim.AdamW(
            [
                {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
                {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=adamw_lr,
            betas=(0.9, 0.95),
        )
        super().__init__(matrices + others, {})
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]  # shared: a schedule reaches both

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both; `closure` computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both, by name."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores both; the shared parameter groups are kept shared."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return name.startswith("transformer_blocks.") and name.endswith(".weight") and parameter.ndim == 2
