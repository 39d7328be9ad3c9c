"""Options, prompt files and earlier clips become jobs; jobs get paths."""

from pathlib import Path

import pytest

from counterpoint.cli.jobs import Job, make_jobs, parse_guidance, parse_line, parse_seeds, parse_tracks, read_prompts
from counterpoint.cli.outputs import plan, slug, written
from counterpoint.recipes.settings import SettingsError

ALL = ("audio", "video", "sensor")


@pytest.mark.parametrize(("text", "seeds"), [("7", [7]), ("0", [0]), ("0-3", [0, 1, 2, 3]), ("5-5", [5])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "-1", "3-1", "1-2-3", "1.5", "0 - 3"])
def test_bad_seeds(text):
    with pytest.raises(SettingsError, match="--seed"):
        parse_seeds(text)


def test_tracks_and_guidance():
    assert parse_tracks("sensor, audio") == ("audio", "sensor")
    assert parse_guidance("0") == 0.0
    assert parse_guidance("audio=3,video=2") == {"audio": 3.0, "video": 2.0}
    with pytest.raises(SettingsError, match=r"unknown track 'vidoe'; nearest: 'video'"):
        parse_tracks("vidoe")
    with pytest.raises(SettingsError, match=r"unknown track 'adio'; nearest: 'audio'"):
        parse_guidance("adio=3")
    with pytest.raises(SettingsError, match="nan"):
        parse_guidance("nan")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a wooden block falls", {"prompt": "a wooden block falls"}),
        (
            "a block falls --seed 3 --guidance 2",
            {"prompt": "a block falls", "seeds": [3], "guidance": 2.0},
        ),
        (
            "a child's ball -- red -- rolls --negative-prompt dark, blurred --steps=4",
            {"prompt": "a child's ball -- red -- rolls", "negative_prompt": "dark, blurred", "steps": 4},
        ),
        ("x --seed 0-1 --tracks audio", {"prompt": "x", "seeds": [0, 1], "tracks": ("audio",)}),
        ("x --negative-prompt a=b", {"prompt": "x", "negative_prompt": "a=b"}),
        ("x --guidance audio=3,video=2", {"prompt": "x", "guidance": {"audio": 3.0, "video": 2.0}}),
        ("x --guidance=audio=3", {"prompt": "x", "guidance": {"audio": 3.0}}),
    ],
)
def test_inline_overrides(line, values):
    assert parse_line(line) == values


def test_prompt_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# two of them\n\na ball drops --seed 1-2\n  a rod rolls\n")
    jobs = make_jobs(read_prompts(path), {"seeds": [9], "steps": 3})
    assert [(job.prompt, job.seed, job.steps) for job in jobs] == [
        ("a ball drops", 1, 3),
        ("a ball drops", 2, 3),
        ("a rod rolls", 9, 3),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a ball --sede 3", "unknown option '--sede'; nearest: 'seed'"),
        ("a ball --steps 0", "--steps 0: not a whole number above 0"),
        ("--seed 3", "no prompt before the first option"),
    ],
)
def test_prompt_file_errors_name_the_line(tmp_path, line, message):
    path = tmp_path / "prompts.txt"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        read_prompts(path)
    assert str(caught.value) == f"{path}, line 2: {message}"


def test_slug():
    assert slug("A glass ball, dropped!") == "a-glass-ball-dropped"
    assert len(slug("word " * 30)) <= 48
    assert slug("x" * 60) == "x" * 48


def test_names_in_a_folder():
    jobs = [Job("a ball", 1), Job("a ball", 1), Job("a ball", 2, tracks=("audio", "sensor")), Job("?", 0)]
    assert [path for _, path in plan(jobs, Path("new"), ALL, False)] == [
        Path("new/a-ball-1.mp4"),
        Path("new/a-ball-1-2.mp4"),
        Path("new/a-ball-2.wav"),
        Path("new/clip-0.mp4"),
    ]


@pytest.mark.parametrize(
    ("name", "asked", "tracks"),
    [
        ("x.mp4", None, ALL),
        ("x.wav", None, ("audio",)),
        ("x.csv", None, ("sensor",)),
        ("x.flac", ("audio", "sensor"), ("audio", "sensor")),
        ("x.webm", ("video",), ("video",)),
    ],
)
def test_a_file_settles_the_tracks(tmp_path, name, asked, tracks):
    [(job, path)] = plan([Job("a ball", 0, tracks=asked)], tmp_path / name, ALL, False)
    assert (job.tracks, path) == (tracks, tmp_path / name)


def test_files_that_come_of_a_clip():
    assert [p.name for p in written(Path("x.mp4"), ALL)] == ["x.mp4", "x.csv", "x.png"]
    assert [p.name for p in written(Path("x.mp4"), ("video",))] == ["x.mp4", "x.png"]
    assert [p.name for p in written(Path("x.wav"), ("audio", "sensor"))] == ["x.wav", "x.csv"]
    assert [p.name for p in written(Path("x.csv"), ("sensor",))] == ["x.csv"]


@pytest.mark.parametrize(
    ("jobs", "name", "message"),
    [
        ([Job("a ball", 0), Job("a ball", 1)], "x.mp4", "one file can't hold 2 clips; name a folder"),
        ([Job("a", 0), Job("ball", 0)], "x.mp4", "put quotes around the prompt"),
        ([Job("a ball", 0)], "x.avi", "unknown kind of file"),
        ([Job("a ball", 0, tracks=("video",))], "x.wav", "is made for audio, but the tracks are video"),
        ([Job("a ball", 0, tracks=("audio",))], "x.mp4", "is made for video, but the tracks are audio"),
    ],
)
def test_files_that_do_not_fit(tmp_path, jobs, name, message):
    with pytest.raises(SettingsError, match=message):
        plan(jobs, tmp_path / name, ALL, False)


@pytest.mark.parametrize("there", ["x.mp4", "x.csv", "x.png"])
def test_nothing_is_written_over_silently(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(FileExistsError) as caught:
        plan([Job("a ball", 0)], tmp_path / "x.mp4", ALL, False)
    assert caught.value.filename == str(tmp_path / there)
    assert plan([Job("a ball", 0)], tmp_path / "x.mp4", ALL, True)
