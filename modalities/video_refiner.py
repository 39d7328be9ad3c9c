"""Better latents for a video codec: a few learned steps of gradient descent through its decoder.

An encoder guesses latents in one pass, and for what moves its guess is poor: descent finds latents from which the same
decoder rebuilds much more. The refiner is a small network that looks at latents and at the gradient of the decoder's
error, and says where to step (learned descent, arXiv:1606.04474; iterative amortized inference, arXiv:1807.09356).

Shapes: video [B, 3, 4T, H, W] in [−1, 1]; standard latents (mean 0, deviation 1) [B, C, T, H/8, W/8].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .audio import SavedModel

FINE = 30.0  # a second look at the gradients, so much enlarged: they differ by orders of magnitude
PLAIN = 0.03  # of the gradient's asinh, the step of an untrained refiner
FARTHEST = 0.5  # of a step, in each number of a latent
Rebuild = Callable[[Tensor], Tensor]  # standard latents → video, differentiable


class LatentRefiner(SavedModel):
    """The steps that latents take, from themselves, the gradient of the error, and how far they have moved.

    Convolutions are depthwise and over time and space, products pointwise: 13,000 parameters for 16 channels.

    Args:
        channels: of the latents.
        width, layers: of the network.
        steps: that are taken; each costs the decoder forward and back.
        moving_weight: of the error of a pixel that moves, against 1 for the background.
        squared: weight of the squared error beside the absolute one.
    """

    scale: Tensor

    @register_to_config
    def __init__(
        self,
        channels: int = 16,
        width: int = 48,
        layers: int = 2,
        steps: int = 2,
        moving_weight: float = 10.0,
        squared: float = 10.0,
    ) -> None:
        super().__init__()
        self.steps, self.moving_weight, self.squared = steps, moving_weight, squared
        heard = 4 * channels  # latents, gradient, enlarged gradient, distance moved
        self.spread_in = nn.Conv3d(heard, heard, 3, padding=1, groups=heard)
        self.proj_in = nn.Conv3d(heard, width, 1)
        self.spread = nn.ModuleList(nn.Conv3d(width, width, 3, padding=1, groups=width) for _ in range(layers))
        self.proj = nn.ModuleList(nn.Conv3d(width, width, 1) for _ in range(layers))
        self.proj_out = nn.Conv3d(width, channels, 1)
        self.direct = nn.Conv3d(channels, channels, 1, bias=False)
        with torch.no_grad():  # at first, plain descent
            for parameter in self.proj_out.parameters():
                parameter.zero_()
            self.direct.weight.copy_(-PLAIN * torch.eye(channels).view_as(self.direct.weight))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, latents: Tensor, gradient: Tensor, moved: Tensor) -> Tensor:
        """One step, all [B, C, T, H/8, W/8]; none of its numbers is beyond `FARTHEST`."""
        coarse, fine = torch.asinh(gradient), torch.asinh(FINE * gradient) / 4.0
        heard = torch.cat([latents, coarse, fine, moved], dim=1)
        hidden = nn.functional.gelu(self.proj_in(heard + self.spread_in(heard)))
        for spread, proj in zip(self.spread, self.proj, strict=True):
            hidden = hidden + nn.functional.gelu(proj(spread(hidden)))
        return FARTHEST * torch.tanh((self.proj_out(hidden) + self.direct(coarse)) / FARTHEST)

    def error(self, rebuilt: Tensor, video: Tensor, weight: Tensor) -> Tensor:
        """Weighted absolute and squared error of each pixel's colours, [B, 3, 4T, H, W]."""
        error = rebuilt.float() - video
        return weight * (error.abs() + self.squared * error.square())

    def gradient(self, rebuild: Rebuild, latents: Tensor, video: Tensor, weight: Tensor) -> tuple[Tensor, float]:
        """Of the error by the latents, in units of `scale`; and the error itself, a weighted mean."""
        with torch.enable_grad():
            latents = latents.detach().requires_grad_(True)
            error = self.error(rebuild(latents), video, weight).sum()
            (gradient,) = torch.autograd.grad(error, latents)
        return gradient / self.scale, error.item() / (3.0 * weight.sum().item())

    @torch.no_grad()
    def refine(self, rebuild: Rebuild, latents: Tensor, video: Tensor, moving: Tensor) -> Tensor:
        """Latents from which `rebuild` makes more of `video`, float32.

        Args:
            rebuild: the codec's decoder, of standard latents.
            latents: the encoder's.
            moving: [B, 1, 4T, H, W] bool, the pixels whose error counts most (`video.moving_region`).
        """
        weight = 1.0 + (self.moving_weight - 1.0) * moving.float()
        latents, video = latents.float(), video.float()
        moved = torch.zeros_like(latents)
        for _ in range(self.steps):
            gradient, _ = self.gradient(rebuild, latents + moved, video, weight)
            moved = moved + self(latents + moved, gradient, moved)
        return latents + moved

    def learn(
        self, rebuild: Rebuild, latents: Tensor, video: Tensor, weight: Tensor, stay: float
    ) -> tuple[Tensor, list[float]]:
        """A loss to learn from, and the errors before, between and after the steps.

        Each step answers for the error right after it: its gradient by the latents is what the next step hears anyway,
        so that learning costs one more pass of the decoder than `refine`. The value is the last error.

        Args:
            weight: [B, 1, 4T, H, W] of each pixel.
            stay: price of moving: half of it times the squared distance from the encoder's latents, in units of
                `scale`, so that what the error hardly hears stays as it is.
        """
        moved, step, loss, errors = torch.zeros_like(latents), None, torch.zeros(()), []
        for k in range(self.steps + 1):
            gradient, error = self.gradient(rebuild, latents + moved, video, weight)
            errors.append(error)
            if step is not None:
                loss = loss + (step * (gradient + stay * moved)).mean()
            if k < self.steps:
                step = self(latents + moved, gradient, moved)
                moved = moved + step.detach()
        return loss - loss.detach() + errors[-1], errors
