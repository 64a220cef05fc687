"""How the rooms below the command line tell what they are doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reporter", "Silent", "human_size", "printable"]


class Reporter(Protocol):
    """Listens to the progress of long work."""

    def begin(self, step: str, what: str) -> None:
        """Say that a step begins which may take a while."""

    def advance(self, step: str, amount: int, total: int) -> None:
        """Say that `amount` more bytes of `total` (0: unknown) are done in `step`."""

    def row(self, step: str, what: str, size: str, state: str) -> None:
        """Say that a step is finished: one row of the table that a build prints."""

    def note(self, text: str) -> None:
        """Say something that the user should know, once."""


class Silent:
    """A reporter that nobody listens to."""

    def begin(self, step: str, what: str) -> None:
        """Say nothing."""

    def advance(self, step: str, amount: int, total: int) -> None:
        """Say nothing."""

    def row(self, step: str, what: str, size: str, state: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def printable(text: str) -> str:
    """Spell out what would steer a terminal; lines stay lines.

    Parameters
    ----------
    text : str
        Perhaps from an image, and images come from strangers.
    """
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


def human_size(size: float) -> str:
    """Say a number of bytes in decimal units, as engines do.

    Parameters
    ----------
    size : float
        Bytes.

    Returns
    -------
    str
        ``"63 MB"`` for example.
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004 - the step between decimal units
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
