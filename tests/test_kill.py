"""Claims about SIGKILL: whenever it comes, the next run is right and nothing stays behind.

Where to kill is drawn from a rehearsal, an undisturbed run that lists when it did each of its
operations (`killable.py`).  Half of the deaths are drawn over the kinds of operations, such as
renaming into a certain folder, and come exactly before one; half are drawn over the time and
come that long after the operation before, so that they hit what takes long, too: another
program, an engine's answer, hashing.  A run that ended before its death does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
from conftest import REPOSITORY, Tiny, WheelMaker

from packager.files import canonical_json, replace_file
from packager.leases import Lease, runtime_folder
from packager.outputs.engine import Engine
from packager.outputs.strays import take

KILLABLE = REPOSITORY / "tests" / "killable.py"
LOCKS = ("requirements.txt", "requirements-dev.txt", "packager.lock")
SEED = 20240229
LARGE = 4 << 20  # the base and its bytecode are


@dataclass
class Rig:
    """A project, a store and temporary folders of its own, in which packager is killed."""

    root: Path
    store: Path
    scratch: Path
    chance: random.Random
    rehearsals: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    hashed: dict[tuple[int, ...], str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        (self.scratch / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.scratch / "tmp").mkdir(exist_ok=True)
        return {
            **os.environ,
            "PACKAGER_CACHE": str(self.store),
            "XDG_RUNTIME_DIR": str(self.scratch / "run"),
            "TMPDIR": str(self.scratch / "tmp"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "NO_COLOR": "1",
        }

    def run(self, *arguments: str) -> str:
        """Run packager to its end."""
        run = subprocess.run(
            [sys.executable, "-m", "packager", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def rehearse(self, name: str, *arguments: str) -> None:
        """Run packager undisturbed, and keep when it did what."""
        times = self.scratch / "times"
        run = subprocess.run(
            [sys.executable, str(KILLABLE), "list", "", "", str(times), *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        self.rehearsals[name] = [(moment, kind) for moment, kind in json.loads(times.read_text())]

    def killed(self, name: str, *arguments: str) -> bool:
        """Run packager and kill it, with all that it started; False if it ended before."""
        *operations, (end, _) = self.rehearsals[name]
        if self.chance.random() < 0.5:
            kind = self.chance.choice(sorted({kind for _, kind in operations}))
            number = self.chance.randrange(sum(kind == other for _, other in operations))
            return self._run("die", kind, number, 0, *arguments)
        moment = self.chance.uniform(0, end)
        before = [(at, kind) for at, kind in operations if at <= moment]
        at, kind = before[-1]
        number = sum(kind == other for _, other in before) - 1
        return self._run("tell", kind, number, moment - at, *arguments)

    def _run(self, mode: str, kind: str, number: int, wait: float, *arguments: str) -> bool:
        reading, writing = os.pipe()
        with subprocess.Popen(
            [sys.executable, str(KILLABLE), mode, kind, str(number), str(writing), *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[writing],
        ) as run:
            os.close(writing)
            if os.read(reading, 1):  # nothing, if it ends before
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(wait)
            if mode == "tell":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)
            _, errors = run.communicate()
        os.close(reading)
        assert run.returncode in {0, -signal.SIGKILL}, errors.decode()
        return run.returncode == -signal.SIGKILL

    def note_what_was_left(self) -> None:
        self.left["runs of the store"] += len(list((self.store / "partial").glob("run-*")))
        self.left["downloads"] += len(resumable(self.store))
        for folder in (self.root, self.scratch):
            self.left["files beside"] += len(list(folder.glob(".*.part")))
        for path in self.leases():
            self.left[path.name.partition("-")[0]] += 1

    def leases(self) -> list[Path]:
        return list((self.scratch / "run" / "packager").glob("*"))

    def check_blobs(self) -> None:
        """Every file in the store gives its name, even right after a death."""
        for path in (self.store / "blobs").iterdir():
            stat = path.stat()
            identity = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if identity not in self.hashed:
                self.hashed[identity] = hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.name == self.hashed[identity]

    def check_nothing_stays(self) -> None:
        """After a run that ended: nothing of those that did not."""
        self.check_blobs()
        assert sorted((self.store / "partial").iterdir()) == resumable(self.store)
        assert not list((self.store / "locks").glob("run-*"))
        assert not [*self.root.glob(".*.part"), *self.scratch.glob(".*.part")]
        assert not list((self.scratch / "tmp").iterdir())


def resumable(store: Path) -> list[Path]:
    """List downloads that a later run goes on with: those of bytes that are not there."""
    found = sorted(path for path in (store / "partial").iterdir() if path.is_file())
    return [path for path in found if not (store / "blobs" / path.name).exists()]


@pytest.fixture
def rig(tiny: Tiny, tmp_path: Path) -> Rig:
    """The locked tiny project, and a store that gets Debian's packages from the shared one."""
    seed = int(os.environ.get("PACKAGER_TEST_SEED", SEED))
    print(f"PACKAGER_TEST_SEED={seed}")  # noqa: T201 - shown when a test fails
    store = tmp_path / "store"
    (store / "notes").mkdir(parents=True)
    tiny.built("--no-load", "-o", str(tmp_path / "first.tar"))  # so that the shared one is full
    for sha256 in re.findall(r"[0-9a-f]{64}", (tiny.root / "packager.lock").read_text()):
        blob = tiny.store / "blobs" / sha256
        if blob.exists():
            place = canonical_json(blob.as_uri())
            (store / "notes" / f"place-{sha256}.json").write_bytes(place)
    return Rig(tiny.root, store, tmp_path / "scratch", random.Random(seed))


