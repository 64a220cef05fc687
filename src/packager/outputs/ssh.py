"""An engine behind ssh, as a socket on this machine that leads to it.

Each connection is an ``ssh`` of its own that runs ``docker system dial-stdio`` over there, as
Docker's own client does; so the user's ssh configuration, agent and known hosts count.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Tunnel"]


class Tunnel:
    """A socket that leads to an engine elsewhere, as long as this object is there.

    Parameters
    ----------
    address : str
        ``ssh://[user@]host[:port][/path of the engine's socket]``.

    Attributes
    ----------
    path : Path
        The socket.
    said : bytes
        What the last ssh said that has ended: why there is no way, for example.

    Raises
    ------
    OSError
        When no socket can be made.
    ValueError
        When the address makes no sense.
    """

    def __init__(self, address: str) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("from Windows, packager reaches no engine over ssh")
        self.said = b""
        self._command = _command(address)
        self._folder = tempfile.TemporaryDirectory(prefix="packager-")  # nobody else gets in
        self.path = Path(self._folder.name) / "engine.sock"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            near, _ = self._listening.accept()
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near:
            self.said = _ssh(self._command, near.fileno())


def _ssh(command: list[str], end: int) -> bytes:
    """Run ssh with one end of a connection, and give what it said of it."""
    try:
        # In a session of its own, so that Ctrl-C leaves it until all is tidied up.
        return subprocess.run(
            command,
            stdin=end,
            stdout=end,
            stderr=subprocess.PIPE,
            start_new_session=True,
            check=False,
        ).stderr
    except OSError as error:
        return str(error).encode()


def _command(address: str) -> list[str]:
    parts = urlsplit(address)
    if not parts.hostname:
        raise ValueError(f"{address} names no host")
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    there = ["--host", f"unix://{parts.path}"] if parts.path.strip("/") else []
    remote = shlex.join(["docker", *there, "system", "dial-stdio"])
    return ["ssh", "-T", "-o", "ConnectTimeout=30", *user, *port, "--", parts.hostname, remote]
