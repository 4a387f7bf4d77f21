"""How many names go into one command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

_ARGUMENT_BYTES = 100 * 1024
"""Most that the names in one command may add up to: through ssh they are one argument, of which Linux takes
128 KiB; FreeBSD takes 256 KiB in all."""

_QUOTES = 9
"""What quoting makes a name longer by, in bytes, and the blank after it."""


def batches(names: Iterable[str]) -> Iterator[Sequence[str]]:
    """The names in their order, as many at a time as go into one command."""
    for batch in in_commands({name: (name,) for name in names}):
        yield [*batch]


def in_commands(groups: Mapping[str, Sequence[str]]) -> Iterator[Mapping[str, Sequence[str]]]:
    """The groups of names in their order, as many at a time as go into one command; none is torn apart, be it
    too long.

    >>> [list(together) for together in in_commands({"a": ["a"], "b": ["b"], "c": ["c" * 200_000]})]
    [['a', 'b'], ['c']]
    """
    batch: dict[str, Sequence[str]] = {}
    size = 0
    for key, names in groups.items():
        length = sum(len(name) + _QUOTES for name in names)
        if batch and size + length > _ARGUMENT_BYTES:
            yield batch
            batch, size = {}, 0
        batch[key] = names
        size += length
    if batch:
        yield batch
