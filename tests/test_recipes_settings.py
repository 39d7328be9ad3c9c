"""Settings: typed overrides, errors that name the key, and JSON that gives the same settings back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from counterpoint.recipes.settings import SettingsError, flatten, from_json, override, to_json


@dataclass(frozen=True)
class Model:
    depth: int = 4
    widths: tuple[int, ...] = (64, 128)
    kind: Literal["shared", "private"] = "shared"


@dataclass(frozen=True)
class Settings:
    steps: int = 10
    lr: float = 1e-3
    ema: bool = True
    name: str = "x"
    data: Path = Path("runs/data")
    limit: int | None = None
    shape: tuple[int, float] = (1, 2.0)
    weights: dict[str, float] = field(default_factory=lambda: {"video": 1.0})
    model: Model = Model()

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError("steps must not be negative")


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("steps=100", "steps", 100),
        ("steps=0", "steps", 0),
        ("lr=3e-4", "lr", 3e-4),
        ("lr=1", "lr", 1.0),
        ("ema=false", "ema", False),
        ("ema=on", "ema", True),
        ("name=a=b", "name", "a=b"),
        ("data=some/where", "data", Path("some/where")),
        ("limit=5", "limit", 5),
        ("limit=none", "limit", None),
        ("shape=3,4", "shape", (3, 4.0)),
        ("weights=video:1,audio:0.5", "weights", {"video": 1.0, "audio": 0.5}),
        ("model.depth=6", "model.depth", 6),
        ("model.widths=(1, 2, 2)", "model.widths", (1, 2, 2)),
        ("model.kind=private", "model.kind", "private"),
    ],
)
def test_override_reads_by_annotation(change, key, value):
    changed = flatten(override(Settings(), [change]))[key]
    assert changed == value
    assert type(changed) is type(value)


def test_override_leaves_the_rest_and_the_original():
    before = Settings()
    after = override(before, ["model.depth=6", "steps=1", "steps=2"])
    assert (before.model.depth, after.model.depth, after.steps) == (4, 6, 2)
    assert after.model.widths == before.model.widths


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stpes=1", "unknown setting 'stpes'; nearest: 'steps'"),
        ("model.dpeth=1", "unknown setting 'model.dpeth'; nearest: 'model.depth'"),
        ("steps=ten", "setting 'steps': 'ten' is not an integer"),
        ("steps=1.5", "setting 'steps': '1.5' is not an integer"),
        ("ema=perhaps", "setting 'ema': 'perhaps' is not true or false"),
        ("limit=many", "setting 'limit': 'many' is not an integer or none"),
        ("shape=1,2,3", "setting 'shape': '1,2,3' is not a list such as 1,1"),
        ("weights=video", "setting 'weights': 'video' is not a list of name:value"),
        ("model.kind=other", "setting 'model.kind': 'other' is not one of 'shared', 'private'"),
        ("model=3", "'model' is a group of settings; set one of its own, e.g. 'model.depth'"),
        ("lr.x=3", "unknown setting 'lr.x': 'lr' has no settings of its own"),
        ("steps", "'steps' is not a setting; write key=value"),
        ("steps=-1", "setting 'steps': steps must not be negative"),
    ],
)
def test_override_names_key_and_type(change, message):
    with pytest.raises(SettingsError) as caught:
        override(Settings(), [change])
    assert str(caught.value) == message


def test_json_round_trip(tmp_path):
    settings = override(Settings(), ["limit=3", "model.widths=1,2,3", "data=elsewhere", "weights=force:0.1"])
    assert from_json(Settings, to_json(settings, tmp_path / "settings.json")) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"stpes": 1}', "unknown setting 'stpes'; nearest: 'steps'"),
        ('{"model": {"dpeth": 1}}', "unknown setting 'model.dpeth'; nearest: 'model.depth'"),
        ('{"steps": "1"}', "setting 'steps': '1' is not an integer"),
        ('{"ema": 1}', "setting 'ema': 1 is not true or false"),
        ('{"model": 3}', "setting 'model' must be a JSON object"),
        ("[1]", "the settings must be one JSON object"),
        ("{", "not JSON"),
    ],
)
def test_json_errors_name_file_and_key(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"settings\.json: ") as caught:
        from_json(Settings, path)
    assert message in str(caught.value)
