"""How often the likelihood finds that a sound is in step: held-out clips whose sound is shifted by ±40 … ±400 ms.

    python -m counterpoint.recipes.evaluate_shift joint docs/scores/shift.json --prompts 64
    python -m counterpoint.recipes.evaluate_shift table docs/scores/shift.json

For every clip log p(sound | other tracks) at 21 shifts, one of which is none; where it is greatest is the offset found.
Beside it the same sounds with another clip's tracks, among which no offset is true, and the share of a guess. The sound
stays and the other tracks move the other way (`diffusion/offsets.py`), by whole frames of 40 ms.

What makes it cheap: a pass a noise level, with the same noise at all shifts, all of them one batch; and only levels of
much noise (logit of σ from 1 to 3: σ from .73 to .95), where the sound is not yet known from itself. More `--draws`
average the noise. Slots that a shift leaves without a recording are left out of all: 10 of 16 are judged.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.diffusion.given import group_of
from counterpoint.diffusion.likelihood import denoising_likelihood
from counterpoint.diffusion.offsets import TELLING
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import SLOT_SECONDS
from counterpoint.recipes.evaluate_joint import commit, tensors, write_scores
from counterpoint.recipes.readings import HeldOut
from counterpoint.recipes.resumable import Arrays, Clock, Say, begin, parser, run

REACH = 10  # shifts on both sides, each by a frame
FRAME = 0.04  # seconds
MARGIN = math.ceil(REACH * FRAME / SLOT_SECONDS)  # slots at either end that are left out
SIDES = (("video", "sensor"), ("video",), ("sensor",))
BITS = 1 / np.log(2)


def evaluate(
    model: str | Path, json_path: Path, prompts: int = 64, seed: int = 0, work: Path = Path("runs/evaluation"),
    workers: int = 2, levels: int = 4, low: float = TELLING[0], high: float = TELLING[1], draws: int = 1,
    dtype: str = "auto", captions: bool = False, sides: Sequence[Sequence[str]] = SIDES, say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Offsets found in every clip, written after each choice of other tracks.

    Args:
        levels: of the noise, even in logit σ from `low` to `high`.
        draws: of the noise; what they give is averaged.
        dtype: of the network.
        captions: whether the network is told the clips' captions.
        sides: the tracks beside which the sound is judged.

    Raises:
        ClipError: a model without sound, or a file with scores of something else.
    """
    pipeline = CounterpointPipeline.from_pretrained(model, dtype=dtype)
    pipeline.transformer.requires_grad_(False)
    pipeline.codecs.names(("audio",))
    facts = {"levels": levels, "low": low, "high": high, "draws": draws, "dtype": dtype, "captions": captions}
    scores, store = begin(model, json_path, work, prompts=prompts, seed=seed, **facts)
    held = HeldOut.create(pipeline, work, scores, workers, say)
    words = held.captions if captions else [""] * prompts
    bound = partial(nats, pipeline, levels=levels, low=low, high=high, draws=draws)
    found = scores.setdefault("beside", {})
    for given in sides:
        name = " + ".join(given)
        if name in found:
            continue
        clock, rows = Clock(), []
        moved = lru_cache(maxsize=2)(partial(_moved, held, given))  # one clip's `another` is the next one's `own`
        for i in range(prompts):
            key = f"{'+'.join(given)}_{i:05d}"
            rows.append(store.arrays(key, lambda i=i, moved=moved: _judge(held, i, moved, words[i], bound)))
            say(f"{name}: {i + 1} of {prompts}")
        found[name] = summary(rows) | {"seconds_per_clip": clock.seconds / prompts}
        write_scores({**scores, "shifts_ms": shifts_ms(), "commit": commit()}, json_path)
    return {**scores, "shifts_ms": shifts_ms()}


def shifts_ms() -> list[int]:
    """−400 … 400 ms, of the sound against the others."""
    return [round(k * FRAME * 1000) for k in range(-REACH, REACH + 1)]


def earlier(values: Tensor, rate: float, axis: int = -1) -> Tensor:
    """A track `[…, n, …]`, its time on `axis`, earlier by each of the shifts, `[2·REACH + 1, …, n, …]`; its ends are
    repeated."""
    times = torch.arange(values.shape[axis])
    steps = [round(k * FRAME * rate) for k in range(-REACH, REACH + 1)]
    return torch.stack([values.index_select(axis, (times + step).clamp(0, len(times) - 1)) for step in steps])


def _judge(held: HeldOut, index: int, moved: Callable[[int], dict[str, Tensor]], text: str, bound: Any) -> Arrays:
    """A clip's sound beside its `own` tracks, and beside those of `another` clip: nats `[2·REACH + 1]`.

    Args:
        moved: by a clip's number what `_moved` makes of it.
    """
    sound = held.latents["audio"][index, MARGIN:-MARGIN].expand(2 * REACH + 1, -1, -1, -1)
    names = {"own": index, "another": (index + 1) % held.prompts}
    return {name: bound(text, {"audio": sound, **moved(i)}).cpu().numpy() for name, i in names.items()}


