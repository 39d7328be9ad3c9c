"""`counterpoint generate` and `counterpoint text-to-video`: prompts, and what is given, in; files out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoint.cli import options
from counterpoint.cli.conditions import check, read_given, read_strength
from counterpoint.cli.guides import GuideSpec, guidance_of, parse_guides
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
from counterpoint.cli.remux import copy_streams
from counterpoint.recipes.settings import SettingsError

PER_CLIP = (
    "negative_prompt", "steps", "guidance", "isolation", "parallel", "obey", "seconds", "seeds", "tracks", "loop",
)  # fmt: skip


def _command(default: tuple[str, ...], doc: str) -> Callable[..., None]:
    """A command that makes the tracks of `default` unless others are asked for."""

    def command(
        prompts: options.Prompts = None,
        output: options.Output = None,
        given: options.Given = None,
        extend: options.Continue = None,
        fill: options.Fill = None,
        vary: options.Vary = None,
        strength: options.Strength = None,
        loop: options.Loop = False,
        negative_prompt: options.NegativePrompt = None,
        steps: options.Steps = None,
        guidance: options.Guidance = None,
        guide: options.Guide = None,
        seconds: options.Seconds = None,
        seed: options.Seed = None,
        best_of: options.BestOf = None,
        tracks: options.Tracks = None,
        prompt_file: options.PromptFile = None,
        source: options.Source = None,
        model: options.Model = None,
        device: options.Device = "auto",
        dtype: options.Dtype = "auto",
        overwrite: options.Overwrite = False,
    ) -> None:
        check_machine(device, dtype)
        typed = {"negative_prompt": negative_prompt, "steps": steps, "seconds": seconds, "loop": loop or None,
                 "best_of": best_of}  # fmt: skip
        common, earlier = gather(source, guide, guidance, seed, tracks, typed)
        others = {"--given": given, "--continue": extend, "--fill": fill}
        common["strength"] = read_strength(strength, vary, others, earlier)
        files = [*(extend or ()), *(vary or ())]
        common |= {"given": read_given(given, files, fill, {} if vary else earlier), "extend": bool(extend)}
        wanted = wanted_prompts(prompts, [] if prompt_file is None else read_prompts(prompt_file), common, earlier)
        planned = plan([check(job) for job in make_jobs(wanted, common)], output, default, overwrite)
        for job, path in planned:
            if job.best_of > 1 and len(job.held) < 2:
                raise SettingsError(
                    f"--best-of: {path.name} has only {''.join(job.held)}; two tracks are needed to agree"
                )
        name = find_model(model or earlier.get("model") or "joint")
        for path in make_clips(planned, name, device, dtype, overwrite):
            print(path)

    command.__doc__ = doc
    return command


generate = _command(
    TRACKS,
    "Generate clips from sentences, and from what is given: video with its sound, sensors as CSV, and an overview as "
    "PNG. Any tracks lead to any others.",
)
text_to_video = _command(("video",), "Generate silent video from sentences: `generate` with --tracks video.")


def gather(
    source: Path | None, guide: Sequence[str] | None, guidance: str | None, seed: str | None, tracks: str | None,
    typed: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What holds for all clips, and what the clip of `--from` says of itself.

    Args:
        source: the file of `--from`.
        guide, guidance, seed, tracks: as they were typed.
        typed: other fields of a `Job`; None was not typed.

    Raises:
        SettingsError: an option that can't be read.
    """
    read = {
        "guidance": None if guidance is None else parse_guidance(guidance),
        "seeds": None if seed is None else parse_seeds(seed),
        "tracks": None if tracks is None else parse_tracks(tracks),
    }
    earlier = {} if source is None else read_source(source)
    common = {key: earlier[key] for key in PER_CLIP if key in earlier}
    common |= {key: value for key, value in {**typed, **read}.items() if value is not None}
    if isinstance(common.get("guidance"), list):
        raise SettingsError(f"{source}: was guided by objects of Python; give --guidance and --guide anew")
    return common | {"guides": _guides(guide, earlier, common.get("seconds"))}, earlier


