"""The settings of what a run leaves behind, and of what was promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoster.config.settings import Settings, read_settings
from hoster.errors import ConfigurationError
from hoster.model.promises import Promises

DATASETS = 'datasets = ["tank/vms"]\n'


def settings_from(folder: Path, text: str) -> Settings:
    path = folder / "hoster.toml"
    path.write_text(DATASETS + text)
    return read_settings(path)


def test_markers_have_the_originals_place_and_metrics_none_unless_it_is_set(tmp_path: Path) -> None:
    settings = settings_from(tmp_path, "")
    assert settings.marker_dir == Path("/var/run/replication")
    assert settings.textfile_dir is None
    settings = settings_from(tmp_path, 'marker-dir = "/run/markers"\ntextfile-dir = "/srv/metrics"')
    assert (settings.marker_dir, settings.textfile_dir) == (Path("/run/markers"), Path("/srv/metrics"))


def test_promises_are_read_in_minutes(tmp_path: Path) -> None:
    text = "[promises]\nrpo = 60\nvms = { web = 5 }\ntags = { db = 15 }"
    assert settings_from(tmp_path, text).promises == Promises(60, {"web": 5}, {"db": 15})
    assert settings_from(tmp_path, "").promises == Promises(1440)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('marker-dir = "x"', 'marker-dir: found the text "x", expected a path that begins with /'),
        ('textfile-dir = "x"', 'textfile-dir: found the text "x", expected a path that begins with /'),
        ("promises.rpo = 0", "promises.rpo: found the number 0, expected a whole number of at least 1"),
        (
            "promises.vms.a = 0",
            "promises.vms: found an object, expected a whole number of at least 1 for each",
        ),
        ('promises.tags.a = "x"', "promises.tags: found an object, expected a whole number for each key"),
        ("promises.rto = 1", "promises.rto: found an unknown key, expected one of: rpo, tags, vms"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(tmp_path, text)
    assert said in caught.value.message
