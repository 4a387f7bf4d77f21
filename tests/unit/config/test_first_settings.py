"""The settings that `hoster init` writes: what they mean, and that nothing is overwritten by them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hoster.config.settings import (
    BranchSettings,
    ReplicationSettings,
    Settings,
    first_settings_text,
    read_settings,
    write_first_settings,
)
from hoster.config.settings_file import Branches, Document, Replication, TargetKeep
from hoster.errors import ConfigurationError, HosterError
from hoster.model.names import SnapshotType
from hoster.model.promises import Promises
from hoster.model.schedules import all_jobs


def settings_from(folder: Path, text: str) -> Settings:
    path = folder / "hoster.toml"
    path.write_text(text)
    return read_settings(path)


def test_the_first_settings_mean_the_defaults(tmp_path: Path) -> None:
    settings = settings_from(tmp_path, first_settings_text(["tank/vms", "fast/vms"]))

    assert settings == Settings(tmp_path / "hoster.toml", ("tank/vms", "fast/vms"))


def test_the_first_settings_show_every_key_with_its_default_or_an_example(tmp_path: Path) -> None:
    shown = first_settings_text(["tank/vms"])
    text = re.sub(r"^# ([a-z-]+ = |\[schedules)", r"\1", shown, flags=re.MULTILINE)

    settings = settings_from(tmp_path, text)

    assert settings == Settings(
        tmp_path / "hoster.toml",
        ("tank/vms",),
        hostname="node1",
        hypervisor="qemu",
        replication=ReplicationSettings(
            speed_limit_mib_s=90,
            target_keep={**ReplicationSettings().target_keep, SnapshotType.CUSTOM: 1000},
        ),
        branches=BranchSettings(expire_after_days=90),
        key_location="/root/keys/{vm}",
        textfile_dir=Path("/var/lib/prometheus/node-exporter"),
        promises=Promises(by_vm={"web1": 15}, by_tag={"database": 60}),
        schedules=settings.schedules,
    )
    assert [job.name for job in all_jobs(settings.schedules)] == [
        "production_hourly",
        "production_daily",
        "production_backup",
        "production_usb",
    ]
    for table in (Document, Branches, Replication, TargetKeep):
        for key in table.__struct_encode_fields__:
            assert re.search(
                rf"^({key} = |\[(replication\.)?{key}(\.production)?\]$)", text, flags=re.MULTILINE
            ), key


def test_a_dataset_that_cannot_be_one_is_not_put_into_the_first_settings() -> None:
    with pytest.raises(ValueError, match="is not a dataset name"):
        first_settings_text(['tank/vms"]\nhostname = "x'])


def test_first_settings_are_written_once_and_never_over_others(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "hoster" / "hoster.toml"
    write_first_settings(path, first_settings_text(["tank/vms"]))

    with pytest.raises(ConfigurationError, match="is there already"):
        write_first_settings(path, first_settings_text(["other/vms"]))

    assert read_settings(path).datasets == ("tank/vms",)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["hoster.toml"]


def test_a_folder_that_cannot_be_made_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "etc").touch()

    with pytest.raises(HosterError, match="etc: cannot be made: File exists"):
        write_first_settings(tmp_path / "etc" / "hoster.toml", "")
