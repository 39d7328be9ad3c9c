"""Video as latents and back: a small causal video VAE (diffusers' `AutoencoderKLLTXVideo`) on whole slots.

Shapes: B batch, T slots, F = 4·T frames, H = W pixels (a multiple of 16, 64 in every preset), S = (H/16)² tokens
of a slot (row-major, 16 at 64×64), C = 64 channels of a token: 2×2 cells of the latent grid with C/4 channels each.

First-frame policy, the same in training and inference: LTX's VAE maps 1 + 4k frames to 1 + k latents, so one copy of
the first frame is put before the clip and latent 0, which describes nothing else, is dropped; before decoding the
first latent is repeated, and the first frame of the result is dropped. So latent k describes frames 4k … 4k+3, slot k.
The encoder is causal (latent k never sees a later slot); the decoder looks at both neighbours. A codec may have a
refiner, which moves the encoder's latents to where the decoder rebuilds more from them (`video_refiner`).
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from torch import Tensor, nn
from torch.nn import functional

from .audio import forget_origin
from .clip import ClipError
from .video_refiner import LatentRefiner, Rebuild

PATCH = 2  # pixels folded into channels before the first convolution
CELLS = 2  # cells of the latent grid that a token is wide
SPATIAL = 16  # pixels a token is wide: the patch, two halvings and the cells
STRETCH = 32  # slots that are refined at a time, for the memory's sake
CONTEXT = 2  # slots at either side that a stretch sees beside them


class VideoCodec(nn.Module):
    """A video VAE whose latents are tokens of slots, with mean 0 and standard deviation 1 per channel.

    Args:
        vae: an LTX VAE that compresses 4 × in time and 8 × in space; its buffers `latents_mean` and `latents_std`
            hold the statistics of the raw latents (`fit_statistics`).
        refiner: improves what the encoder says; None: its latents are taken as they are.
    """

    frames_per_slot = 4
    tokens_per_slot = 16

    def __init__(self, vae: AutoencoderKLLTXVideo, refiner: LatentRefiner | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.refiner = refiner
        self.channels: int = CELLS * CELLS * vae.config["latent_channels"]

    @classmethod
    def create(
        cls,
        widths: tuple[int, int, int],
        layers: tuple[int, int, int] = (0, 1, 1),
        decoder_layers: tuple[int, int, int] = (0, 1, 1),
        channels: int = 64,
    ) -> VideoCodec:
        """A new codec; each width doubles the one before it, because LTX's residual up- and downsampling halves them.

        Args:
            widths: channels on the grids 32×32 (a frame), 16×16 (two frames) and 8×8 (four frames) of a 64×64 video.
            layers, decoder_layers: residual blocks on each of the three grids.
            channels: of a token; a cell of the 8×8 grid has a quarter of them.

        Raises:
            ClipError: if the widths don't double, or the channels can't be shared among the cells of a token.
        """
        if channels <= 0 or channels % (CELLS * CELLS):
            raise ClipError(f"video codec channels {channels}: a multiple of {CELLS * CELLS} is needed")
        fine, middle, coarse = widths
        if middle != 2 * fine or coarse != 2 * middle:
            raise ClipError(f"video codec widths {widths}: each has to be twice the one before")
        vae = AutoencoderKLLTXVideo(
            latent_channels=channels // (CELLS * CELLS),
            block_out_channels=(fine, middle, coarse),
            decoder_block_out_channels=(middle, coarse),
            down_block_types=("LTXVideo095DownBlock3D",) * 2,
            downsample_type=("spatiotemporal",) * 2,
            layers_per_block=layers,
            decoder_layers_per_block=decoder_layers,
            spatio_temporal_scaling=(True, True),
            decoder_spatio_temporal_scaling=(True, True),
            decoder_inject_noise=(False,) * 3,
            upsample_residual=(True, True),
            upsample_factor=(2, 2),
            patch_size=PATCH,
            encoder_causal=True,
            decoder_causal=False,
        )
        return cls(vae)

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the raw latents, both [B, C/4, T, H/8, W/8] (one log-variance for all channels)."""
        _check_video(video)
        video = torch.cat([video[:, :, :1], video], dim=2)  # [B, 3, 1 + 4T, H, W]
        mean, logvar = self.vae.encoder(video)[:, :, 1:].chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def reconstruct(self, raw: Tensor) -> Tensor:
        """Video [B, 3, 4T, H, W], not clamped, from raw latents [B, C/4, T, H/8, W/8]."""
        return _decoded(self.vae.decoder, raw)

    def encode(self, video: Tensor, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Latents [B, T, S, C] of a video [B, 3, 4T, H, W] in [−1, 1].

        Args:
            video: frames; their number a multiple of 4, height = width a multiple of 16.
            sample: draw from the posterior instead of taking its mean.
            generator: the randomness of that draw (on the CPU or on the video's device).

        Raises:
            ClipError: if the number of frames or the size is illegal; nothing is padded in silence.
        """
        mean, logvar = self.posterior(video.to(self.vae.dtype))
        if sample:
            device = mean.device if generator is None else generator.device
            noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
            mean = mean + noise.to(mean.device) * (0.5 * logvar).exp()
        standard = self.standard(mean)
        return _to_tokens(standard if self.refiner is None else self._refined(self.refiner, standard, video))

    def decode(self, latents: Tensor) -> Tensor:
        """Video [B, 3, 4T, H, W] in [−1, 1] from latents [B, T, S, C]; S is a square number.

        Raises:
            ClipError: if the latents have another shape.
        """
        side = round(latents.shape[2] ** 0.5) if latents.ndim == 4 else 0
        if side == 0 or side * side != latents.shape[2] or latents.shape[3] != self.channels or latents.shape[1] == 0:
            shape = list(latents.shape)
            raise ClipError(f"video latents {shape}: expected [batch, slots, a square number, {self.channels}]")
        return self.reconstruct(self.raw(self.grid(latents.to(self.vae.dtype)))).clamp(-1.0, 1.0)

    def standard(self, raw: Tensor) -> Tensor:
        """Raw latents with mean 0 and deviation 1 in each channel; any [B, C/4, T, H/8, W/8]."""
        shift, scale = self._statistics(raw)
        return (raw - shift) / scale

    def raw(self, standard: Tensor) -> Tensor:
        """What `standard` was made of."""
        shift, scale = self._statistics(standard)
        return standard * scale + shift

    @staticmethod
    def grid(latents: Tensor) -> Tensor:
        """Tokens [B, T, S, C], S a square number, as the standard latents [B, C/4, T, H/8, W/8] that they stand for."""
        side = round(latents.shape[2] ** 0.5)
        cells = latents.transpose(2, 3).unflatten(3, (side, side))  # [B, T, C, H/16, W/16]
        return functional.pixel_shuffle(cells, CELLS).transpose(1, 2)

    def rebuild(self) -> Rebuild:
        """The decoder as a function from standard latents [B, C/4, T, H/8, W/8] to video, with gradients to be trusted:
        where bfloat16 ones cannot be (`training_dtype`), a copy of it in float32."""
        decoder, dtype = self.vae.decoder, self.vae.dtype
        if dtype == torch.bfloat16 and training_dtype(self.vae.device) == torch.float32:
            decoder, dtype = copy.deepcopy(decoder).float(), torch.float32

        return lambda standard: _decoded(decoder, self.raw(standard).to(dtype))

    def _refined(self, refiner: LatentRefiner, standard: Tensor, video: Tensor) -> Tensor:
        """Standard latents [B, C/4, T, H/8, W/8] of a whole video, refined clip by clip and stretch by stretch."""
        rebuild, moving, slots = self.rebuild(), moving_region(video), standard.shape[2]
        result = torch.empty_like(standard, dtype=torch.float32)
        for clip in range(len(standard)):
            for start in range(0, slots, STRETCH):
                stop = min(start + STRETCH, slots)
                first, last = max(0, start - CONTEXT), min(stop + CONTEXT, slots)
                frames = slice(self.frames_per_slot * first, self.frames_per_slot * last)
                refined = refiner.refine(
                    rebuild,
                    standard[clip : clip + 1, :, first:last],
                    video[clip : clip + 1, :, frames],
                    moving[clip : clip + 1, :, frames],
                )
                result[clip, :, start:stop] = refined[0, :, start - first : stop - first]
        return result.to(standard)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.vae.get_buffer("latents_mean"), self.vae.get_buffer("latents_std")
        return mean.to(like).view(1, -1, 1, 1, 1), std.to(like).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def fit_statistics(self, videos: list[Tensor]) -> None:
        """Measure mean and standard deviation of every latent channel on a list of videos [B, 3, 4T, H, W]."""
        means = [self.posterior(video.to(self.vae.dtype))[0].float().transpose(0, 1).flatten(1) for video in videos]
        std, mean = torch.std_mean(torch.cat(means, dim=1), dim=1)  # [C]
        self.vae.get_buffer("latents_mean").copy_(mean)
        self.vae.get_buffer("latents_std").copy_(std.clamp_min(1e-4))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write `config.json` and `diffusion_pytorch_model.safetensors` (diffusers' layout), in `dtype` if given.

        A refiner goes into `refiner/` in the same way.
        """
        vae = copy.deepcopy(self.vae)
        nn.Module.to(vae, dtype=dtype or self.vae.dtype)
        vae.save_pretrained(folder)
        forget_origin(Path(folder) / "config.json")
        if self.refiner is not None:
            self.refiner.save_pretrained(Path(folder) / "refiner", dtype=dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> VideoCodec:
        """Read a saved codec (in eval mode).

        Raises:
            ClipError: if the folder holds no codec.
        """
        if not (Path(folder) / "config.json").is_file():
            raise ClipError(f"{folder}: no video codec here (config.json is missing)")
        vae = AutoencoderKLLTXVideo.from_pretrained(
            str(folder), torch_dtype=dtype, local_files_only=True, low_cpu_mem_usage=False
        )
        refiner = None
        if (Path(folder) / "refiner" / "config.json").is_file():
            refiner = LatentRefiner.from_pretrained(
                str(Path(folder) / "refiner"), torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
            )
        return cls(vae, refiner).eval()


def _decoded(decoder: nn.Module, raw: Tensor) -> Tensor:
    """The first latent is repeated, and the frame that comes of the copy dropped."""
    return decoder(torch.cat([raw[:, :, :1], raw], dim=2))[:, :, 1:]


def _to_tokens(raw: Tensor) -> Tensor:
    """[B, C/4, T, H/8, W/8] → [B, T, S, C]."""
    cells = functional.pixel_unshuffle(raw.transpose(1, 2), CELLS)  # [B, T, C, H/16, W/16]
    return cells.flatten(3).transpose(2, 3).contiguous()


def _check_video(video: Tensor) -> None:
    shape = list(video.shape)
    if video.ndim != 5 or video.shape[1] != 3:
        raise ClipError(f"video {shape}: expected [batch, 3, frames, height, width]")
    frames, height, width = video.shape[2:]
    if frames == 0 or frames % VideoCodec.frames_per_slot:
        raise ClipError(f"video {shape}: the number of frames has to be a multiple of {VideoCodec.frames_per_slot}")
    if height != width or height == 0 or height % SPATIAL:
        raise ClipError(f"video {shape}: height and width have to be equal, and a multiple of {SPATIAL}")


def training_dtype(device: torch.device | str) -> torch.dtype:
    """The fastest dtype in which gradients of `Conv3d` can be trusted: the guard of the recipe that trains the codec.

    oneDNN's bf16 weight gradients of 3-D convolutions are wrong or crash on processors with AMX (torch 2.12.1), unless
    the process was started with `ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16`; there the answer is float32. On a processor
    with avx512_bf16 but no AMX they are right (a test compares them with float32) and take 0.6 of the time.
    """
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if torch.device(device).type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return torch.float32
    capped = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() == "AVX512_CORE_BF16"
    return torch.float32 if torch.cpu._is_amx_tile_supported() and not capped else torch.bfloat16


def training_autocast(device: torch.device | str, dtype: torch.dtype | None = None) -> torch.autocast:
    """Autocast to `dtype`, or to the fastest whose gradients can be trusted (`training_dtype`); none to float32."""
    dtype = training_dtype(device) if dtype is None else dtype
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


def moving_region(video: Tensor, threshold: float = 0.1) -> Tensor:
    """Where something moves: [B, 1, F, H, W] bool for a video [B, 3, F, H, W] in [−1, 1].

    A pixel belongs to it in the frames in which one of its colours differs by more than `threshold` (0.1 is 13 of 255
    grey levels) from the background, the median of that pixel over all frames given.
    """
    background = video.float().median(dim=2, keepdim=True).values  # [B, 3, 1, H, W]
    return (video.float() - background).abs().amax(dim=1, keepdim=True) > threshold


def psnr(video: Tensor, other: Tensor, moving: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of each clip [B], the peak being the range of [−1, 1] (2).

    Args:
        video, other: [B, 3, F, H, W] in [−1, 1].
        moving: [B, 1, F, H, W] bool, the pixels that count (`moving_region`); a clip without any gives NaN.
    """
    error = (video.float() - other.float()).square()  # [B, 3, F, H, W]
    weight = torch.ones_like(error) if moving is None else moving.to(error).expand_as(error)
    mse = (error * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return 10.0 * torch.log10(4.0 / mse.clamp_min(1e-12))
