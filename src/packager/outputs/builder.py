"""A Dockerfile, built by an engine: the log as it comes, and which step failed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError

from packager.errors import ClaimError, HostError, UsageError, without_credentials
from packager.outputs.sdk import trouble

__all__ = ["build"]

_LAST_LINES = 12
_STEP = re.compile(r"Step [0-9]+/[0-9]+ : ")
_OF_THE_ENGINE = (" ---> ", "Removing intermediate container ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def build(
    client: docker.DockerClient,
    context: Path,
    file: Path,
    *,
    labels: Mapping[str, str],
    arguments: Mapping[str, str],
    platform: str,
    tell: Callable[[str], None],
) -> str:
    """Let an engine build an image, untagged, and give its ID; see `Engine.build`."""
    log = _Log(file.name, tell)
    with trouble():
        try:
            for answer in client.api.build(
                path=str(context),
                dockerfile=str(file),
                labels=dict(labels),
                buildargs=dict(arguments),
                platform=platform,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                log.add(answer)
        except APIError as error:
            why = str(error.explanation)
            if error.is_client_error() or why.startswith("dockerfile parse error"):
                raise UsageError(why, where=file.name) from None
            raise
        except requests.RequestException:  # an OSError, too, and not of a file
            raise
        except OSError as error:
            raise UsageError(str(error), where=str(context)) from None
    if not log.image:
        raise HostError("the engine built an image, but does not say which")
    return log.image


class _Log:
    """What an engine says while it builds; where it says that a step failed, that is raised."""

    def __init__(self, file: str, tell: Callable[[str], None]) -> None:
        self.image = ""
        self._file, self._tell = file, tell
        self._step = "before the first step"
        self._last: deque[str] = deque(maxlen=_LAST_LINES)

    def add(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise ClaimError(
                f"{self._step}: {without_credentials(answer['error'])}",
                where=self._file,
                hint=without_credentials("\n  ".join(self._last)),
            )
        self.image = (answer.get("aux") or {}).get("ID", self.image)
        for line in _COLOUR.sub("", answer.get("stream", "")).splitlines():
            if not line.strip():
                continue
            self._tell(line.rstrip())
            if _STEP.match(line):
                self._step = line.rstrip()
                self._last.clear()
            elif not line.startswith(_OF_THE_ENGINE):
                self._last.append(line.rstrip())
