"""Every error that packager raises on purpose, each with the exit code it ends in.

A message answers three questions: what was wrong, where, and what to do about it.
"""

from __future__ import annotations

import re
from typing import ClassVar

__all__ = ["ClaimError", "HostError", "PackagerError", "UsageError", "without_credentials"]

# User and password; the second form is for a password whose / ? # are not quoted, the third
# for a proxy without a scheme.
_LOGIN = (
    r"(?<=://)[^/\s?#]*@"
    r"|(?<=://)[^/\s?#@:\[]+:(?!\d*(?:[/?#]|$))\S*@"
    r"|(?<![\w/:.@-])[^/\s:@]+:(?!//)[^\s@]+@(?=[\w.-]+:\d)"
)
_QUERY = r"(://[^\s?#]*\?)[^\s#]+"  # where a signature stands


class PackagerError(Exception):
    """Base of all errors that are reported to the user without a traceback.

    Parameters
    ----------
    what : str
        What was wrong, in one sentence.
    where : str, optional
        The file and key, the package, or the address that it was found in.
    hint : str, optional
        What the user can do about it.

    Attributes
    ----------
    exit_code : int
        What the command line exits with.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class ClaimError(PackagerError):
    """The project fails a claim of its own: a stale lock, a wrong digest, a failed replay."""

    exit_code = 1


class UsageError(PackagerError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class HostError(PackagerError):
    """What packager needs from its surroundings is missing: an engine, a network, disk."""

    exit_code = 3


def without_credentials(text: str) -> str:
    """Drop user, password and query from every address in a text, so that it may be shown."""
    return re.sub(_QUERY, r"\1…", re.sub(_LOGIN, "", text))
