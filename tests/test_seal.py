"""Claims about the seal: what a model tries is stopped, and said for what it is."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import Tiny, run_packager

from packager import smoke
from packager.errors import ClaimError, UsageError
from packager.outputs import containers
from packager.outputs.containers import OPEN_FILES, SHM_MB, TMP_MB, Run
from packager.outputs.engine import Engine
from packager.proof import Limits
from packager.runtime.packager_runtime import selftest

pytestmark = pytest.mark.xdist_group("seal")

ATTEMPT = "srv/attempt.py"

# A model that does what a file in its image says, and behaves where there is none.
PREDICTOR = f"""\
from pathlib import Path

ATTEMPT = Path("/{ATTEMPT}")
exec(ATTEMPT.read_text() if ATTEMPT.exists() else "", globals())


class Model:
    def predict(self, inputs):
        globals().get("while_predicting", str)()
        return {{"y": [value * 2.5 for value in inputs["x"]]}}


def load(path):
    globals().get("attempt", str)()
    return Model()
"""

Maker = Callable[..., str]


@pytest.fixture
def docker_client(engine: Engine) -> docker.DockerClient:
    return engine.client


@pytest.fixture(scope="module")
def image_that(
    engine: Engine, locked_tiny: Path, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Maker]:
    """Make images whose model does what it is told; one is built, the others differ by a file."""
    root = tmp_path_factory.mktemp("seal") / "tiny"
    shutil.copytree(locked_tiny, root)
    (root / "src/tiny/predict.py").write_text(PREDICTOR)
    tag = f"tiny:seal-{abs(hash(root)) % 10**9}"
    run = run_packager(root, shared_store, "build", "-t", tag)
    assert run.returncode == 0, run.stderr
    made = [tag]

    def make(code: str = "", *programs: tarfile.TarInfo) -> str:
        container = engine.client.containers.create(tag)
        container.put_archive("/", archive(engine, tag, code, programs))
        made.append(str(container.commit().id))
        container.remove()
        return made[-1]

    yield make
    for image in reversed(made):
        engine.client.images.remove(image)


def archive(engine: Engine, tag: str, code: str, programs: tuple[tarfile.TarInfo, ...]) -> bytes:
    """Pack an attempt, and programs, each a copy of the image's own `id`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        file = tarfile.TarInfo(ATTEMPT)
        file.size = len(code.encode())
        tar.addfile(file, io.BytesIO(code.encode()))
        for program in programs:
            data = read_file(engine, tag, "/usr/bin/id")
            program.size = len(data)
            tar.addfile(program, io.BytesIO(data))
    return out.getvalue()


def read_file(engine: Engine, image: str, path: str) -> bytes:
    container = engine.client.containers.create(image)
    try:
        packed = b"".join(container.get_archive(path)[0])
    finally:
        container.remove()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        member = tar.extractfile(tar.next() or "")
        assert member is not None
        return member.read()


def nothing_is_left(engine: Engine, image: str) -> bool:
    return not engine.client.containers.list(all=True, filters={"ancestor": image})


# --- What is refused, while the model goes on ------------------------------------------------

