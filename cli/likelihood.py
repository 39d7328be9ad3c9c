"""`counterpoint likelihood FILE`: how probable a track is beside the others, and at which offset it fits best."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from counterpoint.cli import options
from counterpoint.cli.jobs import TRACKS, check_machine, parse_tracks
from counterpoint.cli.models import find_model
from counterpoint.recipes.settings import SettingsError

METHODS = ("ode", "elbo")


def likelihood(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A clip, or files that share a clock.")],
    track: Annotated[str, typer.Option("--track", help="The track that is judged: audio, video or sensor.")] = "audio",
    given: Annotated[
        str | None,
        typer.Option("--given", metavar="TRACK,...", help="The tracks it is judged beside. (default: video, or audio)"),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", help="ode: exact, through the flow; elbo: a bound, quicker and sturdier."),
    ] = "ode",
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="ode: so many midpoint steps instead of an error-controlled solver."),
    ] = None,
    probes: Annotated[
        int, typer.Option("--probes", min=0, help="ode: probes of the divergence; 0 is exact and very slow.")
    ] = 4,
    levels: Annotated[int, typer.Option("--levels", min=1, help="elbo: noise levels.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the probes and of the noise.")] = 0,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What happens in the clip, if said.")] = "",
    shift_search: Annotated[
        int | None,
        typer.Option(
            "--shift-search", min=1, metavar="MS", help="Shift the track by up to ±MS: where does it fit best?"
        ),
    ] = None,
    step: Annotated[int, typer.Option("--step", min=1, metavar="MS", help="Between two shifts.")] = 40,
    model: options.Model = None,
    device: options.Device = "auto",
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every number to this file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Write over FILE.")] = False,
) -> None:
    """Say how probable a track is beside the others, in bits a dimension of its latents, and find its offset."""
    check_machine(device, "float32")
    of, others = _tracks(track, given)
    if method not in METHODS:
        raise SettingsError(f"--method {method}: not one of {', '.join(METHODS)}")
    if shift_search is not None and step > shift_search:
        raise SettingsError(f"--step {step}: larger than --shift-search {shift_search}")
    name = find_model(model or "joint")
    if json_path is not None and json_path.exists() and not overwrite:
        raise FileExistsError(17, "is there already; give --overwrite, or another --json", str(json_path))
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "its folder is not there", str(json_path))
    from counterpoint.modalities.clip import Clip

    clip = Clip.read(*files, tracks=[one for one in TRACKS if one in (of, *others)])
    how: dict[str, Any] = {"method": method, "seed": seed}
    how |= {"levels": levels} if method == "elbo" else {"solver": "rk45" if steps is None else "midpoint"}
    how |= {"probes": probes} | ({} if steps is None else {"steps": steps}) if method == "ode" else {}
    found = judge(clip, of, others, name, device, prompt, how, shifts_of(shift_search, step))
    found = {"files": [str(path) for path in files], "model": name, **how, **found}
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for line in report(found):
        print(line)


def shifts_of(reach: int | None, step: int) -> list[int]:
    """Milliseconds from −reach to reach around 0, which is always one of them."""
    count = 0 if reach is None else reach // step
    return [index * step for index in range(-count, count + 1)]


def judge(
    clip: Any, of: str, given: Sequence[str], model: str, device: str, prompt: str, how: dict[str, Any],
    shifts: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """Every number of the report, as JSON."""
    from transformers.utils.logging import disable_progress_bar

    from counterpoint.diffusion.likelihood import (
        Flow,
        conditional,
        denoising_likelihood,
        log_likelihood,
        mutual_information,
    )
    from counterpoint.diffusion.offsets import TELLING, search, shifted_latents
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    disable_progress_bar()
    pipeline = CounterpointPipeline.from_pretrained(model, device=device, dtype="float32")
    pipeline.transformer.requires_grad_(False)
    pipeline.codecs.names((of,))
    for one in given:
        pipeline.codecs.names((one,))
    seconds = float(pipeline.defaults["seconds"])
    shifted = shifted_latents(clip, of, given, [shift / 1000 for shift in shifts], pipeline.codecs, seconds)
    if how["method"] == "elbo":
        bound = partial(denoising_likelihood, levels=how["levels"], seed=how["seed"])
    else:
        flow = Flow(how["solver"], how.get("steps", 8), how["probes"], seed=how["seed"])
        bound = partial(log_likelihood, flow=flow)

    def score(latents: Any, known: Any, **more: Any) -> Any:
        batch = next(iter(latents.values())).shape[0]
        clean = {n: x.to(pipeline.device) for n, x in latents.items()}
        return bound(pipeline.denoiser([prompt] * batch), clean, known, **more)

    zero = list(shifts).index(0)
    here = {n: x[zero : zero + 1] for n, x in shifted.latents.items()}
    theirs, own = ",".join(given), shifted.of
    alone, other = conditional(score, here, own), conditional(score, here, shifted.given)
    together, both = conditional(score, here, own, shifted.given), conditional(score, here, (*own, *shifted.given))
    table = {of: alone, theirs: other, f"{of}|{theirs}": together, f"{of},{theirs}": both}
    found: dict[str, Any] = {
        "track": of,
        "given": list(given),
        "slots": shifted.slots,
        "bits_per_dimension": {name: float(value.bits_per_dimension[0]) for name, value in table.items()},
        "dimensions": {name: int(value.dimensions[0]) for name, value in table.items()},
        "information_bits": float(mutual_information(together, alone)[0]),
        "evaluations": sum(value.evaluations for value in table.values()),
    }
    if len(shifts) > 1:
        telling = dict(zip(("low", "high"), TELLING, strict=True)) if how["method"] == "elbo" else {}
        at, bits = search(partial(score, **telling), shifted, progress=_tell if sys.stderr.isatty() else None)
        found["shifts"] = [{"ms": ms, "information_bits": two} for ms, two in zip(shifts, bits.tolist(), strict=True)]
        if telling:
            found["telling_levels"] = telling
        else:
            for row, one in zip(found["shifts"], at.bits_per_dimension.tolist(), strict=True):
                row["bits_per_dimension"] = one
        found["best_shift_ms"] = max(found["shifts"], key=lambda row: (row["information_bits"], -abs(row["ms"])))["ms"]
    return found


def report(found: dict[str, Any]) -> list[str]:
    """What is printed."""
    of, theirs = found["track"], ",".join(found["given"])
    told = ", ".join(f"{key} {found[key]}" for key in ("solver", "steps", "probes", "levels", "seed") if key in found)
    lines = [
        f"model {found['model']}, method {found['method']} ({told}), {found['slots']} slots of 0.16 s",
        "of the latents, not of pixels and samples; lower is more probable:",
    ]
    for name, value in found["bits_per_dimension"].items():
        lines.append(f"  {name:<24} {value:9.4f} bits/dim  {found['dimensions'][name]:7d} dimensions")
    lines.append(f"information shared by {of} and {theirs}: {found['information_bits']:.2f} bits")
    if "shifts" in found:
        if "telling_levels" in found:
            low, high = (1 / (1 + math.exp(-found["telling_levels"][key])) for key in ("low", "high"))
            lines.append(f"information at noise levels from {low:.2f} to {high:.2f}, by the shift of {of}:")
        else:
            lines.append(f"information by the shift of {of}:")
        for row in found["shifts"]:
            exact = f"  {row['bits_per_dimension']:11.4f} bits/dim" if "bits_per_dimension" in row else ""
            lines.append(f"{row['ms']:5d} ms  {row['information_bits']:9.2f} bits{exact}")
        lines.append(f"{of} fits {theirs} best when shifted by {found['best_shift_ms']} ms")
    return lines


def _tell(done: int, count: int) -> None:
    print(f"\r{done} of {count} shifts", end="\n" if done == count else "", file=sys.stderr, flush=True)


def _tracks(track: str, given: str | None) -> tuple[str, tuple[str, ...]]:
    """The track judged, and those it is judged beside."""
    named = _parse("--track", track)
    if len(named) != 1:
        raise SettingsError(f"--track {track}: one track, please")
    if given is None:
        return named[0], ("audio" if named[0] == "video" else "video",)
    others = _parse("--given", given)
    if named[0] in others:
        raise SettingsError(f"--given {given}: {named[0]} is the track that is judged")
    return named[0], others


def _parse(option: str, text: str) -> tuple[str, ...]:
    try:
        return parse_tracks(text)
    except SettingsError as error:
        raise SettingsError(str(error).replace("--tracks", option)) from None
