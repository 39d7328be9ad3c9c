"""Windows over long clips, loops without a seam: on toys whose answer is known."""

import numpy as np
import pytest
import torch

from counterpoint.diffusion.sampling import draw_noise, make_scheduler, sample
from counterpoint.diffusion.windows import busy, circular, decode_chunks, join, slide, spans
from counterpoint.modalities.clip import Clip, Track

SHAPES = {"video": (40, 2, 3), "force": (40, 1, 4)}


@pytest.mark.parametrize(
    ("slots", "beyond", "expected"),
    [
        (5, True, [(0, 5)]),
        (16, True, [(0, 16)]),
        (17, True, [(0, 16), (8, 24)]),
        (24, True, [(0, 16), (8, 24)]),
        (25, True, [(0, 16), (8, 24), (16, 32)]),
        (25, False, [(0, 16), (8, 24), (9, 25)]),
    ],
)
def test_spans(slots, beyond, expected):
    assert spans(slots, 16, beyond) == expected


def cumulative(noise, grid, given):
    """A toy window: every unknown slot is the one before plus its own noise; a known one stays."""
    out = {}
    for name, x in noise.items():
        known = torch.zeros(x.shape[1], dtype=torch.bool) if grid is None else grid.known[name][0]
        rows = []
        for t in range(x.shape[1]):
            rows.append(given[name][:, t] if known[t] else x[:, t] + (rows[-1] if rows else 0))
        out[name] = torch.stack(rows, 1)
    return out


def toy(slots, known=(), seed=3):
    windows = spans(slots, 16)
    noise = draw_noise({n: (windows[-1][1], *s[1:]) for n, s in SHAPES.items()}, [seed])
    cells = {n: torch.zeros(windows[-1][1], dtype=torch.bool) for n in noise}
    for name in known:
        cells[name][:] = True
    clean = {n: torch.full_like(x, 7.0) for n, x in noise.items()}
    return noise, cells, clean, windows


def test_a_window_goes_on_where_the_one_before_ended():
    noise, cells, clean, windows = toy(40)
    walk = list(slide(cumulative, noise, cells, clean, windows))
    assert [stop for stop, _ in walk] == [16, 24, 32, 40]
    latents = walk[-1][1]
    for name, x in noise.items():
        assert torch.allclose(latents[name], x.cumsum(1), atol=1e-4)


def test_a_longer_clip_begins_in_the_same_way():
    *_, (_, short) = slide(cumulative, *toy(21))
    *_, (_, long) = slide(cumulative, *toy(37))
    assert all(torch.equal(short[n][:, :21], long[n][:, :21]) for n in short)


def test_given_rows_stay_and_finished_windows_are_skipped():
    *_, (_, latents) = slide(cumulative, *toy(24, known=("video",)))
    assert (latents["video"] == 7).all()
    assert not (latents["force"] == 7).any()
    noise, cells, clean, windows = toy(40, known=("video", "force"))
    assert busy(cells, windows) == 0
    cells["force"][35:] = False
    assert busy(cells, windows) == 1
    *_, (_, latents) = slide(cumulative, noise, cells, clean, windows)
    assert (latents["force"][:, :35] == 7).all()
    assert not (latents["force"][:, 35:] == 7).any()


def smooth(name, latents, sigma):
    """The exact velocity of a smooth Gaussian process over the slots of a window; its two ends are independent."""
    out = {}
    for key, x in latents.items():
        slots, level = x.shape[1], sigma[key][0, 0].clamp(1e-3, 1 - 1e-3)
        apart = (torch.arange(slots)[:, None] - torch.arange(slots)).float()
        cov = torch.exp(-0.5 * (apart / 2.0) ** 2) + 1e-4 * torch.eye(slots)
        gain = torch.linalg.inv((1 - level) ** 2 * cov + level**2 * torch.eye(slots))
        clean = torch.einsum("ts,bskc->btkc", (1 - level) * cov @ gain, x)
        noise = (x - (1 - level) * clean) / level
        out[key] = noise - clean
    return out


@pytest.mark.parametrize(("slots", "length"), [(16, 16), (7, 16), (40, 16)])
def test_a_loop_has_no_seam(slots, length):
    noise = draw_noise({"video": (slots, 4, 16)}, range(4))

    def jumps(denoiser):
        x = sample(denoiser, noise, make_scheduler(), 20)["video"]
        step = (x.roll(-1, 1) - x).square().mean((0, 2, 3))  # [T]; the last one is the seam
        return float(step[-1] / step[:-1].mean())

    assert jumps(circular(smooth, slots, length)) < 1.5
    if slots <= length:
        assert jumps(smooth) > 4


def test_a_circular_denoiser_averages_and_keeps_sigma_in_place():
    seen = []

    def echo(name, latents, sigma):
        seen.append((name, latents["x"].shape[1]))
        return {"x": latents["x"] * sigma["x"][:, :, None, None]}

    x, sigma = torch.randn(2, 10, 1, 3), torch.rand(2, 10)
    out = circular(echo, 10, 4)("conditional", {"x": x}, {"x": sigma})["x"]
    assert torch.allclose(out, x * sigma[:, :, None, None], atol=1e-6)
    assert seen == [("conditional", 4)] * 5


def test_join():
    parts = [Clip(sensor={"force": Track(np.full((1, 4), i, np.float32), 100.0, i * 0.04, ("z",))}) for i in range(3)]
    force = join(parts).sensor["force"]
    assert (force.samples, force.start, force.names) == (12, 0.0, ("z",))
    assert force.values[0, ::4].tolist() == [0, 1, 2]


class Level:
    """A decoder that hears its whole chunk: the sound is the mean of all latents given."""

    def decode(self, latents):
        x = latents["audio"].mean((2, 3))  # [B, T]
        sound = x.mean(1, keepdim=True).expand_as(x).repeat_interleave(2560, 1).numpy()
        return [Clip(audio=Track(row[None], 16000.0)) for row in sound]


@pytest.mark.parametrize("loop", [False, True])
def test_chunks_go_over_into_one_another(loop):
    ramp = torch.sin(torch.arange(32) / 32 * 2 * torch.pi)[None, :, None, None]
    clips = [clips[0] for clips in decode_chunks(Level(), iter([(32, {"audio": ramp})]), ["audio"], 32, 8, loop)]
    assert [round(clip.audio.start / 0.16) for clip in clips] == [0, 8, 16, 24]
    sound = join(clips).audio.values[0]
    jumps = np.abs(np.diff(np.concatenate([sound, sound[:1]] if loop else [sound])))
    seams = [i * 8 * 2560 - 1 for i in range(1, 5 if loop else 4)]
    assert np.ptp(sound[[8 * 2560 * i + 20000 for i in range(4)]]) > 0.5  # what would be jumps
    assert jumps[seams].max() < 0.01