# Each returns something true if it worked; an error, or something false, is that it did not.
PROBES = r"""
import ctypes, json, os, resource, socket, stat, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def writes(path):
    with open(path, "wb"):
        return True


def reads(path):
    with open(path, "rb") as file:
        return file.read(1)


def writes_down(path, text):
    with open(path, "w") as file:
        file.write(text)
    return True


def route_out():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))
    return True


def status(key, fine):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return lines[key].strip() not in fine


def executes_what_it_wrote():
    with open("/tmp/program", "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    os.chmod("/tmp/program", 0o755)
    return subprocess.run(["/tmp/program"]).returncode == 0


def fills_shared_memory():
    with open("/dev/shm/much", "wb") as file:
        for _ in range(SHM_MB + 1):
            file.write(bytes(1 << 20))
    return True


def any_of(act, *paths):
    return any(act(path) for path in paths if os.path.exists(path))


PROBES = {
    "write to the root": lambda: writes("/x"),
    "write beside the model": lambda: writes("/srv/packager/model/x"),
    "write to /etc": lambda: writes("/etc/x"),
    "write to /usr": lambda: writes("/usr/lib/x"),
    "write to /var/tmp": lambda: writes("/var/tmp/x"),
    "write to /dev": lambda: writes("/dev/x"),
    "write to the kernel's settings": lambda: writes("/proc/sys/kernel/domainname"),
    "press the kernel's keys": lambda: any_of(
        writes, "/proc/irq/default_smp_affinity", "/proc/sysrq-trigger"
    ),
    "write to a control group": lambda: any_of(
        writes, "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs"
    ),
    "overfill shared memory": fills_shared_memory,
    "execute what it wrote": executes_what_it_wrote,
    "mount": lambda: call("mount", b"x", b"/tmp", b"tmpfs", 0, None),
    "make a device": lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(1, 0)) is None,
    "change the root": lambda: os.chroot("/tmp") is None,
    "read the kernel's memory": lambda: any_of(reads, "/proc/timer_list", "/proc/kcore"),
    "see processes of the host": lambda: sum(map(str.isdigit, os.listdir("/proc"))) > 2,
    "read files of the host": lambda: any_of(
        reads, HOST_FILE, *(f"/proc/{one}/root{HOST_FILE}" for one in os.listdir("/proc"))
    ),
    "become root": lambda: os.setuid(0) is None,
    "become root by a program": lambda: subprocess.check_output(["/srv/id", "-u"]) == b"0\n",
    "gain privileges": lambda: status("NoNewPrivs", {"1"}),
    "keep capabilities": lambda: [
        key for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        if status(key, {"0" * 16})
    ],
    "call the whole kernel": lambda: status("Seccomp", {"2"}),
    "be root of a namespace": lambda: call("unshare", 0x10000000),
    "have mounts of its own": lambda: call("unshare", 0x00020000),
    "name the host": lambda: call("sethostname", b"x", 1),
    "find a network": lambda: [name for _, name in socket.if_nameindex() if name != "lo"],
    "find a way out": route_out,
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "listen to the wire": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "open more files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999)) is None,
    "leave a core": lambda: resource.getrlimit(resource.RLIMIT_CORE) != (0, 0),
    "outlive others in want of memory": lambda: writes_down("/proc/self/oom_score_adj", "-1"),
    "go before others": lambda: os.nice(-5) < 0,
}


def outcome(probe):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            told = "worked" if probe() else "stopped"
        except Exception as wrong:
            told = f"stopped: {wrong}"
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return told


def attempt():
    print(json.dumps({name: outcome(probe) for name, probe in PROBES.items()}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def probing(image_that: Maker, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An image that tries everything, and a file of the host that it tries to read."""
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_text("of the host")
    program = tarfile.TarInfo("srv/id")
    program.mode = 0o4755
    facts = f"HOST_FILE = {str(secret)!r}\nSHM_MB = {SHM_MB}\n"
    return image_that(facts + PROBES, program), secret


def outcomes(printed: bytes) -> dict[str, str]:
    (line,) = [line for line in printed.splitlines() if line.startswith(b"{")]
    told: dict[str, str] = json.loads(line)
    return told


def test_what_a_model_must_not_do_it_cannot(engine: Engine, probing: tuple[str, Path]) -> None:
    run = engine.run_sealed(
        probing[0], ["selftest", "--json"], seconds=60, memory="256m", processes=64
    )
    told = outcomes(run.stderr)
    assert not {name: what for name, what in told.items() if not what.startswith("stopped")}
    assert run.exit_code == 0, run.stderr
    assert len(told) > 30


OPEN = {
    "cap_add": ["SYS_ADMIN", "SYS_NICE", "SYS_PTRACE", "SYS_RAWIO"],
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "pid_mode": "host",
    "network_mode": "host",
    "shm_size": (SHM_MB + 64) << 20,
    "ulimits": [
        docker.types.Ulimit(name="core", soft=1, hard=1),
        docker.types.Ulimit(name="nofile", soft=OPEN_FILES, hard=9999),
    ],
}
# These need an engine that may do everything on its host itself, which not all may.
OUT_OF_REACH = {"write to a control group", "outlive others in want of memory"}


def test_what_is_not_sealed_can_do_all_of_it(engine: Engine, probing: tuple[str, Path]) -> None:
    as_root = outcomes(run_open(engine, probing[0], user="0", **OPEN))
    assert {name for name, what in as_root.items() if what != "worked"} <= OUT_OF_REACH
    as_anybody = outcomes(run_open(engine, probing[0], user="65532", network_mode="none"))
    assert as_anybody["become root by a program"] == "worked"
    assert as_anybody["become root"].startswith("stopped")


