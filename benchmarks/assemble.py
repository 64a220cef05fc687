"""Run by the benchmark in packager's own environment: time assembling, print the seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from packager.assembling import assemble, gather
from packager.project import load
from packager.reporter import Silent
from packager.store import Store

root, place = map(Path, sys.argv[1:])
store = Store(place)
inputs = gather(load(root), "linux/amd64", store.scratch)
begin = time.monotonic()
assemble(inputs, store, Silent())
print(time.monotonic() - begin)  # noqa: T201