def _moved(held: HeldOut, given: Sequence[str], index: int) -> dict[str, Tensor]:
    """Latents of a clip's given tracks at every shift, `{modality: [2·REACH + 1, T', S, C]}`."""
    clip, moved = held.clips[index], {}
    for name, values in tensors([clip]).items():
        if group_of(name) in given:  # video [3, F, H, W], sensors [channels, n]
            shifts = earlier(values[0], clip.tracks[name].rate, 1 if name == "video" else -1)
            moved[name] = shifts.to(held.pipeline.device)
    return {name: x[:, MARGIN:-MARGIN].cpu() for name, x in held.pipeline.codecs.encode(moved).items()}


def nats(
    pipeline: CounterpointPipeline, text: str, latents: Mapping[str, Tensor], levels: int, low: float, high: float,
    draws: int = 1,
) -> Tensor:  # fmt: skip
    """log p(sound | all else) as far as these levels tell, up to a constant: `[B]`.

    Args:
        latents: `{modality: [B, T, S, C]}`, `audio` among them.
        draws: of the noise, whose results are averaged; the rest as for `diffusion.likelihood.denoising_likelihood`.
    """
    clean = {name: x.to(pipeline.device) for name, x in latents.items()}
    denoiser = pipeline.denoiser([text] * len(clean["audio"]))
    known = {name: torch.full(x.shape[:2], name != "audio", device=x.device) for name, x in clean.items()}
    found = [denoising_likelihood(denoiser, clean, known, levels, draw, low, high) for draw in range(draws)]
    return torch.stack([one.log_prob for one in found]).mean(0)


def summary(rows: Sequence[Arrays]) -> dict[str, Any]:
    """What the shifts found say.

    Args:
        rows: of every clip, `own` and `another`, nats at each shift.

    Returns:
        `own` and `another`: `at_0` and `within_40_ms` (shares of clips), `median_ms` of the absolute offset,
        `offsets_ms` of every clip; and `bits`, the mean of log2 p(sound | others) at every shift less that at none.
    """
    found = {name: np.stack([row[name] for row in rows]) for name in ("own", "another")}
    bits = {name: (x - x[:, REACH : REACH + 1]).mean(0) * BITS for name, x in found.items()}
    return {name: offsets(x) | {"bits": bits[name].tolist()} for name, x in found.items()}


def offsets(values: np.ndarray) -> dict[str, Any]:
    """Where each row of `[N, 2·REACH + 1]` is greatest."""
    found = np.array(shifts_ms())[values.argmax(1)]
    step = shifts_ms()[REACH + 1]
    return {
        "at_0": float((found == 0).mean()),
        "within_40_ms": float((np.abs(found) <= step).mean()),
        "median_ms": float(np.median(np.abs(found))),
        "offsets_ms": found.tolist(),
    }


def table(scores: Mapping[str, Any]) -> str:
    """The scores as two tables in Markdown: what was found, and how the offsets are spread."""
    return "\n\n".join("\n".join(rows) for rows in (_rows(scores), _spread_rows(scores)))


def _rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield "| sound beside | at 0 ms | another clip's | a guess | within 40 ms | another clip's | a guess |"
    yield "|---|---|---|---|---|---|---|"
    guess = 1 / len(scores["shifts_ms"])
    for name, found in scores["beside"].items():
        own, other = found["own"], found["another"]
        cells = [own["at_0"], other["at_0"], guess, own["within_40_ms"], other["within_40_ms"], 3 * guess]
        yield f"| {name} | {' | '.join(f'{cell:.1%}' for cell in cells)} |"


def _spread_rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield f"| clips found at (ms) | {' | '.join(str(ms) for ms in scores['shifts_ms'])} |"
    yield "|---" * (len(scores["shifts_ms"]) + 1) + "|"
    for name, found in scores["beside"].items():
        for key, told in (("own", name), ("another", f"another clip's {name}")):
            counts = [found[key]["offsets_ms"].count(ms) for ms in scores["shifts_ms"]]
            yield f"| {told} | {' | '.join(map(str, counts))} |"


def main(arguments: Sequence[str]) -> None:
    """`MODEL OUT.json …`, or `table OUT.json`."""
    options = parser(__doc__ or "", 64)
    options.add_argument("--levels", type=int, default=4, help="noise levels (default: %(default)s)")
    options.add_argument("--low", type=float, default=TELLING[0], help="least logit of σ (default: %(default)s)")
    options.add_argument("--high", type=float, default=TELLING[1], help="greatest logit of σ (default: %(default)s)")
    options.add_argument("--draws", type=int, default=1, help="of the noise (default: %(default)s)")
    options.add_argument("--dtype", default="auto", help="of the network: auto, float32, bfloat16")
    options.add_argument("--captions", action="store_true", help="tell the network the clips' captions")
    run(arguments, options, evaluate, table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ClipError as error:
        sys.exit(f"error: {error}")
