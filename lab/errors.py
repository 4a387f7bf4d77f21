"""What goes wrong in the lab, told with the next thing to do."""

from __future__ import annotations

__all__ = ["LabError"]


class LabError(Exception):
    """The lab could not do what was asked: what, where, what was seen, and a hint.

    `hint` is the next command to type or thing to look at; it may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message