# --- What is swept, and what is not ----------------------------------------------------------

REPLACING = """
import signal, sys
from pathlib import Path
from packager.files import replacing
with replacing(Path(sys.argv[1])) as out:
    out.write(b"half")
    print("ready", flush=True)
    signal.pause()
"""


def test_what_a_dead_writer_left_beside_a_file_goes_and_a_live_ones_stays(tmp_path: Path) -> None:
    target, other = tmp_path / "a[b]", tmp_path / ".another.01234567.part"
    other.touch()
    command = [sys.executable, "-c", REPLACING, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        before = set(tmp_path.iterdir())
        replace_file(target, b"new")
        after = set(tmp_path.iterdir())
        writer.kill()
    assert after == before | {target}
    [beside] = before - {other}
    assert re.fullmatch(r"\.a\[b]\.[0-9a-f]{8}\.part", beside.name)
    replace_file(target, b"newer")
    assert sorted(tmp_path.iterdir()) == sorted([other, target])
    assert target.read_bytes() == b"newer"


@dataclass
class Strays:
    """An image without a name, containers of it, and a folder of leases of its own."""

    engine: Engine
    leases: Path
    image: str

    def name(self, kind: str, owner: str) -> str:
        return f"{kind}-{self.image.removeprefix('sha256:')}-{owner}"

    def dead(self, kind: str) -> Path:
        path = self.leases / self.name(kind, "dead")
        path.touch()
        return path

    def live(self, kind: str) -> Lease:
        return Lease(self.leases / self.name(kind, "live"))

    def container(self, owner: str) -> str:
        label = {"org.model-packager.smoke": self.name("container", owner)}
        return str(self.engine.client.containers.create(self.image, "true", labels=label).id)

    def containers(self) -> set[str]:
        found = self.engine.client.containers.list(all=True, filters={"ancestor": self.image})
        return {str(one.id) for one in found}

    def sweep(self) -> None:
        take(self.engine._wire, "container").end()


@pytest.fixture
def strays(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Strays]:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(tmp_path.name))
    api = engine.client.api
    made = Strays(
        engine,
        runtime_folder(),
        json.loads(api.import_image_from_data(data.getvalue()))["status"],
    )
    yield made
    for container in made.containers():
        api.remove_container(container, force=True)
    if engine.find(made.image):
        api.remove_image(made.image, force=True)


def test_a_dead_runs_container_goes_and_a_live_or_foreign_ones_stays(strays: Strays) -> None:
    strays.container("dead")
    live, foreign = strays.container("live"), strays.container("foreign")
    path, lease = strays.dead("container"), strays.live("container")
    strays.sweep()
    assert strays.containers() == {live, foreign}
    assert not path.exists()
    lease.let_go()
    strays.sweep()
    assert strays.containers() == {foreign}


def test_a_dead_runs_image_goes_with_its_container(strays: Strays) -> None:
    strays.container("dead")
    strays.dead("image")
    strays.dead("container")
    strays.sweep()
    assert strays.engine.find(strays.image) is None
    assert list(strays.leases.iterdir()) == []


def test_a_dead_runs_image_stays_if_it_has_another_owner_or_a_name(strays: Strays) -> None:
    lease = strays.live("image")
    strays.dead("image")
    strays.sweep()
    assert strays.engine.find(strays.image)
    strays.engine.client.api.tag(strays.image, "strays", "named")
    lease.let_go()
    strays.sweep()
    assert strays.engine.find("strays:named")
    assert list(strays.leases.iterdir()) == []


