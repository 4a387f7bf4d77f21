"""Channel programs: what must happen for many datasets in one command, or guarded in the same breath.

Each runs inside one transaction group (zfs-program(8)), so a check and the deed it guards cannot be torn
apart by anything else on the node. Each takes its work as plain arguments and returns one word per item.
GUIDs are passed and compared as 16 hexadecimal digits: Lua in the kernel holds them as signed numbers, and
``zfs program`` takes an argument with a leading minus for an option (seen on OpenZFS 2.3.9).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from hoster.errors import ZfsError
from hoster.model.storage import Dataset

CHUNK = 100
"""Items per program: keeps argument lists short and a transaction group from being held up."""

_PRELUDE = """
args = ...
argv = args["argv"]
result = {}
function guid_of(name)
  if not zfs.exists(name) then return nil end
  return string.format("%016x", zfs.get_prop(name, "guid"))
end
"""

DESTROY = (
    _PRELUDE
    + """
function anchored(name, guid)
  for bookmark in zfs.list.bookmarks(string.match(name, "^[^@]+")) do
    if string.match(bookmark, "#hoster%-%x+%-" .. guid .. "$") then return true end
  end
  return false
end
for i = 1, #argv, 2 do
  local name, guid = argv[i], argv[i + 1]
  local seen = guid_of(name)
  if seen == nil then
    result[name] = "gone"
  elseif seen ~= guid then
    result[name] = "changed"
  elseif anchored(name, guid) then
    result[name] = "anchored"
  else
    local err = zfs.sync.destroy(name)
    if err == 0 then result[name] = "done" else result[name] = "error " .. err end
  end
end
return result
"""
)
"""Arguments: name, guid, name, guid ... Destroys each snapshot that still has that GUID, unless a target's
anchor is on it by now: a replication may have begun since whoever asks has looked.

Bookmarks can be listed by a channel program, but not destroyed (seen on OpenZFS 2.3.9)."""

ANCHOR = (
    _PRELUDE
    + """
for i = 1, #argv, 3 do
  local name, guid, key = argv[i], argv[i + 1], argv[i + 2]
  local seen = guid_of(name)
  if seen == nil then
    result[name] = "gone"
  elseif guid ~= "-" and seen ~= guid then
    result[name] = "changed"
  else
    local dataset = string.match(name, "^[^@]+")
    local err = zfs.sync.bookmark(name, dataset .. "#hoster-" .. key .. "-" .. seen)
    if err == 0 or err == 17 then
      result[name] = "done " .. seen .. " " .. tostring(zfs.get_prop(name, "createtxg"))
    else
      result[name] = "error " .. err
    end
  end
end
return result
"""
)
"""Arguments: snapshot, guid or ``-``, target key, ... Bookmarks each snapshot that has that GUID (``-``:
whichever it has) as that target's anchor (17 is EEXIST), and answers ``done GUID CREATETXG``."""

MARK = (
    _PRELUDE
    + """
for i = 1, #argv, 4 do
  local name, guid, key, value = argv[i], argv[i + 1], argv[i + 2], argv[i + 3]
  local seen = guid_of(name)
  if seen == nil then
    result[name] = "gone"
  elseif seen ~= guid then
    result[name] = "changed"
  else
    local err = zfs.sync.set_prop(name, key, value)
    if err == 0 then result[name] = "done" else result[name] = "error " .. err end
  end
end
return result
"""
)
"""Arguments: name, guid, property, value, ... Sets a user property on each that still has that GUID."""

TOLD = ("hoster:epoch", "hoster:parent", "hoster:sites", "hoster:swap")
"""What :data:`TELL` sets, in the order of its arguments."""

