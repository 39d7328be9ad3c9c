"""What the list of models says of scores: synchronization, or what music obeys."""

import json

from counterpoint.cli.models import _scores


def test_scores_of_music_and_of_tracks(tmp_path):
    assert _scores(tmp_path) == ""
    adherence = {"tempo": {"generated": 0.701}, "key": {"generated": 0.5}, "drums": {"generated": 1.0}}
    (tmp_path / "scores.json").write_text(json.dumps({"adherence": adherence}))
    assert _scores(tmp_path) == "tempo 0.70, key 0.50"
    sync = {"audio-video": {"generated": {"f1": 0.3}}}
    (tmp_path / "scores.json").write_text(json.dumps({"sync": sync, "adherence": adherence}))
    assert _scores(tmp_path) == "audio-video F1 0.30"
