"""How much memory an image takes to replay its recorded examples: measured sealed, then noted."""

from __future__ import annotations

import hashlib
import json

from packager import __version__
from packager.errors import HostError
from packager.files import canonical_json
from packager.image import Image
from packager.outputs.engine import Engine
from packager.predicting import broke_off
from packager.proof import Limits
from packager.reporter import Reporter
from packager.store import Store

__all__ = ["measure"]

_KIND = "memory"

# The kernel's own count, which misses no moment: of control groups version 2, else of version 1.
_SCRIPT = """\
import subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
for name in ("memory.peak", "memory/memory.max_usage_in_bytes"):
    try:
        print(open(f"/sys/fs/cgroup/{name}").read())
        break
    except OSError:
        pass
sys.exit(done.returncode)
"""


def measure(
    image: Image, engine: Engine, limits: Limits, *, store: Store, reporter: Reporter
) -> int:
    """Measure how many bytes an image's processes and files in memory take at most.

    Its self-test is run sealed, as the smoke test runs it: the recorded examples are replayed,
    over HTTP too where the image has a server.

    Parameters
    ----------
    image : Image
        One that has passed its smoke test in the engine.
    engine : Engine
        Has it.
    limits : Limits
        Of the container.
    store : Store
        Notes the answer, so that the same image is given the same one again.
    reporter : Reporter
        Gets a row.

    Raises
    ------
    ClaimError
        When the self-test does not pass.
    HostError
        When the engine's kernel does not count.
    """
    key = hashlib.sha256(canonical_json([__version__, image.id, engine.id])).hexdigest()
    known = store.note(_KIND, key)
    if isinstance(known, int):
        return _told(known, "before", reporter)
    reporter.begin("memory", "sealed off, replaying the recorded examples")
    program: list[str] = json.loads(image.config)["config"]["Entrypoint"]
    run = engine.run_sealed(
        engine.id_of(image),
        ["-I", "-c", _SCRIPT, *program, "selftest"],
        program=program[0],
        seconds=limits.seconds,
        memory=limits.memory,
        processes=limits.processes,
    )
    if run.exit_code != 0:
        raise broke_off(run, image.id, limits)
    if not run.stdout.strip().isdigit():
        raise HostError(
            f"{engine.name} does not tell how much memory a container has taken",
            where="/sys/fs/cgroup/memory.peak",
            hint="Linux 5.19 or newer counts it, and so does one with control groups version 1.",
        )
    peak = int(run.stdout)
    store.write_note(_KIND, key, peak)
    return _told(peak, "", reporter)


def _told(peak: int, when: str, reporter: Reporter) -> int:
    what = "at most, the recorded examples replayed"
    reporter.row("memory", what, f"{peak >> 20} MiB", f"measured {when}".rstrip())
    return peak
