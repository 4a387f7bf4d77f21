"""The settings of a node: where they are found, what they mean, and how errors name what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import fields

from hoster.config.files import FileMissing
from hoster.config.settings import (
    DEFAULT_PLACES,
    ReplicationSettings,
    Settings,
    find_settings_file,
    read_settings,
)
from hoster.config.settings_file import Document, TargetKeep
from hoster.errors import ConfigurationError
from hoster.model.names import SnapshotType


def settings_from(folder: Path, text: str | bytes, name: str = "hoster.toml") -> Settings:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings(path)


def test_the_shortest_file_names_the_datasets_and_the_rest_has_defaults(tmp_path: Path) -> None:
    settings = settings_from(tmp_path, 'datasets = ["tank/vms", "fast/vms"]')

    assert settings == Settings(
        read_from=tmp_path / "hoster.toml",
        datasets=("tank/vms", "fast/vms"),
        hostname=None,
        tags=(),
        ssh_keys=(),
        dns_servers=(),
        dns_search_domain="",
        state_dir=Path("/var/lib/hoster"),
        run_dir=Path("/var/run/hoster"),
        replication=ReplicationSettings(
            keep=2,
            target_keep={
                SnapshotType.FREQUENT: 96,
                SnapshotType.HOURLY: 72,
                SnapshotType.DAILY: 60,
                SnapshotType.WEEKLY: 26,
                SnapshotType.MONTHLY: 36,
                SnapshotType.YEARLY: 10,
                SnapshotType.REPLICATION: 5,
            },
            speed_limit_mib_s=None,
            connect_timeout_s=10,
        ),
    )


def test_every_key_is_read(tmp_path: Path) -> None:
    settings = settings_from(
        tmp_path,
        """
        datasets = ["tank/vms"]
        hostname = "node1"
        tags = ["a", "b"]
        ssh-keys = ["ssh-ed25519 AAAA root@node1"]
        dns-servers = ["10.0.0.1"]
        dns-search-domain = "example.lan"
        state-dir = "/srv/hoster"
        run-dir = "/run/hoster"
        [replication]
        keep = 3
        speed-limit = 90
        connect-timeout = 2
        [replication.target-keep]
        custom = 7
        daily = 400
        """,
    )

    assert settings == Settings(
        read_from=tmp_path / "hoster.toml",
        datasets=("tank/vms",),
        hostname="node1",
        tags=("a", "b"),
        ssh_keys=("ssh-ed25519 AAAA root@node1",),
        dns_servers=("10.0.0.1",),
        dns_search_domain="example.lan",
        state_dir=Path("/srv/hoster"),
        run_dir=Path("/run/hoster"),
        replication=ReplicationSettings(
            keep=3,
            target_keep={
                **ReplicationSettings().target_keep,
                SnapshotType.CUSTOM: 7,
                SnapshotType.DAILY: 400,
            },
            speed_limit_mib_s=90,
            connect_timeout_s=2,
        ),
    )


def test_custom_snapshots_are_never_pruned_on_a_target_unless_a_number_is_given() -> None:
    assert SnapshotType.CUSTOM not in ReplicationSettings().target_keep


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert settings_from(tmp_path, b'\xef\xbb\xbfdatasets = ["tank/vms"]').datasets == ("tank/vms",)


def test_a_settings_file_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text('datasets = ["tank/vms"]')
    (tmp_path / "hoster.toml").symlink_to("real.toml")

    assert read_settings(tmp_path / "hoster.toml").datasets == ("tank/vms",)


DATASETS = 'datasets = ["tank/vms"]\n'

MALFORMED = [
    ("syntax", 'datasets = ["tank/vms"\nb', [":2:1: not TOML: Unclosed array"]),
    ("cut short", "datasets = ", [":1:12: not TOML: Invalid value"]),
    ("twice", DATASETS + DATASETS, [":2:24: not TOML: Cannot overwrite a value"]),
    ("newline in a text", 'datasets = ["a\nb"]', [":1:15: not TOML: Illegal character"]),
    ("latin-1", b'datasets = ["a"]\nhostname = "B\xfcro"', [":2: found the byte 0xfc", "UTF-8"]),
    ("deep", "x = " + "[" * 100_000, ["too many levels"]),
    ("empty", "", ["datasets: found nothing, expected a list of texts"]),
    ("no dataset", "datasets = []", ["datasets: found none, expected at least one dataset"]),
    ("a text", 'datasets = "tank/vms"', ['datasets: found the text "tank/vms", expected a list']),
    ("a number", "datasets = [1]", ["datasets[0]: found the number 1, expected a text"]),
    ("not a dataset", 'datasets = ["tank/vms", "tank//b"]', ["datasets[1]: 'tank//b' is not a dataset name"]),
    ("a hyphen", 'datasets = ["-tank"]', ["datasets[0]: '-tank' is not a dataset name"]),
    ("a snapshot", 'datasets = ["tank/vms@a"]', ["datasets[0]: 'tank/vms@a' is not a dataset name"]),
    ("the same twice", 'datasets = ["a/b", "a/b"]', ['datasets[1]: found "a/b" a second time']),
    ("no name", DATASETS + 'hostname = ""', ["hostname: found an empty text, expected a text that is not"]),
    ("a date", DATASETS + "hostname = 2024-01-01", ["hostname: found a date, expected a text"]),
    ("tags", DATASETS + 'tags = ["a", true]', ["tags[1]: found true, expected a text"]),
    ("relative", DATASETS + 'state-dir = "var"', ['state-dir: found the text "var", expected a path that']),
    (
        "none kept",
        DATASETS + "[replication]\nkeep = 0",
        ["replication.keep: found the number 0", "at least 1"],
    ),
    ("keep text", DATASETS + 'replication.keep = "2"', ['replication.keep: found the text "2", expected a']),
    ("keep true", DATASETS + "replication.keep = true", ["replication.keep: found true, expected a whole"]),
    ("fraction", DATASETS + "replication.keep = 1.5", ["found the number 1.5, expected a whole number"]),
    ("speed", DATASETS + 'replication.speed-limit = "90M"', ['speed-limit: found the text "90M", expected']),
    ("timeout", DATASETS + "replication.connect-timeout = 0", ["replication.connect-timeout", "at least 1"]),
    ("no table", DATASETS + "replication = 3", ["replication: found the number 3, expected a table"]),
    (
        "negative",
        DATASETS + "replication.target-keep.daily = -1",
        ["replication.target-keep.daily: found the"],
    ),
    (
        "list",
        DATASETS + "replication.target-keep = []",
        ["replication.target-keep: found a list, expected a"],
    ),
]


@pytest.mark.parametrize(
    ("text", "words"), [(text, words) for _, text, words in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_malformed_settings_are_refused_with_their_place_and_what_was_expected(
    tmp_path: Path, text: str | bytes, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(tmp_path, text)

    message = caught.value.message
    assert message.startswith(f"{tmp_path}/hoster.toml:")
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ('dataset = ["tank/vms"]', "dataset", "did you mean datasets?"),
        (DATASETS + 'ssh_keys = ["a"]', "ssh_keys", "did you mean ssh-keys?"),
        (DATASETS + "[replicaton]\nkeep = 2", "replicaton", "did you mean replication?"),
        (DATASETS + "[replication]\nspeed_limit = 2", "replication.speed_limit", "did you mean speed-limit?"),
        (
            DATASETS + "replication.target-keep.dayly = 2",
            "replication.target-keep.dayly",
            "did you mean daily?",
        ),
        (DATASETS + "qqq = 1", "qqq", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_known_ones_and_the_nearest(
    tmp_path: Path, text: str, place: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(tmp_path, text)

    assert f"hoster.toml: {place}: found an unknown key, expected one of: " in caught.value.message
    assert caught.value.hint == hint


def test_the_known_keys_are_named_for_an_unknown_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(tmp_path, "x = 1")

    known = sorted(info.encode_name for info in fields(Document))
    assert caught.value.message.endswith(f"expected one of: {', '.join(known)}")


def test_hosters_own_configuration_is_understood(tmp_path: Path) -> None:
    text = json.dumps(
        {
            "public_vm_image_server": "https://images.example.org/",
            "tags": ["a"],
            "active_datasets": ["tank/vm-encrypted", "tank/vm-unencrypted"],
            "dns_servers": ["10.0.0.1"],
            "dns_search_domain": "example.lan",
            "host_ssh_keys": [{"key_value": "ssh-ed25519 AAAA a", "comment": "A"}, {"comment": "none"}],
            "backup_servers": [1.5, {"anything": None}],
        }
    )

    settings = settings_from(tmp_path, text, "host_config.json")

    assert settings == Settings(
        read_from=tmp_path / "host_config.json",
        datasets=("tank/vm-encrypted", "tank/vm-unencrypted"),
        tags=("a",),
        ssh_keys=("ssh-ed25519 AAAA a",),
        dns_servers=("10.0.0.1",),
        dns_search_domain="example.lan",
    )


def test_lists_may_be_null_in_hosters_own_configuration(tmp_path: Path) -> None:
    text = '{"active_datasets": ["tank/vms"], "tags": null, "host_ssh_keys": null, "dns_servers": null}'

    assert settings_from(tmp_path, text, "host_config.json").tags == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["host_config.json:1:2: found the end of the file"]),
        ("{}", ["host_config.json: active_datasets: found none, expected at least one dataset"]),
        ('{"active_datasets": null}', ["active_datasets: found none"]),
        ('{"active_datasets": "a"}', ['active_datasets: found the text "a", expected a list']),
        ('{"active_datasets": ["a b"]}', ["active_datasets[0]: 'a b' is not a dataset name"]),
        (
            '{"host_ssh_keys": [{"key_value": 1.5}]}',
            ["host_ssh_keys[0].key_value: found the number 1.5, expected a text"],
        ),
    ],
)
def test_errors_in_hosters_own_configuration_name_their_place(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(tmp_path, text, "host_config.json")

    assert [word for word in words if word not in caught.value.message] == []


def folders(tmp_path: Path, **names: str) -> list[Path]:
    """Folders, each with an empty file of the given name if there is one."""
    for folder, name in names.items():
        (tmp_path / folder).mkdir()
        if name:
            (tmp_path / folder / name).touch()
    return [tmp_path / folder for folder in names]


def test_the_first_hoster_toml_in_the_order_of_the_folders_is_taken(tmp_path: Path) -> None:
    places = folders(tmp_path, a="", b="hoster.toml", c="hoster.toml")

    assert find_settings_file({}, places) == tmp_path / "b" / "hoster.toml"


def test_hosters_own_configuration_counts_only_where_there_is_no_hoster_toml(tmp_path: Path) -> None:
    places = folders(tmp_path, a="host_config.json", b="hoster.toml")

    assert find_settings_file({}, places) == tmp_path / "b" / "hoster.toml"
    assert find_settings_file({}, places[:1]) == tmp_path / "a" / "host_config.json"


def test_the_environment_comes_first(tmp_path: Path) -> None:
    places = folders(tmp_path, a="hoster.toml", b="mine.toml")

    assert find_settings_file({"HOSTER_CONFIG": str(tmp_path / "b/mine.toml")}, places) == (
        tmp_path / "b" / "mine.toml"
    )
    assert find_settings_file({"HOSTER_CONFIG": ""}, places) == tmp_path / "a" / "hoster.toml"


def test_a_file_that_the_environment_names_and_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    places = folders(tmp_path, a="hoster.toml")

    with pytest.raises(FileMissing, match=r"/nowhere\.toml: HOSTER_CONFIG names it"):
        find_settings_file({"HOSTER_CONFIG": "/nowhere.toml"}, places)


def test_a_dangling_symlink_is_found_and_then_named_not_passed_over(tmp_path: Path) -> None:
    places = folders(tmp_path, a="", b="hoster.toml")
    (tmp_path / "a" / "hoster.toml").symlink_to("nowhere")

    found = find_settings_file({}, places)

    assert found == tmp_path / "a" / "hoster.toml"
    with pytest.raises(FileMissing):
        read_settings(found)


def test_where_there_is_nothing_the_hint_is_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_settings_file({}, [tmp_path / "a", tmp_path / "b"])

    assert f"{tmp_path}/a, {tmp_path}/b" in caught.value.message
    assert caught.value.hint == "hoster init --dataset POOL/DATASET"


def test_the_default_places_are_hosters_in_its_order() -> None:
    assert [str(place) for place in DEFAULT_PLACES] == [
        "/opt/hoster-core/config_files",
        "/opt/hoster/config_files",
        "/usr/local/etc/hoster",
        "/etc/hoster",
        "/root/hoster/config_files",
    ]


def test_the_target_keep_table_has_a_key_for_each_type_of_snapshot() -> None:
    assert set(TargetKeep.__struct_encode_fields__) == {stype.value for stype in SnapshotType}