TELL = (
    _PRELUDE
    + """
function own(name, wanted)
  for key, value, source in zfs.list.user_properties(name) do
    if key == wanted and source == name then return value end
  end
  return "-"
end
keys = {"hoster:epoch", "hoster:parent", "hoster:sites", "hoster:swap"}
for i = 1, #argv, 8 do
  local name, guid, role, epoch = argv[i], argv[i + 1], argv[i + 2], argv[i + 3]
  local seen = guid_of(name)
  if seen == nil then
    result[name] = "gone"
  elseif seen ~= guid then
    result[name] = "changed"
  elseif own(name, "hoster:role") ~= role or own(name, "hoster:epoch") ~= epoch then
    result[name] = "promoted"
  else
    result[name] = "done"
    for j = 1, 4 do
      local value = argv[i + 3 + j]
      if value ~= "-" then
        local err = zfs.sync.set_prop(name, keys[j], value)
        if err ~= 0 then result[name] = "error " .. err end
      end
    end
  end
end
return result
"""
)
"""Arguments: dataset, guid, role, epoch, and a value or ``-`` for each of :data:`TOLD`, ... Sets these on
each copy of a VM that still has the role and the epoch that were seen (``-``: none)."""


class Telling(Struct, frozen=True):
    """What a copy of a VM is to be told, of :data:`TOLD`, if it still is what it was seen as."""

    copy: Dataset
    values: Mapping[str, str]

    @property
    def item(self) -> tuple[str, ...]:
        """As :data:`TELL` takes it."""
        marks = self.copy.marks
        role = "-" if marks.role is None else marks.role.value
        epoch = "-" if marks.epoch is None else str(marks.epoch)
        values = (self.values.get(key, "-") for key in TOLD)
        return (self.copy.name, digits(self.copy.guid), role, epoch, *values)


TELL_CHUNK = 10
"""Copies per :data:`TELL`: a value may have 8 KiB (a longer one is answered with ``error 7``, E2BIG), and
through ssh all of them are one argument, of which Linux takes 128 KiB."""

ERRNO_WORDS = {
    "1": "not permitted",
    "7": "too long",
    "16": "it is held, being sent, or otherwise busy",
    "17": "it has a clone",
    "28": "no space left",
    "122": "over quota",
}
"""What the error numbers that programs return mean (errno(3), Linux and FreeBSD alike)."""


class Answer(Struct, frozen=True):
    """What a program did with one item: ``done …``, ``error N``, or the word for what kept it from it."""

    name: str
    word: str

    @property
    def done(self) -> bool:
        return self.word == "done" or self.word.startswith("done ")

    @property
    def promoted(self) -> bool:
        """Whether it was kept from it by what somebody else has made of the copy."""
        return self.word == "promoted"

    @property
    def version(self) -> tuple[int, int]:
        """GUID and createtxg of a snapshot that was anchored; ValueError for any other answer."""
        _, guid, createtxg = self.word.split()
        return int(guid, 16), int(createtxg)

    @property
    def explained(self) -> str:
        """Why it was not done, for people."""
        match self.word.split():
            case ["gone"]:
                return "it does not exist any more"
            case ["anchored"]:
                return "a target needs it by now as the base of its next increment"
            case ["promoted"]:
                return "somebody has promoted it, or told it of a promotion"
            case ["changed"]:
                return "something else has taken its name"
            case ["error", number]:
                return ERRNO_WORDS.get(number, f"error {number}")
            case _:
                return self.word


def digits(guid: int) -> str:
    """A GUID as the programs take it."""
    return f"{guid:016x}"


def chunks(items: Sequence[tuple[str, ...]], size: int = CHUNK) -> Iterable[Sequence[tuple[str, ...]]]:
    """``items`` in runs of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def parse_answers(output: str) -> tuple[Answer, ...]:
    """What a program returned, as ``zfs program -j`` prints it; ZfsError if that is something else."""
    try:
        document = json.loads(output[max(output.find("{"), 0) :])
        answers: Mapping[str, str] = document.get("return", {})
        return tuple(Answer(name, str(word)) for name, word in answers.items())
    except (ValueError, AttributeError) as error:
        raise ZfsError(f"zfs program printed something unexpected: {output[:200]!r}") from error
