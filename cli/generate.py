"""`counterpoint generate` and `counterpoint text-to-video`: prompts in, files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoint.cli import options
from counterpoint.cli.jobs import (
    TRACKS,
    Job,
    check_machine,
    make_jobs,
    parse_guidance,
    parse_seeds,
    parse_tracks,
    read_prompts,
    read_source,
)
from counterpoint.cli.models import find_model
from counterpoint.cli.outputs import VIDEO, plan, written
from counterpoint.recipes.settings import SettingsError


def generate(
    prompts: options.Prompts = None,
    output: options.Output = None,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seconds: options.Seconds = None,
    seed: options.Seed = None,
    tracks: options.Tracks = None,
    prompt_file: options.PromptFile = None,
    source: options.Source = None,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Generate clips from sentences: video with its sound, sensors as CSV, and an overview as PNG."""
    common = _given(negative_prompt, steps, guidance, seconds, seed, tracks)
    _run(TRACKS, prompts, prompt_file, source, common, output, model, device, dtype, overwrite)


def text_to_video(
    prompts: options.Prompts = None,
    output: options.Output = None,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seconds: options.Seconds = None,
    seed: options.Seed = None,
    tracks: options.Tracks = None,
    prompt_file: options.PromptFile = None,
    source: options.Source = None,
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Generate silent video from sentences: `generate` with --tracks video."""
    common = _given(negative_prompt, steps, guidance, seconds, seed, tracks)
    _run(("video",), prompts, prompt_file, source, common, output, model, device, dtype, overwrite)


def _given(
    negative_prompt: str | None,
    steps: int | None,
    guidance: str | None,
    seconds: float | None,
    seed: str | None,
    tracks: str | None,
) -> dict[str, Any]:
    """The options that were given, parsed."""
    values = {
        "negative_prompt": negative_prompt,
        "steps": steps,
        "guidance": None if guidance is None else parse_guidance(guidance),
        "seconds": seconds,
        "seeds": None if seed is None else parse_seeds(seed),
        "tracks": None if tracks is None else parse_tracks(tracks),
    }
    return {key: value for key, value in values.items() if value is not None}


def _run(
    default: tuple[str, ...],
    prompts: Sequence[str] | None,
    prompt_file: Path | None,
    source: Path | None,
    common: dict[str, Any],
    output: Path | None,
    model: str | None,
    device: str,
    dtype: str,
    overwrite: bool,
) -> None:
    """Settle everything that can be wrong before the model is loaded, then make the clips one after another."""
    check_machine(device, dtype)
    wanted: list[dict[str, Any]] = [{"prompt": prompt} for prompt in prompts or []]
    wanted += read_prompts(prompt_file) if prompt_file is not None else []
    if source is not None:
        common = read_source(source) | common
        model = model or common.pop("model", None)
        wanted = wanted or [{"prompt": common["prompt"]}]
        common = {key: value for key, value in common.items() if key not in ("prompt", "model")}
    if not wanted:
        raise SettingsError("nothing to generate: give a PROMPT, --prompts FILE or --from FILE")
    if any(not one["prompt"].strip() for one in wanted):
        raise SettingsError("the prompt is empty")
    planned = plan(make_jobs(wanted, common), output, default, overwrite)
    for path in make_clips(planned, find_model(model or "joint"), device, dtype, overwrite):
        print(path)


def make_clips(
    planned: Sequence[tuple[Job, Path]], model: str, device: str, dtype: str, overwrite: bool
) -> Sequence[Path]:
    """Load the model, generate every job and save it; the paths of all files written."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with console.status(f"loading {model}"):
        from transformers.utils.logging import disable_progress_bar

        from counterpoint.diffusion.pipeline import CounterpointPipeline

        disable_progress_bar()
        pipeline = CounterpointPipeline.from_pretrained(model, device=device, dtype=dtype)
    files: list[Path] = []
    with Progress(console=console, disable=not sys.stderr.isatty()) as bar:
        for job, path in planned:
            task = bar.add_task(path.name, total=job.steps)
            clip = pipeline(
                job.prompt,
                negative_prompt=job.negative_prompt,
                steps=job.steps,
                guidance=job.guidance,
                seconds=job.seconds,
                seed=job.seed,
                tracks=job.tracks or TRACKS,
                progress=lambda step, total, task=task: bar.update(task, completed=step, total=total),
            )
            files += _save(with_events(clip), path, job.tracks or TRACKS, overwrite)
    return files


def with_events(clip: Any) -> Any:
    """The clip with the contacts that can be heard in it, or else felt, or else seen."""
    from counterpoint.evaluation.events import clip_events

    found = clip_events(clip)
    times = next((found[track] for track in ("audio", "sensor", "video") if track in found), ())
    return replace(clip, events=tuple(round(float(time), 4) for time in times))


def _save(clip: Any, path: Path, tracks: Sequence[str], overwrite: bool) -> list[Path]:
    """The clip's files; the folder is made when there is something to put into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in VIDEO:
        return clip.save(path, overwrite=overwrite)
    return [saved for target in written(path, tracks) for saved in clip.save(target, overwrite=overwrite)]
