"""An empty registry on loopback, Debian's own, and how much it holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 30


@dataclass(frozen=True)
class Registry:
    """One that answers at an address, over plain HTTP."""

    address: str
    folder: Path

    @property
    def size(self) -> int:
        """The bytes of all that was pushed to it."""
        return sum(path.stat().st_size for path in self.folder.rglob("blobs/*/*/*/data"))


@contextmanager
def empty() -> Iterator[Registry]:
    """Run a registry until the block ends."""
    with tempfile.TemporaryDirectory(prefix="benchmark-registry-") as short:
        folder = Path(short)
        config = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": "127.0.0.1:0", "secret": "none"},
        }
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        log = folder / "log"
        with log.open("wb") as said:
            words = ["docker-registry", "serve", str(folder / "config.yml")]
            process = subprocess.Popen(words, stdout=said, stderr=said)
        try:
            yield Registry(f"127.0.0.1:{_port(process, log)}", folder / "data")
        finally:
            process.terminate()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < end:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    sys.exit(f"docker-registry does not answer: {log.read_text()}")
