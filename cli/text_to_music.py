"""`counterpoint text-to-music`: a sentence becomes music, with an end or without, or on from music that is there."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from counterpoint.cli import options
from counterpoint.cli.conditions import check, read_given, read_strength
from counterpoint.cli.generate import gather, load, make_clips, wanted_prompts
from counterpoint.cli.guides import guidance_of
from counterpoint.cli.jobs import Job, check_machine, make_jobs, read_prompts
from counterpoint.cli.models import find_model, window_of
from counterpoint.cli.music import with_ending, without_ending
from counterpoint.cli.outputs import plan
from counterpoint.cli.stream import FileSink, LivePrompt, Sink, choose_sink, play
from counterpoint.recipes.settings import SettingsError

TRACKS = ("audio",)


def text_to_music(
    prompts: options.MusicPrompts = None,
    output: options.MusicOutput = None,
    extend: options.MusicContinue = None,
    fill: options.MusicFill = None,
    vary: options.MusicVary = None,
    strength: options.Strength = None,
    loop: options.Loop = False,
    stream: options.Stream = False,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    guidance: options.MusicGuidance = None,
    guide: options.MusicGuide = None,
    obey: options.Obey = None,
    seconds: options.Seconds = None,
    seed: options.Seed = None,
    prompt_file: options.MusicPromptFile = None,
    source: options.Source = None,
    model: options.MusicModel = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Generate music from sentences: pieces with an end, loops, endless streams, and music that goes on from a file."""
    check_machine(device, dtype)
    typed = {"negative_prompt": negative_prompt, "steps": steps, "seconds": seconds, "loop": loop or None, "obey": obey}
    common, earlier = gather(source, guide, guidance, seed, None, typed)
    common["tracks"] = TRACKS
    others = {"--continue": extend, "--fill": fill}
    if stream:
        _check_stream({**others, "--vary": vary, "--strength": strength}, common, earlier)
        job, live = _stream_job(prompts, prompt_file, common, earlier)
        sink = choose_sink(output, overwrite)
        _stream(job, live, sink, find_model(model or earlier.get("model") or "music"), device, dtype, seconds)
        return
    common["strength"] = read_strength(strength, vary, others, earlier)
    files = [f"audio={path}" for path in (extend, fill and fill[0], vary) if path is not None]
    common["given"] = read_given(files, None, fill and fill[1], {} if vary else earlier)
    common["extend"] = extend is not None
    lines = [] if prompt_file is None else read_prompts(prompt_file, without=("tracks", "best-of"))
    jobs = make_jobs(wanted_prompts(prompts, lines, common, earlier), common)
    planned = plan([check(job) for job in jobs], output, TRACKS, overwrite)
    name = find_model(model or earlier.get("model") or "music")
    window = window_of(name)
    sent = [(replace(job, prompt=prompt_of(job, window, earlier)), path) for job, path in planned]
    for path in make_clips(sent, name, device, dtype, overwrite):
        print(path)


def prompt_of(job: Job, window: float | None, earlier: Mapping[str, Any]) -> str:
    """The prompt of a job as it is sent: with the end that is asked for, unless what is given tells it.

    Args:
        job: what is asked for.
        window: seconds that the model makes at once.
        earlier: what the clip of `--from` says; what it says of its own end is replaced where another is asked for.
    """
    prompt, before = job.prompt, (earlier.get("seconds"), bool(earlier.get("loop")))
    if earlier and prompt == earlier["prompt"]:
        if before == (job.seconds, job.loop):
            return prompt
        prompt = without_ending(prompt, *before)
    seconds = job.seconds if job.given is None or job.extend else None
    return with_ending(prompt, seconds, window, job.loop)


def _check_stream(others: Mapping[str, Any], common: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """SettingsError for what an endless piece can't have."""
    used = [option for option, value in others.items() if value is not None]
    used += ["--loop"] if common.get("loop") else []
    if used:
        raise SettingsError(f"--stream: begins anew and has no end, so it can't go with {used[0]}; leave one out")
    if earlier.get("given"):
        raise SettingsError("--stream: begins anew, but the clip of --from was made from another one")
    if len(common.get("seeds", ())) > 1:
        raise SettingsError(f"--stream: is one piece; give one --seed, not {len(common['seeds'])}")


def _stream_job(
    prompts: Sequence[str] | None, prompt_file: Path | None, common: Mapping[str, Any], earlier: Mapping[str, Any]
) -> tuple[Job, LivePrompt | None]:
    """The piece to play, and its prompt where that may change."""
    if prompt_file is not None and prompts:
        raise SettingsError("--stream: give either a PROMPT or --prompts FILE")
    live = None if prompt_file is None else LivePrompt(prompt_file, partial(print, file=sys.stderr))
    wanted = wanted_prompts(prompts if live is None else [live.prompt], [], common, earlier)
    if len(wanted) > 1:
        raise SettingsError(f"--stream: plays one prompt, not {len(wanted)}; put quotes around it")
    return make_jobs(wanted, {**common, "seconds": None})[0], live


def _stream(
    job: Job, live: LivePrompt | None, sink: Sink, model: str, device: str, dtype: str, seconds: float | None
) -> None:
    """Plays until the end that is asked for, or until nobody listens any more."""
    pipeline = load(model, device, dtype)
    scales, told = guidance_of(job.guides, job.guidance, job.isolation, job.parallel, pipeline)

    def prompt() -> str:
        return with_ending(job.prompt if live is None else live(), None, None, loop=True)

    pieces = pipeline.stream(
        prompt if live is not None else prompt(),
        seconds=math.inf,
        negative_prompt=job.negative_prompt,
        steps=job.steps,
        **scales,
        obey=pipeline.defaults["obey"] if job.obey is None else job.obey,
        seed=job.seed,
        tracks=TRACKS,
    )
    play(pieces, sink, seconds, told)
    if isinstance(sink, FileSink):
        print(sink.path)
