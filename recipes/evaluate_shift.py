"""How often the likelihood finds that a sound is in step: held-out clips whose sound is shifted by ±40 … ±400 ms.

    python -m counterpoint.recipes.evaluate_shift joint docs/scores/shift.json --prompts 64
    python -m counterpoint.recipes.evaluate_shift table docs/scores/shift.json

For every clip log p(sound | other tracks) at 21 shifts, one of which is none; where it is greatest is the offset found.
Beside it the same sounds with another clip's tracks, among which no offset is true, and the share of a guess.

What makes it cheap: latents of sound stand 40 ms apart, so a shift moves latents, and a clip is encoded once; a pass a
noise level, with the same noise at all shifts, all of them one batch; and only levels of much noise (logit of σ from 1
to 3: σ from .73 to .95), since at lower ones what is probable of the sound alone outweighs what the tracks say of one
another. More `--draws` average the noise. Slots that a shift leaves without sound are left out of all: 10 of 16 are
judged.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.diffusion.given import group_of
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.diffusion.sampling import draw_noise
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import SLOT_SECONDS
from counterpoint.recipes.evaluate_joint import commit, write_scores
from counterpoint.recipes.readings import HeldOut
from counterpoint.recipes.resumable import Arrays, Clock, Say, begin, parser, run

REACH = 10  # shifts on both sides, each by a latent of the sound
SIDES = (("video", "sensor"), ("video",), ("sensor",))
BITS = 1 / np.log(2)


def evaluate(
    model: str | Path, json_path: Path, prompts: int = 64, seed: int = 0, work: Path = Path("runs/evaluation"),
    workers: int = 2, levels: int = 4, low: float = 1.0, high: float = 3.0, draws: int = 1, dtype: str = "auto",
    captions: bool = False, sides: Sequence[Sequence[str]] = SIDES, say: Say = print,
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
        for i in range(prompts):
            key = f"{'+'.join(given)}_{i:05d}"
            alone = store.arrays(f"alone_{i:05d}", lambda i=i: {"alone": _nats(held, i, i, (), words[i], bound)})
            rows.append(alone | store.arrays(key, lambda i=i, given=given: _judge(held, i, given, words[i], bound)))
            say(f"{name}: {i + 1} of {prompts}")
        found[name] = summary(rows) | {"seconds_per_clip": clock.seconds / prompts}
        write_scores({**scores, "shifts_ms": shifts_ms(), "commit": commit()}, json_path)
    return {**scores, "shifts_ms": shifts_ms()}


def shifts_ms() -> list[int]:
    """−400 … 400 ms."""
    return [round(k * SLOT_SECONDS * 250) for k in range(-REACH, REACH + 1)]


def shifted(latents: Tensor) -> Tensor:
    """Latents of a sound `[T, S, C]` later by −`REACH` … `REACH` tokens: `[2·REACH + 1, T', S, C]`.

    T' are the slots of the middle that are sound at every shift, from slot `margin(S)` on.
    """
    T, S, C = latents.shape
    flat, edge = latents.reshape(T * S, C), margin(S) * S
    rows = [flat[edge - k : T * S - edge - k] for k in range(-REACH, REACH + 1)]
    return torch.stack(rows).unflatten(1, (-1, S))


def margin(tokens: int) -> int:
    """Slots at either end that are left out."""
    return -(-REACH // tokens)


def _judge(held: HeldOut, index: int, given: Sequence[str], text: str, bound: Any) -> Arrays:
    """A clip's sound beside its `own` tracks, and beside those of `another` clip."""
    another = (index + 1) % held.prompts
    names = {"own": index, "another": another}
    return {name: _nats(held, index, clip, given, text, bound) for name, clip in names.items()}


def _nats(held: HeldOut, index: int, clip: int, given: Sequence[str], text: str, bound: Any) -> np.ndarray:
    """log p of a clip's sound at every shift, beside the given tracks of a clip: nats `[2·REACH + 1]`."""
    sound = shifted(held.latents["audio"][index])
    edge = margin(held.latents["audio"].shape[2])
    others = {n: x[clip, edge : x.shape[1] - edge] for n, x in held.latents.items() if group_of(n) in given}
    latents = {"audio": sound, **{n: x.expand(len(sound), *x.shape) for n, x in others.items()}}
    return bound(text, latents).cpu().numpy()


