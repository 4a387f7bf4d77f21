"""Which names are legal, and what a snapshot's name says."""

from __future__ import annotations

import string
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoster.model.names import (
    LONGEST_SUFFIX,
    MAX_DATASET_NAME,
    Endpoint,
    SnapshotLabel,
    SnapshotType,
    dataset_name,
    endpoint,
    existing_snapshot_name,
    existing_vm_name,
    job_name,
    new_snapshot_name,
    next_snapshot_name,
    shown,
    snapshot_label,
    snapshot_type,
    vm_name,
)

LEGAL = string.ascii_letters + string.digits + "_.:-"
NOON = datetime(2023, 8, 12, 13, 21, 36)


@pytest.mark.parametrize("stype", SnapshotType)
@pytest.mark.parametrize(
    "form",
    ["_2023-08-12_13-21-36", "_2023-08-12_13-21-36_2", "_20230812_132136.123456", "_20230812_132136.1"],
)
def test_both_forms_of_every_type_are_understood(stype: SnapshotType, form: str) -> None:
    assert snapshot_label(stype.value + form) == SnapshotLabel(stype, NOON)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "manual",
        "hourly",
        "hourly_",
        "Hourly_2023-08-12_13-21-36",
        "minutely_2023-08-12_13-21-36",
        "autosnap_2023-08-12_13:21:36_hourly",
        "hourly_2023-08-12_13-21-36_",
        "hourly_2023-08-12_13-21-36_x",
        "hourly_2023-08-12_13-21-36-2",
        "hourly_2023-08-12_13-21",
        "hourly_2023-02-30_13-21-36",
        "hourly_2023-08-12_24-00-00",
        "hourly_0000-08-12_13-21-36",
        "hourly_20230812_132136",
        "hourly_20230812_132136.1234567",
        "hourly_20230230_132136.123456",
        "hourly_20230812_132136.123456_2",
        "x_hourly_2023-08-12_13-21-36",
        " hourly_2023-08-12_13-21-36",
        "hourly_2023-08-12_13-21-36\n",
        "hourly_２０２３-08-12_13-21-36",
    ],
)
def test_a_name_that_hoster_did_not_make_is_the_users(name: str) -> None:
    assert snapshot_label(name) is None


@given(
    stype=st.sampled_from(SnapshotType),
    now=st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1)),
    others=st.integers(0, 4),
)
def test_a_new_name_is_new_and_says_its_type_and_time(
    stype: SnapshotType, now: datetime, others: int
) -> None:
    taken: set[str] = set()
    for _ in range(others):
        taken.add(new_snapshot_name(stype, now, taken))
    name = new_snapshot_name(stype, now, taken)
    assert len(taken) == others
    assert name not in taken
    assert snapshot_label(name) == SnapshotLabel(stype, now.replace(microsecond=0))


def test_the_second_and_third_of_a_second_are_numbered() -> None:
    first = new_snapshot_name(SnapshotType.CUSTOM, NOON, [])
    second = new_snapshot_name(SnapshotType.CUSTOM, NOON, [first])
    third = new_snapshot_name(SnapshotType.CUSTOM, NOON, [first, second])
    assert [first, second, third] == [
        "custom_2023-08-12_13-21-36",
        "custom_2023-08-12_13-21-36_2",
        "custom_2023-08-12_13-21-36_3",
    ]


@pytest.mark.parametrize("name", ["manual", "custom_2023-08-12", "hourly_20230812_132136.123456", ""])
def test_only_a_name_that_hoster_gives_has_a_next_one(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name that hoster gives"):
        next_snapshot_name(name)


@pytest.mark.parametrize(("name", "follows"), [("", "_2"), ("_2", "_3"), ("_9", "_10")])
def test_the_next_name_counts_on(name: str, follows: str) -> None:
    plain = "custom_2023-08-12_13-21-36"
    assert next_snapshot_name(plain + name) == plain + follows


def test_the_longest_snapshot_name_fits_where_a_datasets_name_leaves_room() -> None:
    longest = max(len(new_snapshot_name(t, NOON, [])) for t in SnapshotType)
    assert 1 + longest + len("_99") <= LONGEST_SUFFIX
    assert len(dataset_name("t/" + "w" * (MAX_DATASET_NAME - LONGEST_SUFFIX - 2))) == 214


@pytest.mark.parametrize("text", ["frequent", "custom", "replication"])
def test_a_type_is_known_by_its_word(text: str) -> None:
    assert snapshot_type(text).value == text


@pytest.mark.parametrize("text", ["", "Daily", "daily ", "minutely"])
def test_an_unknown_type_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="is not a snapshot type"):
        snapshot_type(text)


