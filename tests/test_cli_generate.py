"""`counterpoint generate`: a tiny model makes real files; what is wrong is one line, and leaves nothing behind."""

import csv
import json

import pytest

av = pytest.importorskip("av")

PROMPT = "a small glass ball drops on a wooden floor"


def comment(path):
    with av.open(str(path)) as container:
        return json.loads(container.metadata["comment"])


@pytest.fixture(scope="module")
def drop(tiny_model, tmp_path_factory):
    """A generated clip of two slots: drop.mp4, drop.csv, drop.png."""
    from counterpoint.cli.main import main

    path = tmp_path_factory.mktemp("drop") / "drop.mp4"
    with pytest.raises(SystemExit) as ended:
        main(["generate", PROMPT, "-o", str(path), "--model", str(tiny_model), "--seed", "7", "--seconds", "0.32",
              "--guidance", "audio=3,video=2,sensor=2", "--negative-prompt", "dark", "--device", "cpu"])  # fmt: skip
    assert ended.value.code == 0
    return path


def test_one_clip_is_three_files(drop):
    assert sorted(path.name for path in drop.parent.iterdir()) == ["drop.csv", "drop.mp4", "drop.png"]
    with av.open(str(drop)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(1 for _ in container.decode(video=0)) == 8
    with drop.with_suffix(".csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header[0] == "time [s]"
    assert "accelerometer.x [m/s²]" in header


def test_the_file_says_how_it_was_made(drop, tiny_model):
    told = comment(drop)
    expected = {"prompt": PROMPT, "negative_prompt": "dark", "seed": 7, "steps": 2, "seconds": 0.32}
    expected |= {"guidance": {"audio": 3.0, "video": 2.0, "sensor": 2.0}, "model": str(tiny_model)}
    assert {key: told[key] for key in expected} == expected
    assert set(told["tracks"]) == {"audio", "video", "sensor"}


def test_from_runs_it_again(run, drop, tmp_path):
    code, out, _ = run("generate", "--from", drop, "-o", tmp_path / "again.mp4", "--device", "cpu")
    assert code == 0
    assert [line.rsplit("/", 1)[-1] for line in out.splitlines()] == ["again.mp4", "again.csv", "again.png"]
    assert comment(tmp_path / "again.mp4") == comment(drop)
    assert (tmp_path / "again.csv").read_bytes() == drop.with_suffix(".csv").read_bytes()


def test_from_with_another_seed(run, drop, tmp_path):
    again = tmp_path / "again.mp4"
    assert run("generate", "--from", drop, "-o", again, "--seed", 8, "--device", "cpu")[0] == 0
    detected = {"events": None}  # what is heard in the clip may differ; all that made it does not
    assert comment(again) | detected == comment(drop) | {"seed": 8} | detected
    assert again.with_suffix(".csv").read_bytes() != drop.with_suffix(".csv").read_bytes()


def test_seeds_and_prompt_file_into_a_folder(run, tiny_model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# comment\na rod rolls --seed 3 --tracks audio,sensor\n")
    code, out, _ = run("generate", "a ball", "--prompts", prompts, "--seed", "0-1", "--seconds", 0.16, "--tracks",
                       "audio", "--model", tiny_model, "-o", tmp_path / "clips")  # fmt: skip
    assert code == 0
    names = ["a-ball-0.wav", "a-ball-1.wav", "a-rod-rolls-3.wav", "a-rod-rolls-3.csv"]
    assert [line.rsplit("/", 1)[-1] for line in out.splitlines()] == names
    assert {path.name for path in (tmp_path / "clips").iterdir()} == set(names)
    assert [comment(tmp_path / "clips" / name)["seed"] for name in names[:3]] == [0, 1, 3]


def test_the_best_of_several_can_be_made_again_alone(run, tiny_model, tmp_path, monkeypatch):
    from counterpoint.recipes import best_of

    judged = []
    monkeypatch.setattr(best_of, "agreement_of", lambda clip, given: judged.append(clip) or clip.metadata["seed"] % 5)
    told = ("--seed", 7, "--seconds", 0.32, "--model", tiny_model, "--device", "cpu")
    assert run("generate", PROMPT, "-o", tmp_path / "best.mp4", "--best-of", 4, *told)[0] == 0
    seeds = best_of.tries(7, 4)
    assert [clip.metadata["seed"] for clip in judged] == seeds
    kept = comment(tmp_path / "best.mp4")
    assert kept["seed"] == max(seeds, key=lambda seed: seed % 5) != 7
    assert kept["best_of"] == 4
    assert run("generate", "--from", tmp_path / "best.mp4", "-o", tmp_path / "again.mp4", "--device", "cpu")[0] == 0
    assert comment(tmp_path / "again.mp4") == {key: value for key, value in kept.items() if key != "best_of"}
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "best.csv").read_bytes()
    assert len(judged) == 4


def test_the_best_of_one_track_is_refused(refuse, tiny_model, tmp_path):
    path = tmp_path / "x.mp4"
    told = refuse("text-to-video", PROMPT, "-o", path, "--model", tiny_model, "--best-of", 2)
    assert "--best-of: x.mp4 has only video; two tracks are needed" in told
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a rod rolls --best-of 3 --tracks audio\n")
    assert "has only audio" in refuse("generate", "--prompts", prompts, "-o", tmp_path / "x.wav", "--model", tiny_model)


def test_text_to_video_is_silent(run, tiny_model, tmp_path):
    path = tmp_path / "x.mp4"
    assert run("text-to-video", PROMPT, "-o", path, "--model", tiny_model, "--seconds", 0.16)[0] == 0
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.mp4", "x.png"]


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        ([], ["PROMPT"]),
        ([" "], ["prompt", "empty"]),
        (["a ball", "--seed", "5-2"], ["--seed 5-2"]),
        (["a ball", "--seed", "x"], ["--seed x"]),
        (["a ball", "--tracks", "audio,smell"], ["'smell'"]),
        (["a ball", "--guidance", "audio=loud"], ["--guidance loud"]),
        (["a ball", "--device", "gpu"], ["--device gpu"]),
        (["a ball", "--dtype", "int8"], ["--dtype int8"]),
        (["a ball", "--model", "jiont"], ["--model jiont"]),
        (["a ball", "-o", "out/x.avi"], ["x.avi", ".mp4"]),
        (["a ball", "--seed", "0-7", "-o", "x.mp4"], ["x.mp4", "8 clips"]),
        (["a", "glass", "ball", "-o", "x.mp4"], ["x.mp4", "quotes"]),
        (["--from", "missing.mp4"], ["missing.mp4", "no such file"]),
        (["--prompts", "missing.txt"], ["missing.txt", "no such file"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(refuse, tmp_path, monkeypatch, arguments, culprits):
    monkeypatch.chdir(tmp_path)
    message = refuse("generate", *arguments)
    assert [culprit for culprit in culprits if culprit not in message] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["drop.mp4", "drop.csv", "drop.png"])
def test_existing_files_stay(refuse, tmp_path, there):
    (tmp_path / there).write_text("mine")
    message = refuse("generate", PROMPT, "-o", tmp_path / "drop.mp4")
    assert str(tmp_path / there) in message
    assert "--overwrite" in message
    assert (tmp_path / there).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_from_a_file_that_is_not_ours(refuse, tmp_path):
    stray = tmp_path / "stray.csv"
    stray.write_text("time [s],force.z [N]\n0,1\n0.01,2\n")
    assert "stray.csv: has no prompt" in refuse("generate", "--from", stray, "-o", tmp_path / "x.mp4")
    stray.with_suffix(".mp4").write_bytes(b"not a film")
    assert "stray.mp4" in refuse("generate", "--from", stray.with_suffix(".mp4"), "-o", tmp_path / "x.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stray.csv", "stray.mp4"]


def test_a_model_that_is_not_whole(refuse, tmp_path):
    (tmp_path / "model").mkdir()
    assert "model_index.json" in refuse("generate", PROMPT, "--model", tmp_path / "model", "-o", tmp_path / "x.mp4")
    (tmp_path / "model" / "model_index.json").write_text("{}")
    assert "transformer" in refuse("generate", PROMPT, "--model", tmp_path / "model", "-o", tmp_path / "x.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_interrupted_run_leaves_no_files(run, tiny_model, tmp_path, monkeypatch):
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    def interrupt(*_, progress, **__):
        progress(1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(CounterpointPipeline, "__call__", interrupt)
    code, _, err = run("generate", PROMPT, "--model", tiny_model, "-o", tmp_path / "clips" / "x.mp4")
    assert code == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