def wanted_prompts(
    prompts: Sequence[str] | None,
    lines: Sequence[dict[str, Any]],
    common: Mapping[str, Any],
    earlier: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The prompts, and those of a file with their own options; an empty one where something is given."""
    wanted: list[dict[str, Any]] = [*({"prompt": prompt} for prompt in prompts or []), *lines]
    given = common.get("given") is not None
    if not wanted and earlier:
        wanted = [{"prompt": earlier["prompt"]}]
    if not wanted and given:
        wanted = [{"prompt": ""}]
    if not wanted:
        raise SettingsError("nothing to generate: give a PROMPT, a clip that is there, --prompts FILE or --from FILE")
    if not given and not earlier and any(not one["prompt"].strip() for one in wanted):
        raise SettingsError("the prompt is empty")
    return wanted


def _guides(texts: Sequence[str] | None, earlier: Mapping[str, Any], seconds: float | None) -> tuple[Any, ...]:
    """The specs of `--guide`, or else those of an earlier clip; files that they name must be there."""
    if not texts and not earlier.get("guides"):
        return ()
    return tuple(parse_guides(texts or [str(GuideSpec.from_json(spec)) for spec in earlier["guides"]], seconds))


def load(model: str, device: str, dtype: str) -> Any:
    """The pipeline of a model, while the terminal says so."""
    from rich.console import Console

    with Console(stderr=True).status(f"loading {model}"):
        from transformers.utils.logging import disable_progress_bar

        from counterpoint.diffusion.pipeline import CounterpointPipeline

        disable_progress_bar()
        return CounterpointPipeline.from_pretrained(model, device=device, dtype=dtype)


def make_clips(
    planned: Sequence[tuple[Job, Path]], model: str, device: str, dtype: str, overwrite: bool
) -> Sequence[Path]:
    """Load the model, generate every job and save it; the paths of all files written."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    pipeline = load(model, device, dtype)
    files: list[Path] = []
    told: set[str] = set()

    def say(note: str) -> None:
        """Once, however many clips it is true of."""
        if note not in told:
            print(note, file=sys.stderr)
        told.add(note)

    with Progress(console=console, disable=not sys.stderr.isatty()) as bar:
        for job, path in planned:
            task = bar.add_task(path.name, total=None if job.steps is None else job.steps * job.best_of)
            clip = _best(
                pipeline, job, lambda step, total, task=task: bar.update(task, completed=step, total=total), say
            )
            files += _save(with_events(clip, job.given is not None), path, job, overwrite, say)
    return files


def _best(pipeline: Any, job: Job, progress: Callable[[int, int], None], say: Callable[[str], None]) -> Any:
    """The clip of a job, or of its tries the one whose tracks agree best."""
    if job.best_of == 1:
        return _generate(pipeline, job, progress, say)
    from counterpoint.recipes.best_of import best, tries

    made = []
    for k, seed in enumerate(tries(job.seed, job.best_of)):
        made.append(
            _generate(
                pipeline,
                replace(job, seed=seed),
                lambda step, total, k=k: progress(k * total + step, job.best_of * total),
                say,
            )
        )
    kept = best(made, job.given is not None)
    return replace(kept, metadata={**kept.metadata, "best_of": job.best_of})


def _generate(pipeline: Any, job: Job, progress: Callable[[int, int], None], say: Callable[[str], None]) -> Any:
    """The clip of a job; its metadata keeps the guides as they are restored by `--from`."""
    scales, facts = guidance_of(job.guides, job.guidance, job.isolation, job.parallel, pipeline)
    clip = pipeline(
        job.prompt,
        given=job.given,
        strength=job.strength,
        loop=job.loop,
        negative_prompt=job.negative_prompt,
        steps=job.steps,
        **scales,
        obey=pipeline.defaults["obey"] if job.obey is None else job.obey,
        seconds=job.seconds,
        seed=job.seed,
        tracks=job.tracks or (TRACKS if job.strength is None else None),
        progress=progress,
        say=say,
    )
    return replace(clip, metadata={**clip.metadata, **facts})


def with_events(clip: Any, given: bool = False) -> Any:
    """The clip with the contacts that can be heard in it, or else felt, or else seen.

    Where something is given at rates and sizes of its own, they are looked for on the model's clock.
    """
    from counterpoint.recipes.best_of import events_of

    found = events_of(clip, given)
    times = next((found[track] for track in ("audio", "sensor", "video") if track in found), ())
    return replace(clip, events=tuple(round(float(time), 4) for time in times))


def _save(clip: Any, path: Path, job: Job, overwrite: bool, say: Callable[[str], None]) -> list[Path]:
    """The clip's files; the folder is made when there is something to put into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() not in VIDEO:
        return [saved for target in written(path, job.held) for saved in clip.save(target, overwrite=overwrite)]
    files = clip.save(path, overwrite=overwrite)
    given = job.given
    sources = {}
    for file in () if given is None else given.files:
        tracks = [track for track in ("video", "audio") if track in file["tracks"]]
        untouched = [track for track in tracks if given and clip.tracks[track] is given.clip.tracks[track]]
        sources |= dict.fromkeys(untouched, Path(file["path"]))
    for note in copy_streams(path, sources) if sources else ():
        say(note)
    return files
