"""Feed-forwards: one for every token, or a few of many experts that a router chooses for each token.

Legend: `N` tokens, `D` width, `E` experts, `k` experts active for a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .attention import zero_


class FeedForward(nn.Module):
    """Two-layer perceptron with a GELU: the exact one, since PyTorch computes tanh slowly on CPUs."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, hidden)
        self.proj_out = zero_(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(nn.functional.gelu(self.proj_in(x)))


class Experts(nn.Module):
    """Feed-forwards among which a router chooses `active` for each token; no token is ever dropped.

    An expert's hidden width is `hidden / active`, so that a token passes as many units as in a dense feed-forward. The
    weights of the chosen experts add up to `active`: with equal weights they are one dense feed-forward cut in slices.
    A single active expert is weighed by its probability instead (Switch, arXiv:2101.03961), since a weight that is
    always 1 would teach the router nothing. No capacity: what a token gets depends on that token alone.

    Args:
        width: channels of a token, `D`.
        hidden: hidden units that a token passes.
        experts: how many there are, `E`.
        active: how many a token passes, `k`.

    Raises:
        ValueError: more active than there are, or a hidden width that does not part evenly.
    """

    def __init__(self, width: int, hidden: int, experts: int, active: int) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise ValueError(f"active: {active} of {experts} experts")
        if hidden % active:
            raise ValueError(f"active: a hidden width of {hidden} does not part into {active}")
        self.active = active
        self.router = nn.Parameter(0.02 * torch.randn(experts, width))  # no `weight`: it belongs to AdamW, not to Muon
        self.experts = nn.ModuleList(FeedForward(width, hidden // active) for _ in range(experts))

    def forward(self, x: Tensor, balance: list[Tensor] | None = None) -> Tensor:
        """`[…, D]` → `[…, D]`.

        Args:
            x: tokens.
            balance: a list that gets the load-balancing loss of these tokens; None: it isn't computed.
        """
        tokens = x.flatten(0, -2)  # [N, D]
        chances = self.chances(tokens)  # [N, E]
        weights, chosen = chances.topk(self.active, dim=-1)  # [N, k]
        if self.active > 1:
            weights = self.active * weights / weights.sum(dim=-1, keepdim=True)
        flat = chosen.flatten()  # [N·k]
        counts = flat.bincount(minlength=len(self.experts))  # [E]
        if balance is not None:
            balance.append(balance_loss(chances, counts))
        order = flat.argsort(stable=True)  # [N·k], by expert
        inverse = order.argsort()
        repeated = tokens[:, None].expand(-1, self.active, -1).flatten(0, 1)  # [N·k, D]
        parts = Reorder.apply(repeated, order, inverse).split(counts.tolist())
        outs = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])  # [N·k, D]
        outs = Reorder.apply(outs, inverse, order).unflatten(0, (-1, self.active))  # [N, k, D]
        return (outs * weights.to(outs.dtype)[..., None]).sum(dim=1).view(x.shape)

    def chances(self, tokens: Tensor) -> Tensor:
        """Probability of each expert in fp32, also under autocast: `[N, D]` → `[N, E]`."""
        with torch.autocast(tokens.device.type, enabled=False):
            return nn.functional.linear(tokens.float(), self.router.float()).softmax(dim=-1)


def balance_loss(chances: Tensor, counts: Tensor) -> Tensor:
    """`E · Σ f·p` of GShard and Switch (arXiv:2006.16668, 2101.03961): 1 if uniform, up to `E / k` if always the same.

    Args:
        chances: `[N, E]`, probabilities; the gradient goes through their mean `p`.
        counts: `[E]`, how often each expert was chosen; `f` is its share.
    """
    shares = counts / counts.sum().clamp_min(1)  # [E]
    return len(counts) * (shares * chances.mean(dim=0)).sum()


class Reorder(torch.autograd.Function):
    """Rows `[N, D]` in another order. The gradient is gathered too: that of an index is a scatter, slow on CPUs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore
        order, inverse = ctx.saved_tensors
        return Reorder.apply(gradient, inverse, order), None, None