@pytest.mark.parametrize(
    "name", ["web", "web1", "web2", "A", "a", "a..b", "a.c", "a:b", "_x", "0", "a-", "a."]
)
def test_a_vm_may_be_called(name: str) -> None:
    assert vm_name(name) == name
    assert dataset_name(f"tank/vm/{name}") == f"tank/vm/{name}"
    assert job_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        ":x",
        "--all",
        "a b",
        " a",
        "a ",
        "a\tb",
        "a\n",
        "a\x00",
        "ä",
        "web１",
        *(f"a{sign}b" for sign in "/;$()'\"*?%,+=~#@&|<>!\\`{}[]^"),
        "$(id)",
        "`id`",
        "; rm -rf /",
    ],
)
def test_a_vm_or_a_job_may_not_be_called(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a VM"):
        vm_name(name)
    with pytest.raises(ValueError, match="cannot name a job"):
        job_name(name)


@pytest.mark.parametrize(
    "name", ["web.branch-2024-01-01", "web.branch-2", "a.branch-0.branch-x", "web.swap-2"]
)
def test_no_vm_may_have_the_name_of_a_branch(name: str) -> None:
    with pytest.raises(ValueError, match="kept for set-aside states"):
        vm_name(name)


def test_a_branch_name_without_a_date_is_just_a_name() -> None:
    assert vm_name("web.branch-office") == "web.branch-office"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "tank/",
        "/tank",
        "tank//vm",
        "tank/-x",
        "tank/.",
        "tank/../etc",
        "tank/a b",
        "tank@x",
        "tänk/vm",
    ],
)
def test_a_dataset_may_not_be_called(name: str) -> None:
    with pytest.raises(ValueError, match="is not a dataset name"):
        dataset_name(name)


@pytest.mark.parametrize(("length", "fits"), [(214, True), (215, False), (254, False), (300, False)])
def test_a_dataset_name_leaves_room_for_snapshots_and_bookmarks(length: int, fits: bool) -> None:
    name = "t/" + "w" * (length - 2)
    if fits:
        assert dataset_name(name) == name
    else:
        with pytest.raises(ValueError, match=f"dataset name of {length} characters is too long"):
            dataset_name(name)


@pytest.mark.parametrize(
    ("text", "host", "user"),
    [
        ("backup1", "backup1", ""),
        ("root@backup1", "backup1", "root"),
        ("root@10.5.199.85", "10.5.199.85", "root"),
        ("backup1.example.org", "backup1.example.org", ""),
        ("root@fe80::1%eth0", "fe80::1%eth0", "root"),
        ("::1", "::1", ""),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", ""),
        ("my_host", "my_host", ""),
    ],
)
def test_an_endpoint_is_a_host_with_or_without_a_user(text: str, host: str, user: str) -> None:
    assert endpoint(text) == Endpoint(host, user)
    assert str(endpoint(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "root@",
        "@host",
        "-oProxyCommand=touch /tmp/x",
        "root@-oProxyCommand=x",
        "-l@host",
        "h;id",
        "h$(id)",
        "h`id`",
        "h'x",
        'h"x',
        "h x",
        "h\n",
        "h\nx",
        "h\x00",
        "[::1]:22",
        "[::1]",
        "host:22",
        "ssh://host",
        "a@b@c",
        "höst",
        "h|x",
        "h&x",
        "h/x",
        "h\\x",
        ".",
        "%h",
    ],
)
def test_what_ssh_could_take_for_something_else_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint: expected HOST or USER@HOST"):
        endpoint(text)


@given(st.text(max_size=12))
def test_whatever_passes_as_a_name_holds_legal_characters_only_and_is_no_option(text: str) -> None:
    for judge in (vm_name, job_name, dataset_name):
        try:
            judge(text)
        except ValueError:
            continue
        assert set(text) <= {*LEGAL, "/"}
        assert text[0] in string.ascii_letters + string.digits + "_"


@given(st.text(max_size=12))
def test_whatever_passes_as_an_endpoint_is_one_word_and_no_option(text: str) -> None:
    try:
        found = endpoint(text)
    except ValueError:
        return
    for word in (found.host, found.user):
        assert not word.startswith("-")
        assert set(word) <= {*LEGAL, "%"}


@pytest.mark.parametrize("text", ["web", "my web", "web-2", ":x", ".x", "a..b", "x" * 255])
def test_a_vm_that_exists_may_have_any_name_that_zfs_has_but_for_a_leading_hyphen(text: str) -> None:
    assert existing_vm_name(text) == text


@pytest.mark.parametrize("text", ["", " ", ".", "..", "a/b", "a@b", "a\n", "ä", "-F", "x" * 256])
def test_anything_else_is_no_name_of_a_vm(text: str) -> None:
    with pytest.raises(ValueError, match="is no name of a VM"):
        existing_vm_name(text)


@pytest.mark.parametrize(
    "text", ["daily_2024-01-01_00-00-00", "by hand - 1", "tank/vm/my web@by hand", "x" * 255]
)
def test_a_snapshot_that_exists_is_named_in_short_or_in_full(text: str) -> None:
    assert existing_snapshot_name(text) == text


@pytest.mark.parametrize("text", ["", "..", "a@b@c", "a@", "@a", "a/b", "a\nb", "-F", "x" * 256])
def test_anything_else_is_no_name_of_a_snapshot(text: str) -> None:
    with pytest.raises(ValueError, match="is no name of a snapshot"):
        existing_snapshot_name(text)


def test_a_very_long_text_is_not_said_again_in_full() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert shown("x" * 1000) == f"{'x' * 60!r}… (1000 characters)"
    with pytest.raises(ValueError, match=r"x{60}'… \(300 characters\) is not an endpoint"):
        endpoint("x" * 300)


def test_names_of_hosts_and_jobs_have_their_longest() -> None:
    assert str(endpoint(f"root@{'x' * 253}")) == f"root@{'x' * 253}"
    assert job_name("x" * 200) == "x" * 200
    for refused, text in ((endpoint, "x" * 254), (job_name, "x" * 201)):
        with pytest.raises(ValueError, match="characters"):
            refused(text)