@torch.no_grad()
def nats(
    pipeline: CounterpointPipeline, text: str, latents: Mapping[str, Tensor], levels: int, low: float, high: float,
    draws: int = 1,
) -> Tensor:  # fmt: skip
    """The part of `diffusion.likelihood.denoising_likelihood` between two levels, up to a constant: `[B]`.

    −Σ (1 − σ)²·‖v − v̂‖² dλ over the sound with λ = logit σ; all else is known.

    Args:
        latents: `{modality: [B, T, S, C]}`, `audio` among them.
    """
    clean = {name: x.to(pipeline.device) for name, x in latents.items()}
    x = clean["audio"]
    denoiser, width = pipeline.denoiser([text] * len(x)), (high - low) / levels
    still = {name: torch.zeros(one.shape[:2], device=x.device) for name, one in clean.items()}
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for draw, index in product(range(draws), range(levels)):
        sigma = 1 / (1 + math.exp(-(low + (index + 0.5) * width)))
        noise = draw_noise({"audio": tuple(x.shape[1:])}, [draw * levels + index])["audio"].to(x)  # [1, T, S, C]
        noised = {**clean, "audio": (1 - sigma) * x + sigma * noise}
        v = denoiser("conditional", noised, {**still, "audio": torch.full_like(still["audio"], sigma)})["audio"]
        wrong = (v.float() - (noise - x)).square().flatten(1).sum(1).double()
        total -= width * (1 - sigma) ** 2 * wrong / draws
    return total


def summary(rows: Sequence[Arrays]) -> dict[str, Any]:
    """What the shifts found say.

    Args:
        rows: of every clip, `own`, `another` and `alone`, nats at each shift.

    Returns:
        `likelihood` by log p(sound | others), `information` by the same less log p(sound), and both of another
        clip's tracks: `at_0` and `within_40_ms` (shares of clips), `median_ms` of the absolute offset, `offsets_ms`
        of every clip; and `bits`, the mean of log2 p(sound | others) at every shift less that at none.
    """
    own, another, alone = (np.stack([row[key] for row in rows]) for key in ("own", "another", "alone"))
    found = {"likelihood": own, "information": own - alone, "likelihood_of_another": another}
    found |= {"information_of_another": another - alone}
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


WAYS = {"likelihood": "log p(sound given others)", "information": "the same less log p(sound)"}


def table(scores: Mapping[str, Any]) -> str:
    """The scores as two tables in Markdown: what was found, and how the offsets are spread."""
    return "\n\n".join("\n".join(rows) for rows in (_rows(scores), _spread_rows(scores)))


def _rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield "| sound beside | judged by | at 0 ms | another clip's | a guess | within 40 ms | another clip's | a guess |"
    yield "|---|---|---|---|---|---|---|---|"
    guess = 1 / len(scores["shifts_ms"])
    for name, found in scores["beside"].items():
        for way, told in WAYS.items():
            own, other = found[way], found[f"{way}_of_another"]
            cells = [own["at_0"], other["at_0"], guess, own["within_40_ms"], other["within_40_ms"], 3 * guess]
            yield f"| {name} | {told} | {' | '.join(f'{cell:.1%}' for cell in cells)} |"


def _spread_rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield f"| clips found at (ms) | {' | '.join(str(ms) for ms in scores['shifts_ms'])} |"
    yield "|---" * (len(scores["shifts_ms"]) + 1) + "|"
    for name, found in scores["beside"].items():
        for way, told in (("information", name), ("information_of_another", f"another clip's {name}")):
            counts = [found[way]["offsets_ms"].count(ms) for ms in scores["shifts_ms"]]
            yield f"| {told} | {' | '.join(map(str, counts))} |"


def main(arguments: Sequence[str]) -> None:
    """`MODEL OUT.json …`, or `table OUT.json`."""
    options = parser(__doc__ or "", 64)
    options.add_argument("--levels", type=int, default=4, help="noise levels (default: %(default)s)")
    options.add_argument("--low", type=float, default=1.0, help="least logit of σ (default: %(default)s)")
    options.add_argument("--high", type=float, default=3.0, help="greatest logit of σ (default: %(default)s)")
    options.add_argument("--draws", type=int, default=1, help="of the noise (default: %(default)s)")
    options.add_argument("--dtype", default="auto", help="of the network: auto, float32, bfloat16")
    options.add_argument("--captions", action="store_true", help="tell the network the clips' captions")
    run(arguments, options, evaluate, table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ClipError as error:
        sys.exit(f"error: {error}")
