"""`--guide`: what is typed, what is refused in one line, what goes into metadata, and which guidances come out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from counterpoint.backbones.classifier import LatentClassifier
from counterpoint.cli.guides import KINDS, GuideSpec, build_guides, parse_guides
from counterpoint.guidance.auto import AutoGuidance
from counterpoint.guidance.classifier import Classifier
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.diffusers_guiders import DiffusersGuider
from counterpoint.guidance.isolation import Isolation
from counterpoint.guidance.measurements import Downsampled, Events, Loudness, LowRate, Masked, loudness_of
from counterpoint.guidance.reconstruction import Reconstruction
from counterpoint.modalities.audio import AudioCodec
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.sensor import Companding, SensorPatches
from counterpoint.modalities.video import VideoCodec
from counterpoint.modalities.vocoder import Vocoder
from counterpoint.recipes.settings import SettingsError


def one(text: str) -> GuideSpec:
    (spec,) = parse_guides([text])
    return spec


@pytest.mark.parametrize(("text", "spec"), [
    ("classifier:material=glass:2.0", GuideSpec("classifier", "material=glass", 2.0)),
    ("isolation:1.5", GuideSpec("isolation", "", 1.5)),
    ("isolation", GuideSpec("isolation")),
    ("events=0.5,1.4", GuideSpec("events", "0.5,1.4")),
    ("events=2", GuideSpec("events", "2")),  # a time, not a scale
    ("events=2:0", GuideSpec("events", "2", 0.0)),
    ("diffusers:AdaptiveProjectedGuidance:3", GuideSpec("diffusers", "AdaptiveProjectedGuidance", 3.0)),
    ("auto=models/small:2", GuideSpec("auto", "models/small", 2.0)),
    ("classifier-free:audio=3,video=2", GuideSpec("classifier-free", "", None, {"audio": 3.0, "video": 2.0})),
    ("isolation:2:sensor=1:interval=0.2-0.8:rescale=0.7",
     GuideSpec("isolation", "", 2.0, {"sensor": 1.0}, (0.2, 0.8), 0.7)),
    ("isolation:2:parallel=1", GuideSpec("isolation", "", 2.0, parallel=1.0)),
    ("classifier-free:3:parallel=0:rescale=0.7", GuideSpec("classifier-free", "", 3.0, rescale=0.7, parallel=0.0)),
])  # fmt: skip
def test_what_is_typed_and_written_again(text: str, spec: GuideSpec) -> None:
    assert one(text) == spec
    assert one(str(spec)) == spec
    assert GuideSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_every_example_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clap.wav", "slow.csv", "small.mp4"):
        (tmp_path / name).touch()
    specs = parse_guides(kind.example for kind in KINDS.values())
    assert [spec.kind for spec in specs] == list(KINDS)
    assert [str(spec) for spec in specs] == [kind.example.replace(":2.0", ":2") for kind in KINDS.values()]


def test_a_file_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a:b.wav"
    path.touch()
    assert one(f"loudness={path}:1.5") == GuideSpec("loudness", str(path), 1.5)


@pytest.mark.parametrize(("text", "message"), [
    ("clasifier:material=glass", "unknown kind 'clasifier'; nearest: 'classifier'"),
    ("", "unknown kind ''; known: classifier-free"),
    ("classifier:2.0", "'2.0' is not attribute=class, e.g. material=glass"),
    ("classifier", "name the class; e.g. --guide classifier:material=glass:2.0"),
    ("classifier:material=glass:much", "'material=glass:much' is not attribute=class"),
    ("isolation:much", "'much' is not a scale; give a number, or audio=3,video=2"),
    ("isolation:nan", "'nan' is not a scale"),
    ("isolation:1:2", "'1' is not a scale"),
    ("isolation:smell=2", "'smell=2' is not a scale"),
    ("events=", "give the times in seconds; e.g. --guide events=0.5,1.4"),
    ("events=0.5,soon", "'soon' is not a time in seconds"),
    ("events=-1", "'-1' is not a time in seconds"),
    ("diffusers:AdaptivProjectedGuidance:3", "unknown guider.*nearest: 'AdaptiveProjectedGuidance'"),
    ("isolation:2:interval=0.8-0.2", "interval is 0.8-0.2, expected noise levels such as 0.2-0.8"),
    ("isolation:2:rescale=7", "rescale is 7, expected 0 to 1"),
    ("isolation:2:parallel=-1", "parallel is -1, expected 0 to 1"),
])  # fmt: skip
def test_mistakes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        parse_guides(["isolation:2", text])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"--guide {text}: ")


def test_events_outside_of_the_clip_and_lost_files() -> None:
    with pytest.raises(SettingsError, match=r"3 s is outside of the clip of 2.56 s"):
        parse_guides(["events=0.5,3"], seconds=2.56)
    with pytest.raises(FileNotFoundError):
        parse_guides(["loudness=lost.wav"])
    for values in ({"kind": "isolatio"}, {"kind": "isolation", "scalle": 2}):
        with pytest.raises(SettingsError, match=r"guide: unknown '.*'; nearest: '(isolation|scale)'"):
            GuideSpec.from_json(values)


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom counterpoint.cli.guides import parse_guides\nparse_guides(['events=0.5', 'isolation:2'])\n"
        "print(sorted({'torch', 'numpy', 'diffusers', 'lightning', 'av'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.manual_seed(0)
    axes = tuple(Companding(name, "m/s²") for name in "xyz")
    sensors = {"accelerometer": axes, "force": (Companding("z", "N"),)}
    audio, vocoder = AudioCodec(hidden_channels=32), Vocoder(width=16, hidden=32, layers=1, nnls_steps=2)
    codecs = Codecs(VideoCodec.create((8, 16, 32), channels=16), audio, vocoder, SensorPatches(sensors))
    return SimpleNamespace(codecs=codecs, device="cpu")


def build(pipeline: Any, *texts: str, classifier: Any = None) -> list[Any]:
    return list(build_guides(parse_guides(texts), pipeline, classifier))


def test_scales_of_tracks_become_scales_of_modalities(pipeline: Any) -> None:
    built = build(
        pipeline, "isolation", "isolation:1.5", "classifier-free:sensor=3,video=2:interval=0.1-0.9", "events=1:2"
    )
    assert built[:2] == [Isolation(), Isolation(1.5)]
    assert built[2] == ClassifierFree(1.0, {"video": 2.0, "accelerometer": 3.0, "force": 3.0}, (0.1, 0.9))
    assert (built[3].scale, built[3].measurement.times) == (2.0, (1.0,))
    assert isinstance(built[3].measurement, Events)
    guider = "diffusers:AdaptiveProjectedGuidance:parallel=0"
    shares = build(pipeline, "isolation:2", "isolation:2:parallel=0.5", guider)
    assert [guidance.parallel for guidance in shares] == [1.0, 0.5, 0.0]
    sightless = SimpleNamespace(codecs=Codecs(None, None, None, pipeline.codecs.sensor))
    with pytest.raises(SettingsError, match="--guide isolation:video=2: this model has no video"):
        build(sightless, "isolation:video=2")


def test_a_classifier_is_the_one_given_or_the_pipelines(pipeline: Any) -> None:
    judge = object()
    (guidance,) = build(pipeline, "classifier:material=glass:2", classifier=judge)
    assert guidance == Classifier(2.0, classifier=judge, attribute="material", value="glass")  # pyright: ignore[reportArgumentType]
    own = SimpleNamespace(codecs=pipeline.codecs, classifier=judge)
    assert build(own, "classifier:material=glass")[0].classifier is judge
    with pytest.raises(SettingsError, match="this model has no classifier of noised latents"):
        build(pipeline, "classifier:material=glass")


def test_a_models_folder_may_hold_its_classifier(pipeline: Any, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    shapes = pipeline.codecs.shapes()
    modalities = [{"name": n, "tokens": t, "channels": c, "group": g} for n, (t, c, g) in shapes.items()]
    LatentClassifier(modalities, {"material": ["glass", "wood"]}, width=64, depth=1, heads=1).save_pretrained(
        tmp_path / "model" / "classifier"
    )
    own = SimpleNamespace(codecs=pipeline.codecs, model_name=str(tmp_path / "model"), device=torch.device("cpu"))
    assert isinstance(build(own, "classifier:material=glass")[0].classifier, LatentClassifier)
    with pytest.raises(SettingsError, match="material 'gold' is none of glass, wood"):
        build(own, "classifier:material=gold")


def test_guiders_of_diffusers_have_their_own_scales(pipeline: Any, capfd: pytest.CaptureFixture[str]) -> None:
    everywhere, some = build(
        pipeline, "diffusers:ClassifierFreeGuidance:3", "diffusers:AdaptiveProjectedGuidance:audio=4"
    )
    assert isinstance(everywhere, DiffusersGuider)
    assert (everywhere.guider.guidance_scale, everywhere.scale) == (3.0, 1.0)
    assert (some.guiders["audio"].guidance_scale, some.scale, some.scales) == (4.0, 0.0, {"audio": 1.0})
    assert "experimental" not in capfd.readouterr().err


def test_a_weaker_model_is_loaded(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    asked: list[Any] = []
    models = {"small": pipeline, "deaf": SimpleNamespace(codecs=Codecs(None, None, None, pipeline.codecs.sensor))}
    load = staticmethod(lambda name, device: asked.append((name, device)) or models[name])
    monkeypatch.setattr(CounterpointPipeline, "from_pretrained", load)
    (guidance,) = build(pipeline, "auto=small:1.8")
    assert isinstance(guidance, AutoGuidance)
    assert (guidance.scale, guidance.weak, asked) == (1.8, pipeline, [("small", "cpu")])
    with pytest.raises(SettingsError, match="--guide auto=deaf: its latents differ"):
        build(pipeline, "auto=deaf")


def measurement(pipeline: Any, text: str) -> Any:
    (guidance,) = build(pipeline, text)
    assert isinstance(guidance, Reconstruction)
    return guidance.measurement


def test_a_sound_gives_its_envelope(pipeline: Any, tmp_path: Path) -> None:
    wave = (0.2 * np.sin(np.arange(16000) * 0.3) * np.linspace(0, 1, 16000)).astype(np.float32)
    Clip(audio=Track(np.stack([wave, wave]), 16000.0)).save(tmp_path / "rise.wav")
    measured = measurement(pipeline, f"loudness={tmp_path / 'rise.wav'}")
    assert isinstance(measured, Loudness)
    torch.testing.assert_close(measured.envelope, loudness_of(torch.from_numpy(wave)[None, None])[0], atol=0.02, rtol=0)


def test_a_table_of_sensors_gives_one_guidance_each(pipeline: Any, tmp_path: Path) -> None:
    (tmp_path / "fast.csv").write_text(
        "time,accelerometer.z [m/s²],accelerometer.x [m/s²],accelerometer.y [m/s²]\n"
        + "".join(f"{i / 100:.2f},{i},{'nan' if i == 3 else -i},{2 * i}\n" for i in range(20))
    )
    (tmp_path / "slow.csv").write_text("time,force.z [N]\n" + "".join(f"{i / 10:.1f},{i}\n" for i in range(9)))
    fast = measurement(pipeline, f"sensor={tmp_path / 'fast.csv'}")
    assert isinstance(fast, Masked)
    assert fast.values[:, 5].tolist() == [-5.0, 10.0, 5.0]  # x, y, z, the codec's order
    assert fast.values.isnan().nonzero().tolist() == [[0, 3]]
    slow = measurement(pipeline, f"sensor={tmp_path / 'slow.csv'}")
    assert isinstance(slow, LowRate)
    assert slow.rate == pytest.approx(10.0)
    assert slow.values[0].tolist() == pytest.approx(list(range(9)))
    (tmp_path / "other.csv").write_text("time,heat.a [K]\n0,1\n0.1,2\n")
    with pytest.raises(ClipError, match="no sensor that this model knows, only heat"):
        build(pipeline, f"sensor={tmp_path / 'other.csv'}")


def test_a_video_is_brought_down(pipeline: Any, tmp_path: Path) -> None:
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    frames[:, :, 32:] = 255
    Clip(video=Track(frames, 12.5)).save(tmp_path / "half.mp4")
    measured = measurement(pipeline, f"video={tmp_path / 'half.mp4'}")
    assert isinstance(measured, Downsampled)
    assert measured.video.shape == (3, 8, 16, 16)
    assert measured.rate == pytest.approx(12.5)
    assert float(measured.video[..., 0].max()) < -0.9
    assert float(measured.video[..., -1].min()) > 0.9