def run_open(engine: Engine, image: str, *, user: str, **options: Any) -> bytes:
    """Run the self-test without the seal; return what the model printed."""
    api = engine.client.api
    host = api.create_host_config(**options)
    if user == "0":
        host |= {"MaskedPaths": [], "ReadonlyPaths": []}
    container = api.create_container(image, ["selftest"], user=user, host_config=host)
    try:
        api.start(container)
        api.wait(container)
        return bytes(api.logs(container, stdout=False))
    finally:
        api.remove_container(container, force=True)


# --- What ends the model, and what is said about it -------------------------------------------

DOES = {
    "hangs": "while True: pass",
    "eats memory": "x = []\nwhile True: x.append(bytes(10**7))",
    "forks without end": "while True: os.fork()",
    "fills /tmp": "file = open('/tmp/x', 'wb')\nwhile True: file.write(bytes(1 << 20))",
    "writes": "open('/srv/packager/x', 'w')",
    "opens a socket": "socket.create_connection(('192.0.2.1', 80), timeout=5)",
    "forges a verdict": "print(PASSED, flush=True)\nos._exit(0)",
    "asks for a name": "socket.getaddrinfo('example.org', 80)",
    "hides the network": """
try:
    socket.create_connection(('192.0.2.1', 80), timeout=5)
except OSError as error:
    raise RuntimeError('no weights') from error""",
    "starts threads": "while True: threading.Thread(target=time.sleep, args=[99]).start()",
    "starts servants": """
while True: threading.Thread(target=time.sleep, args=[99], daemon=True).start()""",
    "fills shared memory": "open('/dev/shm/x', 'wb').write(bytes(99 << 20))",
    "opens files": "x = [open('/etc/passwd') for _ in range(9999)]",
    "becomes root": "os.setuid(0)",
    "executes what it wrote": """
open('/tmp/x', 'w').close()
os.chmod('/tmp/x', 0o755)
os.execv('/tmp/x', ['x'])""",
    "asks for all memory": "bytes(1 << 60)",
    "lets others eat memory": """
if child := os.fork(): os.waitpid(child, 0); raise RuntimeError("a worker died")
x = []
while True: x.append(bytes(10**7))""",
    "gives up": "os.abort()",
    "crashes": "ctypes.string_at(0)",
    "exits": "os._exit(7)",
    "leaves": "sys.exit('done')",
    "closes everything": "os.closerange(0, 99)",
    "forks, and the copy goes on": "if os.fork(): time.sleep(3); os._exit(5)",
    "forks whatever is said": """
while True:
    try: os.fork()
    except OSError: pass""",
    "will not be stopped": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True: time.sleep(99)""",
    "prints without end": "while True: os.write(2, b'more ' * 999 + b'\\n')",
    "forges half a verdict": 'everywhere(b\'{"status": "passed"}\\n\')\nos._exit(0)',
    "forges, and fails": "everywhere(PASSED.encode() + b'\\n')\nos._exit(3)",
    "does not import": "import no_such_module",
    "fails": "raise ValueError('bad weights \\033[31m')",
}
SAID = {
    "hangs": r"not finished after 3 s: stopped \(--timeout",
    "eats memory": r"more than 256m of memory \(--memory",
    "forks without end": "more than 64 processes and threads",
    "fills /tmp": rf"more room than /tmp \({TMP_MB} MB\)",
    "writes": r"writes outside /tmp, .* read-only\n.*Read-only file system: '/srv/packager/x'",
    "opens a socket": "uses the network, and the smoke test has none\n.*unreachable",
    "forges a verdict": "ended with exit code 0 and no verdict",
    "asks for a name": "uses the network, and the smoke test has none\n.*gaierror",
    "hides the network": "uses the network, .*\n.*RuntimeError: no weights",
    "starts threads": "more than 64 processes and threads",
    "starts servants": "more than 64 processes and threads",
    "fills shared memory": rf"/dev/shm \({SHM_MB} MB\)",
    "opens files": f"more than {OPEN_FILES} open files",
    "becomes root": "needs a privilege",
    "executes what it wrote": "needs a right .* nothing in /tmp is a program",
    "asks for all memory": "more than 256m of memory",
    "lets others eat memory": "more than 256m of memory .*\n.*a worker died",
    "gives up": "was ended by SIG(ABRT|SEGV)",
    "crashes": "was ended by SIGSEGV",
    "exits": "ended with exit code 7 and no verdict",
    "leaves": "loading the model failed: SystemExit: done",
    "closes everything": "ended with exit code [0-9]+ and no verdict",
    "forks, and the copy goes on": "ended with exit code 5 and no verdict",
    "forks whatever is said": "not finished after 3 s",
    "will not be stopped": "not finished after 3 s",
    "prints without end": "not finished after 10 s.*\n  more more more",
    "forges half a verdict": "ended with exit code 0 and no verdict",
    "forges, and fails": "ended with exit code 3 and no verdict",
    "does not import": "does not import inside the image: .*no_such_module",
    "fails": "loading the model failed: ValueError: bad weights \N{REPLACEMENT CHARACTER}",
}
HELPERS = """
import contextlib, ctypes, os, signal, socket, sys, threading, time

PASSED = '''{"format": 1, "status": "passed", "examples": 3, "outputs": [], "seconds": {},
 "error": null}'''.replace("\\n", "")


def everywhere(data):
    for descriptor in range(1, 20):
        with contextlib.suppress(OSError):
            os.write(descriptor, data)


def attempt():
"""
QUICK = list(DOES)[:7]
# Where it must come to the end of its time; the longer ones have something to do before.
SECONDS = {"hangs": 3, "forks whatever is said": 3, "will not be stopped": 3}
SECONDS |= {"starts threads": 20, "prints without end": 10}


def told(code: str) -> str:
    return HELPERS + "".join(f"    {line}\n" for line in ["pass", *code.splitlines()])


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.whole) for one in DOES if one not in QUICK)],
)
def test_what_a_model_does_is_stopped_and_said_for_what_it_is(
    name: str, engine: Engine, image_that: Maker
) -> None:
    image = image_that(told(DOES[name]))
    limits = Limits(
        seconds=SECONDS.get(name, 60),
        memory="1g" if "/tmp" in name else "256m",
        processes=64,
    )
    with pytest.raises((ClaimError, UsageError), match=SAID[name]) as caught:
        smoke.replay(engine, image, limits)
    assert isinstance(caught.value, UsageError) == (name == "does not import")
    assert "\033" not in str(caught.value)
    assert nothing_is_left(engine, image)


def test_a_model_that_behaves_passes_within_the_same_limits(
    engine: Engine, image_that: Maker
) -> None:
    verdict = smoke.replay(engine, image_that(), Limits(60, "256m", 64))
    assert (verdict.examples, verdict.largest_difference) == (3, 0.0)


DAEMON = """
if not os.fork():
    os.setsid()
    os.closerange(0, 99)
    os.execv("/bin/sleep", ["{name}", "600"])"""


def test_what_a_model_leaves_behind_ends_with_it(
    engine: Engine, image_that: Maker, tmp_path: Path
) -> None:
    name = f"left-behind-{abs(hash(tmp_path))}"
    image = image_that(told(DAEMON.format(name=name)))
    assert smoke.replay(engine, image, Limits(60, "256m", 64)).examples == 3
    assert not runs_here(name)
    # Where nobody ends the container, it is seen: so this machine is the engine's host.
    held = told(DAEMON.format(name=name) + "\ntime.sleep(600)")
    container = engine.client.containers.run(
        image_that(held), ["selftest"], detach=True, network_mode="none"
    )
    try:
        wait_for(lambda: runs_here(name))
    finally:
        container.remove(force=True)


def runs_here(name: str) -> bool:
    return any(name.encode() in command(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


# --- The verdict itself -----------------------------------------------------------------------


def test_what_a_model_prints_is_not_the_verdict(engine: Engine, image_that: Maker) -> None:
    prints = told("print(PASSED, flush=True)\nos.system('echo ' + repr(PASSED))")
    image = image_that(f"{prints}\ndef while_predicting():\n    raise ValueError('after all')\n")
    with pytest.raises(ClaimError, match="predicting failed: ValueError: after all"):
        smoke.replay(engine, image, Limits(60, "256m", 64))


def test_a_model_that_lies_is_not_convicted(engine: Engine, image_that: Maker) -> None:
    """The limit that docs/seal.md states: the author's own code can write the verdict."""
    lies = told("everywhere(PASSED.encode() + b'\\n')\nos._exit(0)")
    assert smoke.replay(engine, image_that(lies), Limits(60, "256m", 64)).examples == 3


GOOD = {"format": 1, "status": "passed", "examples": 3, "outputs": [], "seconds": {}}
WRONG = {"stage": "load", "type": "ValueError", "message": "x"}


class Printing:
    """An engine whose containers print a verdict."""

    name = "printing"

    def __init__(self, verdict: object, exit_code: int | None) -> None:
        self.run = Run(exit_code, False, json.dumps(verdict).encode() + b"\n", b"")

    def get(self, _: str) -> dict[str, object]:
        return {}

    def run_sealed(self, *_: object, **__: object) -> Run:
        return self.run


def judged(verdict: object, exit_code: int | None) -> smoke.Verdict:
    return smoke.replay(Printing(verdict, exit_code), "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "exit_code"),
    [
        ({}, 1),
        ({}, None),
        ({"status": "failed"}, 0),
        ({"status": "error", "error": None}, 2),
        ({"status": "fine"}, 0),
        ({"format": 2}, 0),
        ({"examples": "many"}, 0),
        ({"outputs": [{"name": "y"}]}, 0),
        ({"seconds": None}, 0),
        ({"error": [[[[]]]]}, 0),
    ],
)
def test_only_a_whole_verdict_that_the_exit_code_bears_out_counts(
    change: dict[str, object], exit_code: int | None
) -> None:
    assert judged({**GOOD, "error": None}, 0).examples == 3
    with pytest.raises(ClaimError, match=r"no verdict|not finished"):
        judged({**GOOD, "error": None, **change}, exit_code)


def chained(*errors: BaseException) -> BaseException:
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def test_what_the_system_said_is_found_behind_other_errors() -> None:
    system, other = OSError(30, "Read-only"), RuntimeError("cannot cache")
    assert selftest._errno(chained(ValueError(), other, system)) == 30
    assert selftest._errno(chained(ValueError(), OSError("no number"))) is None
    assert selftest._errno(chained(other, ValueError(), other)) is None  # round and round


def test_trouble_that_was_told_counts_though_the_end_had_to_be_forced() -> None:
    with pytest.raises(ClaimError, match="ValueError: x"):
        judged({**GOOD, "status": "error", "error": WRONG}, None)


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_model_says_is_cut_and_has_no_power_over_a_terminal(whole: bool) -> None:
    message = "\033]0;title\a\u202e" + "x" * (10 if whole else 10**6)
    with pytest.raises(ClaimError) as caught:
        judged({**GOOD, "status": "error", "error": {**WRONG, "message": message}}, 2)
    text = str(caught.value)
    assert "]0;title" in text
    assert not {"\033", "\a", "\u202e"} & set(text)
    assert ("…" in text) != whole
    assert len(text) < 1000


# --- packager itself --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eats memory", pytest.param("hangs", marks=pytest.mark.whole)])
def test_an_image_that_breaks_the_seal_gets_no_tag(
    name: str, tiny: Tiny, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    (tiny.root / "src/tiny/predict.py").write_text(told(DOES[name]) + "def load(_): attempt()\n")
    tag = f"tiny:seal-{abs(hash(tmp_path)) % 10**9}"
    seconds = str(SECONDS.get(name, 60))
    run = tiny.run("build", "-t", tag, "--timeout", seconds, "--memory", "256m")
    assert run.returncode == ClaimError.exit_code, run.stderr
    assert re.search(SAID[name], run.stderr)
    assert "Traceback" not in run.stderr.partition("error:")[0]
    with pytest.raises(docker.errors.ImageNotFound):
        docker_client.images.get(tag)


@pytest.mark.whole
def test_output_without_end_does_not_eat_packagers_memory(image_that: Maker) -> None:
    image = image_that(told(DOES["prints without end"]))
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "packager", "smoke", image, "--timeout", "10"]
    run = subprocess.run(
        [sys.executable, "-c", measure, *command], capture_output=True, text=True, check=True
    )
    assert "not finished after 10 s" in run.stderr
    assert len(run.stderr) < 5000
    assert int(run.stdout) * 1024 < 200_000_000


def test_the_options_of_the_seal_are_in_force(
    engine: Engine, image_that: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[dict[str, Any]] = []

    def look(container: Any, _: float) -> Run:
        caught.append(container.attrs["HostConfig"])
        return Run(0, False, b"", b"")

    monkeypatch.setattr(containers, "_run", look)
    engine.run_sealed(image_that(), ["info"], seconds=1, memory="256m", processes=64)
    expected = {
        "Binds": None,
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "CgroupnsMode": "private",
        "IpcMode": "private",
        "Memory": 256 << 20,
        "MemorySwap": 256 << 20,
        "NetworkMode": "none",
        "OomScoreAdj": 1000,
        "PidsLimit": 64,
        "PidMode": "",
        "Privileged": False,
        "ReadonlyRootfs": True,
        "SecurityOpt": ["no-new-privileges"],
        "ShmSize": SHM_MB << 20,
        "UTSMode": "",
    }
    assert {key: caught[0][key] for key in expected} == expected