def test_what_an_engine_may_still_be_making_is_looked_for_until_it_is_old(strays: Strays) -> None:
    path = strays.dead("container")
    strays.sweep()
    assert path.exists()
    strays.container("dead")
    strays.sweep()
    assert strays.containers() == set()
    assert not path.exists()
    path = strays.dead("container")
    os.utime(path, (0, 0))
    strays.sweep()
    assert not path.exists()


# --- packager build --------------------------------------------------------------------------


@dataclass
class Expected:
    """What an undisturbed build gives, by the project's version."""

    image: str
    manifest: str
    archive: str


class Builds:
    """Builds of two versions of a project, killed and not."""

    def __init__(self, rig: Rig, engine: Engine, moods: Sequence[str]) -> None:
        self.rig, self.engine = rig, engine
        self.archive = rig.scratch / "image.tar"
        self.command = ("build", "--json", "-o", str(self.archive))
        project = rig.root / "pyproject.toml"
        self.project = project.read_text().replace('"tiny"', '"killed"', 1)
        self.expected: dict[str, Expected] = {}
        for version in ("1", "2"):
            self.expected[version] = self.build(version)
            self.forget()
        self.noted = self.notes()
        self.moods = moods
        for mood in sorted(set(moods)):
            self.chill(mood)
            rig.rehearse(mood, *self.command)

    def build(self, version: str) -> Expected:
        self.become(version)
        told = json.loads(self.rig.run(*self.command))
        data = self.archive.read_bytes()
        return Expected(told["id"], told["manifest"], hashlib.sha256(data).hexdigest())

    def become(self, version: str) -> None:
        text = self.project.replace('version = "0.1.0"', f'version = "{version}"')
        (self.rig.root / "pyproject.toml").write_text(text)

    def chill(self, mood: str) -> None:
        """Make work: layers to be made, bytes to be fetched, an image to be loaded."""
        self.forget()
        large = [blob.name for blob in self.blobs() if blob.stat().st_size > LARGE]
        for note in (self.rig.store / "notes").iterdir():
            if note.name.startswith("place"):  # all that says where bytes are
                continue
            if mood == "cold" or json.loads(note.read_bytes()) not in large:
                note.unlink()
        small = [blob for blob in self.blobs() if blob.name not in large]
        for blob in self.rig.chance.sample(small, min(5, len(small))):
            blob.unlink()

    def blobs(self) -> list[Path]:
        return sorted((self.rig.store / "blobs").iterdir())

    def forget(self) -> None:
        """Take the images away from the engine."""
        for version, expected in self.expected.items():
            for name in (f"killed:{version}", expected.image):
                # What a container of a run that was killed still uses stays for the moment.
                with contextlib.suppress(docker.errors.APIError):
                    self.engine.client.images.remove(name, force=True)

    def kill(self) -> bool:
        mood = self.rig.chance.choice(self.moods)
        self.chill(mood)
        self.become(self.rig.chance.choice(["1", "2"]))
        killed = self.rig.killed(mood, *self.command)
        self.rig.note_what_was_left()
        self.rig.check_blobs()
        self.check_names()
        return killed

    def check_names(self) -> None:
        """What bears a name is right, at any time."""
        for version, expected in self.expected.items():
            if found := self.engine.find(f"killed:{version}"):
                assert found["Id"] == expected.image
        if self.archive.exists():
            digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
            assert digest in {expected.archive for expected in self.expected.values()}

    def build_again(self) -> None:
        version = self.rig.chance.choice(["1", "2"])
        assert self.build(version) == self.expected[version]
        self.check_names()
        self.rig.check_nothing_stays()
        self.check_notes()
        self.check_engine()

    def check_notes(self) -> None:
        """What is noted is what an undisturbed run notes."""
        assert self.notes().items() <= self.noted.items()

    def notes(self) -> dict[str, bytes]:
        """Read what is noted of bytes; the other kinds of notes are about times and engines."""
        kinds = ("layer-", "compressed-", "paths-", "place-")
        notes = (self.rig.store / "notes").iterdir()
        return {note.name: note.read_bytes() for note in notes if note.name.startswith(kinds)}

    def check_engine(self) -> None:
        ours = [path.name for path in self.rig.leases()]
        for label in ("smoke", "bytecode"):
            listed = self.engine.client.containers.list(
                all=True, filters={"label": f"org.model-packager.{label}"}
            )
            assert not [one for one in listed if set(one.labels.values()) & set(ours)]
        for expected in self.expected.values():
            found = self.engine.find(expected.image)
            assert not found or found["RepoTags"]


