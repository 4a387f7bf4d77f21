"""What streams say of themselves: read where it can be read, and nothing made of what cannot."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoster.model.storage import ResumeToken
from hoster.zfs.streams import HEAD_BYTES, key_digest, resume_token

Value = int | str | bytes | None
"""What a pair of a packed list may hold here; None is a flag, which has no value."""

BOOLEAN, UINT64, STRING, UINT8_ARRAY = 1, 8, 9, 26
TO, FROM = 0x94A20A5F25877859, 0xF784E1004F460F7A
WORDS: dict[str, Value] = {"object": 2, "offset": 4096, "bytes": 3025016, "toguid": TO, "toname": "t/web@a"}
KEY: dict[str, Value] = {
    "DSL_CRYPTO_SUITE": 8,
    "DSL_CRYPTO_MASTER_KEY_1": bytes(range(32)),
    "DSL_CRYPTO_HMAC_KEY_1": bytes(64),
    "DSL_CRYPTO_IV": b"initvector12",
    "DSL_CRYPTO_MAC": b"sixteen bytes of",
}

RECORDED = bytes.fromhex(
    "4800000018000000200000001a00000044534c5f43525950544f5f4d41535445525f4b45595f310017a77bde3bdf51ac"
    "cf53c7f9752e62a4296186ef242308e3a06df907a222c3306800000016000000400000001a00000044534c5f43525950"
    "544f5f484d41435f4b45595f310000006d98a0054e38c55b8fc7de248ad9c723ad686573901724d342b0cfbc081013c1"
    "b1eb4f092c2dbc1feaa6cb7b95de662b8cc337f48f5677e6506e55c8bb4b3df8300000000e0000000c0000001a000000"
    "44534c5f43525950544f5f4956000000c53c9aecb30cd359bdec4bda00000000300000000f000000100000001a000000"
    "44534c5f43525950544f5f4d414300009e82dedaf2cee9e3418547427e2650d5"
)
"""What the head of a raw stream holds of a key that was made for it (OpenZFS 2.3.9)."""


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def pair(name: str, value: Value) -> bytes:
    """One pair as the kernel packs it: sizes, number of elements and kind, then the name, then the value."""
    match value:
        case None:
            kind, count, body = BOOLEAN, 0, b""
        case int():
            kind, count, body = UINT64, 1, struct.pack("<Q", value)
        case str():
            kind, count, body = STRING, 1, value.encode() + b"\0"
        case _:
            kind, count, body = UINT8_ARRAY, len(value), value
    named, body = name.encode() + b"\0", aligned(body)
    head = aligned(bytes(16) + named)[16:]
    return struct.pack("<ihhii", 16 + len(head) + len(body), len(named), 0, count, kind) + head + body


def packed(pairs: dict[str, Value]) -> bytes:
    """A whole list: how it is encoded, its version and flags, its pairs, and a size of 0 at their end."""
    return b"\0\1\0\0" + bytes(8) + b"".join(pair(*one) for one in pairs.items()) + bytes(4)


def token(pairs: dict[str, Value]) -> str:
    plain = packed(pairs)
    return f"1-{zlib.adler32(plain):x}-{len(plain):x}-{zlib.compress(plain).hex()}"


@pytest.mark.parametrize(
    ("more", "from_guid", "raw"),
    [
        ({}, None, False),
        ({"fromguid": FROM}, FROM, False),
        ({"largeblockok": None, "embedok": None, "compressok": None}, None, False),
        ({"fromguid": FROM, "compressok": None, "rawok": None}, FROM, True),
    ],
)
def test_a_token_says_from_where_to_where_how_much_and_in_which_mode(
    more: dict[str, Value], from_guid: int | None, raw: bool
) -> None:
    text = token(WORDS | more)
    assert resume_token(text) == ResumeToken(text, TO, from_guid, "t/web@a", raw, 3025016)


@given(
    to=st.integers(0, (1 << 64) - 1),
    base=st.none() | st.integers(0, (1 << 64) - 1),
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300),
    received=st.integers(0, 1 << 62),
    raw=st.booleans(),
)
def test_whatever_is_packed_into_a_token_is_read_from_it(
    to: int, base: int | None, name: str, received: int, raw: bool
) -> None:
    pairs: dict[str, Value] = {"toguid": to, "toname": name, "bytes": received}
    pairs |= {} if base is None else {"fromguid": base}
    pairs |= {"rawok": None} if raw else {}
    text = token(pairs)
    assert resume_token(text) == ResumeToken(text, to, base, name, raw, received)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1-a-b",
        "1-a-b-c-d",
        "1-a-b-c",
        "1-a-b-zz",
        "1-a-b-00",
        "1-a-b-\u00e9\u00e9",
        "2" + token(WORDS)[1:],
        token({"toguid": TO}),
        token({"toname": "t/web@a"}),
        token({"toguid": "not a number", "toname": "t/web@a"}),
        token({"toguid": TO, "toname": 5}),
        token({}),
    ],
)
def test_what_is_no_token_is_kept_as_text_and_says_nothing(text: str) -> None:
    assert resume_token(text) == ResumeToken(text)


@pytest.mark.parametrize("more", [{"fromguid": "x", "bytes": "y"}, {"fromguid": None, "bytes": None}])
def test_a_pair_of_another_kind_than_expected_does_not_count(more: dict[str, Value]) -> None:
    found = resume_token(token(WORDS | more))
    assert (found.to_guid, found.from_guid, found.received_bytes) == (TO, None, 0)


def bare(data: bytes) -> str:
    return f"1-0-0-{zlib.compress(data).hex()}"


@pytest.mark.parametrize(
    "pairs",
    [
        struct.pack("<i", -16),
        struct.pack("<ihhii", 8, 2, 0, 1, UINT64),
        struct.pack("<ihhii", 32, 0, 0, 1, UINT64) + bytes(16),
        struct.pack("<ihhii", 4096, 2, 0, 1, UINT64) + bytes(16),
        struct.pack("<ihhii", 24, 2, 0, 1, UINT64) + b"a\0" + bytes(6),
        pair("toguid", TO) + pair("toname", "x") + b"\1",
        struct.pack("<ihhii", 32, 3, 0, 1, UINT64) + b"\xff\xfe\0" + bytes(13),
    ],
)
def test_a_list_that_is_not_well_formed_says_nothing(pairs: bytes) -> None:
    text = bare(bytes(12) + pairs)
    assert resume_token(text) == ResumeToken(text)


@given(data=st.binary(max_size=200))
def test_no_list_whatever_is_in_it_raises_or_takes_for_ever(data: bytes) -> None:
    text = bare(packed(WORDS)[:-4] + data)
    assert resume_token(text).text == text
    assert resume_token(bare(data)).text


@given(text=st.text(max_size=60) | st.from_regex(r"1-[0-9a-f]*-[0-9a-f]*-[0-9a-f]*", fullmatch=True))
def test_no_text_whatever_is_in_it_raises(text: str) -> None:
    assert resume_token(text).text == text


@given(size=st.integers(0, 400))
def test_a_token_that_was_cut_never_raises_and_never_says_anything_else(size: int) -> None:
    whole = token(WORDS)
    found = resume_token(whole[:size])
    assert found.to_guid in {None, TO}


def test_a_list_that_would_unpack_to_more_than_fits_is_not_unpacked_to_its_end() -> None:
    text = bare(packed(WORDS | {"padding": bytes(4 << 20)}))
    assert resume_token(text) == ResumeToken(text)


def head(pairs: dict[str, Value], before: bytes = bytes(312)) -> bytes:
    """The beginning of a raw stream: its first record, with the key material packed behind it."""
    return before + packed(pairs) + bytes(64)


def test_the_key_of_a_recorded_stream_is_found() -> None:
    assert key_digest(RECORDED) == "b0cfe442cfe724ba"
    assert key_digest(bytes(516) + RECORDED + bytes(900)) == key_digest(RECORDED)


def test_the_digest_of_a_key_is_the_same_wherever_it_lies_in_the_stream() -> None:
    found = key_digest(head(KEY))
    assert found is not None
    assert len(found) == 16
    assert int(found, 16) >= 0
    assert key_digest(head(KEY, b"\xff" * 5001)) == found
    assert key_digest(head(WORDS | KEY)) == found
    assert key_digest(head(dict(reversed(KEY.items())))) == found


@pytest.mark.parametrize("name", ["DSL_CRYPTO_MASTER_KEY_1", "DSL_CRYPTO_IV", "DSL_CRYPTO_MAC"])
@pytest.mark.parametrize("at", [0, 11])
def test_the_digest_changes_with_any_part_of_the_wrapped_key(name: str, at: int) -> None:
    value = KEY[name]
    assert isinstance(value, bytes)
    other = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    assert key_digest(head(KEY | {name: other})) not in {None, key_digest(head(KEY))}


@pytest.mark.parametrize("name", ["DSL_CRYPTO_SUITE", "DSL_CRYPTO_HMAC_KEY_1"])
def test_the_digest_does_not_change_with_anything_else(name: str) -> None:
    other = 3 if name == "DSL_CRYPTO_SUITE" else b"x" * 64
    assert key_digest(head(KEY | {name: other})) == key_digest(head(KEY))


@pytest.mark.parametrize("name", ["DSL_CRYPTO_MASTER_KEY_1", "DSL_CRYPTO_IV", "DSL_CRYPTO_MAC"])
def test_a_head_without_one_of_the_parts_shows_no_key(name: str) -> None:
    assert key_digest(head({key: value for key, value in KEY.items() if key != name})) is None
    assert key_digest(head(KEY | {name: "a string"})) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(HEAD_BYTES),
        b"DSL_CRYPTO_MASTER_KEY_1\0",
        struct.pack("<ihhii", 64, 3, 0, 32, UINT8_ARRAY) + b"DSL_CRYPTO_MASTER_KEY_1\0" + bytes(64),
        struct.pack("<ihhii", 48, 24, 0, 32, UINT8_ARRAY) + b"DSL_CRYPTO_MASTER_KEY_1\0" + bytes(64),
    ],
)
def test_what_is_no_head_of_a_raw_stream_shows_no_key(data: bytes) -> None:
    assert key_digest(data) is None


@given(size=st.integers(0, 1000))
def test_a_head_that_was_cut_shows_the_key_or_none_and_never_another(size: int) -> None:
    whole = head(KEY)
    assert key_digest(whole[:size]) in {None, key_digest(whole)}


@given(data=st.binary(max_size=100))
def test_no_head_whatever_is_in_it_raises(data: bytes) -> None:
    for part in ("DSL_CRYPTO_MASTER_KEY_1", "DSL_CRYPTO_IV", "DSL_CRYPTO_MAC"):
        key_digest(data + part.encode() + b"\0" + data)
