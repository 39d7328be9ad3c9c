"""What the list of models says of scores: synchronization, or what music obeys."""

import json

import pytest

from counterpoint.cli.models import RECORDINGS, _scores, find_model
from counterpoint.recipes.settings import SettingsError


def test_scores_of_music_and_of_tracks(tmp_path):
    assert _scores(tmp_path) == ""
    adherence = {"tempo": {"generated": 0.701}, "key": {"generated": 0.5}, "drums": {"generated": 1.0}}
    (tmp_path / "scores.json").write_text(json.dumps({"adherence": adherence}))
    assert _scores(tmp_path) == "tempo 0.70, key 0.50"
    sync = {"audio-video": {"generated": {"f1": 0.3}}}
    (tmp_path / "scores.json").write_text(json.dumps({"sync": sync, "adherence": adherence}))
    assert _scores(tmp_path) == "audio-video F1 0.30"
    (tmp_path / "scores.json").write_text(json.dumps({"ratio": 0.914}))
    assert _scores(tmp_path) == "a classifier of generated windows: 0.91 of one of real ones"


def test_a_model_of_series_is_no_model_of_clips(tmp_path):
    (tmp_path / RECORDINGS).write_text("{}")
    with pytest.raises(SettingsError, match="is one of series; use `counterpoint sensors"):
        find_model(str(tmp_path))