def kill_builds(rig: Rig, engine: Engine, deaths: int, moods: Sequence[str]) -> None:
    builds = Builds(rig, engine, moods)
    killed = 0
    try:
        while killed < deaths:
            killed += sum(builds.kill() for _ in range(min(3, deaths - killed)))
            builds.build_again()
        # What an engine may have got from a run that is dead is looked for some time longer.
        for lease in rig.leases():
            os.utime(lease, (0, 0))
        builds.forget()
        builds.build_again()
        assert rig.leases() == []
    finally:
        builds.forget()
    print(f"{killed} builds killed; left behind: {dict(rig.left)}")  # noqa: T201


@pytest.mark.xdist_group("killed builds")
def test_a_build_may_be_killed_anywhere(rig: Rig, engine: Engine) -> None:
    kill_builds(rig, engine, 5, ["warm"])
    assert rig.left["runs of the store"] > 0  # or nothing was proved


@pytest.mark.whole
@pytest.mark.xdist_group("killed builds")
def test_a_hundred_and_forty_builds_may_be_killed_anywhere(rig: Rig, engine: Engine) -> None:
    kill_builds(rig, engine, 140, ["warm", "warm", "warm", "cold"])
    for kind in ("runs of the store", "files beside", "image", "container"):
        assert rig.left[kind] > 0, kind  # or nothing was proved


# --- packager lock ---------------------------------------------------------------------------


class Locks:
    """Locks of a project that goes back and forth between two versions of what it needs."""

    def __init__(self, rig: Rig, make_wheel: WheelMaker) -> None:
        self.rig = rig
        folder = rig.root / "wheels"
        for version in ("1.0", "2.0"):
            make_wheel("needed", version, folder=folder)
            make_wheel("trains", version, folder=folder)
        project = (rig.root / "pyproject.toml").read_text()
        self.project = project.replace(
            "dependencies = []",
            'dependencies = ["needed==VERSION"]\n'
            '[project.optional-dependencies]\ndev = ["trains==VERSION"]',
        ).replace("[tool.packager]", '[tool.packager]\nfind-links = ["wheels"]')
        self.expected: dict[str, dict[str, bytes]] = {}
        for version in ("1.0", "2.0"):
            self.become(version)
            rig.rehearse("lock", "lock")
            self.expected[version] = self.files()

    def become(self, version: str) -> None:
        (self.rig.root / "pyproject.toml").write_text(self.project.replace("VERSION", version))

    def files(self) -> dict[str, bytes]:
        return {name: (self.rig.root / name).read_bytes() for name in LOCKS}

    def kill(self) -> bool:
        self.become(self.rig.chance.choice(["1.0", "2.0"]))
        for blob in self.rig.chance.sample(sorted((self.rig.store / "blobs").iterdir()), 5):
            blob.unlink()
        killed = self.rig.killed("lock", "lock")
        self.rig.note_what_was_left()
        self.rig.check_blobs()
        for name, data in self.files().items():
            assert data in [files[name] for files in self.expected.values()]
        return killed

    def lock_again(self) -> None:
        version = self.rig.chance.choice(["1.0", "2.0"])
        self.become(version)
        self.rig.run("lock")
        assert self.files() == self.expected[version]
        self.rig.run("lock", "--check")
        self.rig.check_nothing_stays()


def kill_locks(rig: Rig, make_wheel: WheelMaker, deaths: int) -> None:
    locks = Locks(rig, make_wheel)
    assert locks.expected["1.0"].items().isdisjoint(locks.expected["2.0"].items())
    killed = 0
    # A lock writes nothing for most of its time, so a few deaths may all come too early.
    while killed < deaths or (killed < 10 * deaths and not rig.left["runs of the store"]):
        killed += sum(locks.kill() for _ in range(3))
        locks.lock_again()
    print(f"{killed} locks killed; left behind: {dict(rig.left)}")  # noqa: T201
    assert rig.left["runs of the store"] > 0  # or nothing was proved


@pytest.mark.xdist_group("killed locks")
def test_a_lock_may_be_killed_anywhere(rig: Rig, make_wheel: WheelMaker) -> None:
    kill_locks(rig, make_wheel, 3)


@pytest.mark.whole
@pytest.mark.xdist_group("killed locks")
def test_sixty_locks_may_be_killed_anywhere(rig: Rig, make_wheel: WheelMaker) -> None:
    kill_locks(rig, make_wheel, 60)
    assert rig.left["files beside"] > 0  # or nothing was proved
