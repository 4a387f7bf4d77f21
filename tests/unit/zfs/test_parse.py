"""What zfs prints, turned into values: complete, or an error."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.errors import ZfsError
from hoster.model.storage import Dataset, DatasetKind, Epoch, Intent, Marks, Mode, ResumeToken, Role
from hoster.testing import dataset, listing
from hoster.zfs.parse import parse_epoch, parse_intent, parse_sites, parse_view, read_view

WEB = dataset("tank/vm/web", "h1+8! d1*^ manual #r1@1 r2@1 ~3", Role.PRIMARY)


def parsed(output: str, name: str = "tank/vm/web") -> Dataset:
    found = parse_view("local", output).get(name)
    assert found is not None
    return found


def with_line(output: str, name: str, key: str, value: str, source: str = "local") -> str:
    """``output`` with another value of one property."""
    lines = output.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith(f"{name}\t{key}\t"))
    lines[index] = f"{name}\t{key}\t{value}\t{source}"
    return "\n".join(lines) + "\n"


def test_a_listing_becomes_what_it_lists() -> None:
    volume = dataset("tank/vm/web/d0", "h1", kind=DatasetKind.VOLUME)
    root = replace(dataset("tank/vm"), mounted=True, mountpoint="/tank/vm", used=5)
    view = parse_view("backup1", listing(root, WEB, volume))
    assert view.node == "backup1"
    assert view.datasets == {"tank/vm": root, "tank/vm/web": WEB, "tank/vm/web/d0": volume}


@pytest.mark.parametrize(
    "one",
    [
        replace(WEB, readonly=True, partial=ResumeToken("1-abc-def")),
        replace(WEB, encrypted=True, key_loaded=False),
        replace(WEB, encrypted=True, key_loaded=True),
        replace(WEB, mounted=True, mountpoint="/a b/c"),
        replace(WEB, marks=Marks("x", Role.SUPERSEDED, Epoch(12, "node-2"), "node-2", False)),
        replace(WEB, marks=Marks()),
        replace(WEB, marks=Marks("x", Role.REPLICA, mode=Mode.RAW, key_digest="0123456789abcdef")),
        replace(WEB, marks=Marks(mode=Mode.PLAIN, swap=Intent("20240101T120000Z", 0x9A, "-", "tank/vm/web"))),
        replace(WEB, origin="tank/vm/web.branch-20240101T120000Z@h1"),
    ],
)
def test_every_property_of_a_dataset_comes_through(one: Dataset) -> None:
    assert parsed(listing(one)) == one


@given(data=st.data())
def test_the_order_of_the_rows_does_not_matter(data: st.DataObject) -> None:
    rows: dict[str, list[str]] = {}
    for line in listing(WEB, dataset("tank/vm/web2", "h1")).splitlines():
        rows.setdefault(line.split("\t")[0], []).append(line)
    order = data.draw(st.permutations(list(rows)))
    output = "".join(f"{line}\n" for name in order for line in rows[name])
    assert parsed(output) == WEB


@pytest.mark.parametrize("guid", [0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_guids_use_all_of_their_64_bits(guid: int) -> None:
    assert parsed(with_line(listing(WEB), "tank/vm/web@manual", "guid", str(guid))).snapshot_with(guid)


@given(text=st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), min_size=1))
def test_a_description_may_hold_tabs_newlines_and_anything_else(text: str) -> None:
    described = replace(WEB.snapshots[0], description=text)
    one = replace(WEB, snapshots=(described, *WEB.snapshots[1:]))
    if any(len(f := line.split("\t")) > 1 and f[1] in {"type", "guid"} for line in text.split("\n")):
        return  # looks like another property: cannot be told apart
    assert parsed(listing(one)).snapshots[0].description == text


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\n\nb\n", "\t", "\n", "a\tlocal", "x\ty\tz\nlocal"])
def test_a_value_that_ends_on_other_lines_is_put_together_again(text: str) -> None:
    output = with_line(listing(WEB), "tank/vm/web@manual", "hoster:sdescription", text)
    assert parsed(output).snapshots[2].description == text
    assert parsed(output).snapshots[3] == WEB.snapshots[3]


@pytest.mark.parametrize("noise", ["Welcome to backup1!", "a\tb", "\n\n", "you have mail\tin your\tbox"])
def test_what_a_login_says_before_the_listing_is_passed_over(noise: str) -> None:
    assert parsed(f"{noise}\n{listing(WEB)}") == WEB


@pytest.mark.parametrize("source", ["inherited from tank", "received", "default", "temporary", "-"])
@pytest.mark.parametrize("key", ["hoster:id", "hoster:role", "hoster:epoch", "hoster:parent"])
def test_only_local_marks_count(key: str, source: str) -> None:
    marked = parsed(with_line(listing(WEB), "tank/vm/web", key, "primary", source)).marks
    field = {"hoster:id": "vm_id", "hoster:parent": "parent"}.get(key, key.removeprefix("hoster:"))
    assert getattr(marked, field) is None


@pytest.mark.parametrize("source", ["inherited from tank/vm/web", "received"])
def test_a_snapshot_was_sent_by_us_only_if_it_says_so_itself(source: str) -> None:
    output = with_line(listing(WEB), "tank/vm/web@manual", "hoster:from", "x/1", source)
    assert parsed(output).snapshots[2].sent_by is None


@pytest.mark.parametrize("value", ["standby", "", "PRIMARY", "-"])
def test_a_role_that_nobody_knows_is_none(value: str) -> None:
    assert parsed(with_line(listing(WEB), "tank/vm/web", "hoster:role", value)).marks.role is None


@pytest.mark.parametrize("value", ["", "-", "RAW", "compressed"])
def test_a_mode_that_nobody_knows_is_none(value: str) -> None:
    assert parsed(with_line(listing(WEB), "tank/vm/web", "hoster:mode", value)).marks.mode is None


@pytest.mark.parametrize("key", ["hoster:mode", "hoster:key", "hoster:swap"])
def test_what_is_inherited_from_the_vm_above_marks_no_descendant(key: str) -> None:
    marked = {
        "hoster:mode": "raw",
        "hoster:key": "x",
        "hoster:swap": str(Intent("s", 1, "on", "tank/vm/web")),
    }
    output = with_line(listing(WEB), "tank/vm/web", key, marked[key], "inherited from tank/vm")
    marks = parsed(output).marks
    assert (marks.mode, marks.key_digest, marks.swap) == (None, None, None)


@given(
    guid=st.integers(0, (1 << 64) - 1),
    canmount=st.sampled_from(["-", "on", "off", "noauto"]),
    root=st.from_regex(r"[a-z]+(/[a-z .:_-]+)*", fullmatch=True),
)
def test_an_intent_is_read_as_it_was_written(guid: int, canmount: str, root: str) -> None:
    for mounted in (False, True):
        plain = Intent("20240101T120000Z", guid, canmount, root, mounted=mounted)
        assert parse_intent(str(plain)) == plain
        in_place = replace(plain, in_place=True)
        assert parse_intent(str(in_place)) == in_place
        restoring = replace(plain, guid=0, restores="20230101T120000Z")
        assert parse_intent(str(restoring)) == restoring


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "a/b/c", "s/9a/-/tank", "s/zzzzzzzzzzzzzzzz/-/tank", "s/00000000000000009a/-/t", "s//-/t"),
        *("s/branch:/-/t", "s/elsewhere:000000000000009a/-/t", "s/000000000000009a/-,mounted,x/t"),
    ],
)
def test_anything_else_is_no_intent(text: str) -> None:
    assert parse_intent(text) is None


@pytest.mark.parametrize(("value", "production"), [("yes", True), ("no", False), ("on", False), ("", False)])
def test_production_is_yes_or_no(value: str, production: bool) -> None:
    output = with_line(listing(WEB), "tank/vm/web", "hoster:production", value)
    assert parsed(output).marks.production is production


@pytest.mark.parametrize(
    ("value", "mountpoint"), [("none", None), ("legacy", None), ("-", None), ("/a", "/a"), ("", None)]
)
def test_only_a_path_is_a_mountpoint(value: str, mountpoint: str | None) -> None:
    assert parsed(with_line(listing(WEB), "tank/vm/web", "mountpoint", value)).mountpoint == mountpoint


def test_several_clones_are_told_apart() -> None:
    output = with_line(listing(WEB), "tank/vm/web@manual", "clones", "tank/a,tank/b", "-")
    assert parsed(output).snapshots[2].clones == ("tank/a", "tank/b")


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("3@node1", Epoch(3, "node1")),
        ("0@a@b", Epoch(0, "a@b")),
        ("12@n", Epoch(12, "n")),
        (f"{'9' * 18}@n", Epoch(10**18 - 1, "n")),
    ],
)
def test_an_epoch_is_a_number_and_a_node(text: str, epoch: Epoch) -> None:
    assert parse_epoch(text) == epoch


@pytest.mark.parametrize("text", ["", "3", "@n", "3@", "x@n", "-1@n", "³@n", "٣@n", " 3@n", "3.0@n"])
def test_anything_else_is_no_epoch(text: str) -> None:
    assert parse_epoch(text) is None


@pytest.mark.parametrize("digits", [19, 5000])
def test_a_number_that_nobody_counts_to_is_no_epoch(digits: int) -> None:
    assert parse_epoch(f"{'9' * digits}@n") is None
    assert parsed(with_line(listing(WEB), WEB.name, "hoster:epoch", f"{'9' * digits}@n")).marks.epoch is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("b", id="words"),
        pytest.param('[{"x":' + "[" * 4000, id="deep"),
    ],
)
def test_sites_that_cannot_be_read_are_none(text: str) -> None:
    assert parse_sites(text) == ()


def test_a_listing_of_nothing_is_an_empty_view() -> None:
    assert parse_view("local", "").datasets == {}


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("tank/vm\ttype\n", "incomplete line"),
        ("tank/vm\ttype\tfilesystem\n", "incomplete line"),
        ("tank/vm\tguid\t5\t-\n", "no usable type for tank/vm"),
        ("tank/vm\ttype\tpool\t-\n", "no usable type for tank/vm: 'pool'"),
        (
            "tank/vm\ttype\tfilesystem\t-\ntank/vm\tguid\tfive\t-\n",
            "guid of tank/vm as 'five': a number expected",
        ),
    ],
)
def test_what_is_no_listing_is_an_error(output: str, said: str) -> None:
    with pytest.raises(ZfsError, match=said):
        parse_view("local", output)


def test_a_listing_that_was_cut_in_a_line_is_an_error() -> None:
    output = listing(dataset("tank/vm/web", "h1"))
    cut = output[: output.rindex("\t-")]
    with pytest.raises(ZfsError, match="incomplete line"):
        parse_view("local", cut)


def test_a_value_without_end_is_an_error_before_it_has_come_to_one() -> None:
    def lines() -> Iterator[str]:
        yield "tank/vm\thoster:sdescription\tand so on"
        yield from itertools.repeat("and so on")

    with pytest.raises(ZfsError, match="a value without end: 'tank/vm"):
        read_view("local", lines())


@pytest.mark.parametrize("key", ["guid", "createtxg"])
@pytest.mark.parametrize("name", ["tank/vm/web@manual", "tank/vm/web"])
def test_a_version_without_its_identity_is_an_error(name: str, key: str) -> None:
    lines = [line for line in listing(WEB).splitlines() if not line.startswith(f"{name}\t{key}\t")]
    with pytest.raises(ZfsError):
        parse_view("local", "\n".join(lines) + "\n")
