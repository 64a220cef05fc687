"""The perturbation matrix: each cell one way to build the same project in other circumstances.

A cell turns an ordinary `Run` into a perturbed one, and brings a probe: an expression whose
value shows, in the very circumstances of the build, that the perturbation is in force.
Variations and names are in the spirit of Debian's reprotest.  Clocks are set by libfaketime.
The order of directories is disorderfs's, and without FUSE that of a tmpfs with Python's own
listings reversed.  What needs a patched Python gets it from a `sitecustomize`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from chroots import CONTAINED, REPOSITORY, UnavailableError, chroot, inner_environment, install
from chroots import require_root_on_debian as require_root

Expected = Literal["same", "differs", "refused"]

_PROBE = "import concurrent.futures, locale, os, platform, socket, sys, time, zlib; print({})"
_NOBODY = 54321
_ODD_NAME = "a folder's nämé “with” blanks, ünïcode 🐧 and " + "length " * 20


@dataclass(frozen=True)
class Run:
    """One `packager build` in a new process: of what, by whom, in which circumstances."""

    project: Path
    store: Path
    out: Path
    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()
    python: str = sys.executable
    options: tuple[str, ...] = ()
    cwd: Path | None = None

    def having(self, **variables: str) -> Run:
        """Set variables of the environment."""
        return replace(self, environment={**self.environment, **variables})

    def behind(self, *words: str) -> Run:
        """Run it by means of another command."""
        return replace(self, prefix=(*self.prefix, *words))

    def execute(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the Python of this run, in its circumstances."""
        words = [*self.prefix, "env", f"--chdir={self.cwd or self.project}", self.python]
        return subprocess.run(
            [*words, *arguments],
            env={**self.environment, "PACKAGER_CACHE": str(self.store)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )

    def build(self) -> subprocess.CompletedProcess[str]:
        """Build, to `out`."""
        words = ["build", "--json", "--no-load", "-o", str(self.out)]
        return self.execute("-m", "packager", *self.options, *words)

    def probe(self, expression: str) -> str:
        """Say what an expression comes to in these circumstances."""
        done = self.execute("-c", _PROBE.format(expression))
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass(frozen=True)
class Cell:
    """A named perturbation, and what a build under it must come to."""

    name: str
    changed: str
    probe: str
    perturb: Callable[[Run, contextlib.ExitStack], Run]
    expected: Expected = "same"


@dataclass(frozen=True)
class Outcome:
    """What a build came to: two digests, or the reason why there are none."""

    cell: Cell
    image: str = ""
    manifest: str = ""
    seconds: float = 0.0
    why: str = ""
    verdict: Literal["same", "differs", "refused", "not to be had here"] = "same"

    @property
    def good(self) -> bool:
        """Tell whether it is what the cell expects; a cell that did not run is no failure."""
        return self.verdict in {self.cell.expected, "not to be had here"}


CELLS: dict[str, Cell] = {}
ORDINARY = Cell("ordinary", "nothing", "1", lambda run, _: run)


def _cell(
    name: str, changed: str, probe: str, expected: Expected = "same"
) -> Callable[[Callable[[Run, contextlib.ExitStack], Run]], Callable[..., Run]]:
    def register(
        perturb: Callable[[Run, contextlib.ExitStack], Run],
    ) -> Callable[[Run, contextlib.ExitStack], Run]:
        assert name not in CELLS
        CELLS[name] = Cell(name, changed, probe, perturb, expected)
        return perturb

    return register


def _simple(name: str, changed: str, probe: str, perturb: Callable[[Run], Run]) -> None:
    _cell(name, changed, probe)(lambda run, _: perturb(run))


# --- Time and place --------------------------------------------------------------------------


def _at(moment: str, run: Run) -> Run:
    install("faketime")
    return run.behind("faketime", "-f", f"@{moment}")


_simple(
    "clock: past",
    "1985-01-01, by libfaketime",
    "time.gmtime().tm_year",
    functools.partial(_at, "1985-01-01 00:00:00"),
)
_simple(
    "clock: future",
    "2038-01-20, by libfaketime",
    "time.gmtime().tm_year",
    functools.partial(_at, "2038-01-20 00:00:00"),
)
_simple(
    "time zone",
    "TZ=Pacific/Kiritimati, 14 hours ahead",
    "time.localtime(0)[:5]",
    lambda run: run.having(TZ="Pacific/Kiritimati"),
)
_simple(
    "locale: C",
    "LC_ALL=C, Python kept from replacing it by UTF-8",
    "locale.getencoding()",
    lambda run: run.having(
        LANG="C", LC_ALL="C", LANGUAGE="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    ),
)


@_cell("locale: Turkish", "LC_ALL=tr_TR.UTF-8", 'locale.setlocale(locale.LC_ALL, "")')
def _turkish(run: Run, _: contextlib.ExitStack) -> Run:
    install("locales", needed="/usr/share/i18n/locales/tr_TR")
    folder = run.out.parent / "locales"
    folder.mkdir()
    made = folder / "tr_TR.UTF-8"
    subprocess.run(
        ["localedef", "--no-archive", "-i", "tr_TR", "-f", "UTF-8", made],
        check=True,
        capture_output=True,
    )
    return run.having(LANG="tr_TR.UTF-8", LC_ALL="tr_TR.UTF-8", LOCPATH=str(folder))


@_cell("host name", "elsewhere.example.org, by a UTS namespace", "socket.gethostname()")
def _host_name(run: Run, _: contextlib.ExitStack) -> Run:
    require_root()
    name = 'echo elsewhere.example.org > /proc/sys/kernel/hostname; exec "$@"'
    return run.behind("unshare", "--uts", "sh", "-c", name, "sh")


_simple(
    "kernel",
    "uname says 2.6, addresses are not randomised",
    "platform.release()",
    lambda run: run.behind("setarch", "--uname-2.6", "--addr-no-randomize"),
)

# --- Who, and where --------------------------------------------------------------------------


def _with_umask(mask: str, run: Run) -> Run:
    """Clone and build under it: a clone's modes are its."""
    under = ["sh", "-c", f'umask {mask}; exec "$@"', "sh"]
    clone = _clone(run.project, run.project.with_name(f"umask {mask}"), prefix=under)
    return replace(run, project=clone).behind(*under)


for _mask in ("0000", "0077"):
    _simple(
        f"umask {_mask}",
        f"umask {_mask} for clone and build",
        'oct(os.umask(0)), oct(os.stat("pyproject.toml").st_mode)',
        functools.partial(_with_umask, _mask),
    )


@_cell("user: mapped", "user 1000, by a user namespace", "os.getuid(), os.getgid()")
def _mapped(run: Run, _: contextlib.ExitStack) -> Run:
    words = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        raise UnavailableError("this kernel gives no user namespace")
    return run.behind(*words)


@_cell("user: not root", f"user {_NOBODY} with a HOME of its own, bookworm chroot", "os.getuid()")
def _not_root(run: Run, stack: contextlib.ExitStack) -> Run:
    home = run.out.parent / "home"
    home.mkdir()
    run = _in_chroot("bookworm", run, stack).having(HOME=str(home))
    folder = run.out.parent
    folder.chmod(0o755)
    subprocess.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", folder], check=True)
    ids = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
    return run.behind("setpriv", *ids)


@_cell(
    "HOME",
    "another, whose git turns line ends, ignores all files and filters, whose pip has no index",
    'os.path.expanduser("~")',
)
def _home(run: Run, _: contextlib.ExitStack) -> Run:
    home = run.out.parent / "another home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/git").mkdir()
    (home / ".config/pip/pip.conf").write_text("[global]\nno-index = true\n")
    (home / ".config/git/ignore").write_text("*\n")
    (home / ".config/git/attributes").write_text("* text eol=crlf filter=shout\n")
    (home / ".gitconfig").write_text(
        "[core]\n autocrlf = true\n eol = crlf\n quotePath = false\n fileMode = false\n"
        '[filter "shout"]\n clean = tr a-z A-Z\n smudge = tr a-z A-Z\n'
    )
    return run.having(HOME=str(home), XDG_CONFIG_HOME=str(home / ".config"))


@_cell("folder's name", "blanks, quotes, accents, 180 characters", "os.path.basename(os.getcwd())")
def _odd_folder(run: Run, _: contextlib.ExitStack) -> Run:
    return replace(run, project=run.project.rename(run.project.with_name(_ODD_NAME.strip())))


@_cell("working directory", "/, with packager -C PROJECT", "os.getcwd()")
def _from_elsewhere(run: Run, _: contextlib.ExitStack) -> Run:
    return replace(run, cwd=Path("/"), options=("-C", str(run.project)))


# --- File systems, processors, chance --------------------------------------------------------

_LISTING = 'os.listdir("."), os.listdir(".git")'


def _on_other_file_system(run: Run, mount: str) -> Run:
    """Move project and store to where `mount` mounts another file system, for the run alone."""
    require_root()
    below, top = run.out.parent / "below", run.out.parent / "top"
    below.mkdir()
    top.mkdir()
    for path in (run.project, run.store):
        path.rename(below / path.name)
    moved = replace(run, project=top / run.project.name, store=top / run.store.name)
    script = f'below=$1 top=$2; shift 2; ({mount}) >&2 && exec "$@"'
    words = (*CONTAINED, "--mount-proc", "sh", "-c", script, "sh", str(below), str(top))
    return moved.behind(*words)


def _disordered(option: str, run: Run) -> Run:
    if not Path("/dev/fuse").exists():
        raise UnavailableError("this kernel has no FUSE")
    install("disorderfs")
    return _on_other_file_system(run, f'disorderfs {option} "$below" "$top"')


_simple(
    "file order: shuffled",
    "project and store on disorderfs, shuffled",
    _LISTING,
    functools.partial(_disordered, "--shuffle-dirents=yes"),
)
_simple(
    "file order: reversed",
    "project and store on disorderfs, sorted backwards",
    _LISTING,
    functools.partial(_disordered, "--sort-dirents=yes --reverse-dirents=yes"),
)


@_cell("file order: tmpfs", "project and store on a tmpfs, the newest first", _LISTING)
def _tmpfs(run: Run, _: contextlib.ExitStack) -> Run:
    return _on_other_file_system(run, 'mount -t tmpfs tmpfs "$top" && cp -a "$below/." "$top"')


@_cell("file order: Python", "os.listdir and os.scandir give the reverse", _LISTING)
def _python_order(run: Run, _: contextlib.ExitStack) -> Run:
    return _patched(
        run,
        """
import os
listdir, scandir = os.listdir, os.scandir

class Reversed:
    def __init__(self, path):
        with scandir(path) as found:
            self.left = iter(list(found)[::-1])
    def __iter__(self): return self
    def __next__(self): return next(self.left)
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def close(self): pass

os.listdir = lambda path=".": listdir(path)[::-1]
os.scandir = lambda path=".": Reversed(path)
""",
    )


_simple(
    "processors: one",
    "one processor, by taskset",
    "len(os.sched_getaffinity(0))",
    lambda run: run.behind("taskset", "-c", str(min(os.sched_getaffinity(0)))),
)


def _with_workers(count: int, run: Run) -> Run:
    return _patched(
        run,
        f"""
from concurrent.futures.thread import ThreadPoolExecutor
init = ThreadPoolExecutor.__init__
ThreadPoolExecutor.__init__ = lambda self, _=None, *a, **k: init(self, {count}, *a, **k)
""",
    )


for _count in (1, 7):
    _simple(
        f"workers: {_count}",
        f"every pool of threads has {_count}",
        "concurrent.futures.ThreadPoolExecutor(2)._max_workers",
        functools.partial(_with_workers, _count),
    )

for _seed in ("0", "1", "random"):
    _simple(
        f"hash seed: {_seed}",
        f"PYTHONHASHSEED={_seed}",
        'os.environ.get("PYTHONHASHSEED")',
        functools.partial(Run.having, PYTHONHASHSEED=_seed),
    )

_simple(
    "environment",
    "SOURCE_DATE_EPOCH, PYTHONPATH, PYTHONOPTIMIZE, PIP_*, GIT_*, noise",
    "sorted(os.environ)",
    lambda run: run.having(
        SOURCE_DATE_EPOCH="86400",
        PYTHONPATH=os.devnull,
        PYTHONOPTIMIZE="2",
        PYTHONNOUSERSITE="1",
        PIP_NO_BINARY=":all:",
        PIP_PREFIX="/nowhere",
        PIP_NO_DEPS="1",
        PIP_PRE="1",
        COLUMNS="33",
        GIT_DIR="/nowhere",
        GIT_AUTHOR_DATE="0 +0000",
        GIT_INDEX_FILE="/nowhere",
        CFLAGS="-O9",
        LESS="x",
        CAPTURE="".join(map(chr, range(0xA1, 0x180))),
        FORCE_COLOR="1",
    ),
)

# --- Stores, libraries, interpreters ---------------------------------------------------------

_STORE = 'len(os.listdir(os.environ["PACKAGER_CACHE"] + "/blobs"))'


@_cell("store: empty", "everything fetched anew", f'"0" if not {_STORE} else "not empty"')
def _empty_store(run: Run, _: contextlib.ExitStack) -> Run:
    store = run.out.parent / "an empty store"
    (store / "blobs").mkdir(parents=True)
    return replace(run, store=store)


@_cell("store: warm", "every layer made before", _STORE)
def _warm_store(run: Run, _: contextlib.ExitStack) -> Run:
    done = run.build()
    assert done.returncode == 0, done.stderr
    run.out.unlink()
    return run


_simple(
    "zlib",
    "Python's zlib compresses to other bytes",
    'zlib.compress(b"0" * 99)',
    lambda run: _patched(
        run,
        """
import zlib
compress, compressobj = zlib.compress, zlib.compressobj
zlib.compress = lambda data, /, level=-1, *a, **k: compress(data, 0, *a, **k)
zlib.compressobj = lambda level=-1, *a, **k: compressobj(0, *a, **k)
""",
    ),
)


@_cell(
    "compressor",
    "another version of the bundled libdeflate: it would give another manifest",
    '__import__("deflate").__version__',
    expected="refused",
)
def _other_compressor(run: Run, _: contextlib.ExitStack) -> Run:
    return _patched(
        run,
        """
import deflate
deflate.__version__ = "0.0.1"
""",
    )


def _in_chroot(suite: str, run: Run, stack: contextlib.ExitStack) -> Run:
    root = stack.enter_context(chroot(suite))
    inner = {**inner_environment(), "NO_COLOR": "1"}
    return replace(
        run, prefix=tuple(root.entering([run.out.parent])), python=root.python, environment=inner
    )


for _version, _suite in (("3.11", "bookworm"), ("3.13", "trixie"), ("3.14", "forky")):
    _cell(
        f"CPython {_version}",
        f"Debian {_suite}'s, with its zlib, git and C library, in a chroot",
        "os.stat('/').st_ino, sys.version, zlib.ZLIB_RUNTIME_VERSION",
    )(functools.partial(_in_chroot, _suite))


@_cell("CPython 3.12", "the one on PATH (no Debian release has it)", "sys.version")
def _from_path(run: Run, _: contextlib.ExitStack) -> Run:
    venv, python = run.out.parent / "venv", shutil.which("python3.12")
    done = python and subprocess.run([python, "-m", "venv", venv], check=False, capture_output=True)
    if not done or done.returncode:
        raise UnavailableError("there is no python3.12 that works on PATH")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([venv / "bin/python", *pip, REPOSITORY], check=True)
    return replace(run, python=str(venv / "bin/python"))


# --- The sources' ways -----------------------------------------------------------------------


@_cell(
    "git: line ends",
    "cloned with core.autocrlf, core.eol and attributes of its own that make them CRLF",
    'open("pyproject.toml", "rb").read().count(b"\\r") > 0',
)
def _crlf(run: Run, _: contextlib.ExitStack) -> Run:
    settings = ("-c", "core.autocrlf=true", "-c", "core.eol=crlf", "--no-checkout")
    clone = _clone(run.project, run.project.with_name("crlf"), *settings)
    # These override the repository's own .gitattributes, which may ask for LF.
    attributes = "".join(f"*.{kind} text eol=crlf\n" for kind in ("py", "toml", "txt", "lock"))
    (clone / ".git/info").mkdir(exist_ok=True)
    # A model is bytes, whatever it is called: its own digest is what is claimed of it.
    (clone / ".git/info/attributes").write_text(f"{attributes}models/* -text\n")
    git(clone, "checkout", "--quiet")
    return replace(run, project=clone)


@_cell(
    "git: modes and links",
    "cloned with core.fileMode and core.symlinks false, every mode changed",
    'oct(os.stat("pyproject.toml").st_mode)',
)
def _no_modes(run: Run, _: contextlib.ExitStack) -> Run:
    settings = ("-c", "core.fileMode=false", "-c", "core.symlinks=false")
    clone = _clone(run.project, run.project.with_name("modes"), *settings)
    for path in clone.rglob("*"):
        if path.is_file() and not path.is_symlink() and ".git" not in path.parts:
            path.chmod(path.stat().st_mode ^ 0o111)
    return replace(run, project=clone)


@_cell("git: shallow", "cloned with --depth 1", 'os.path.exists(".git/shallow")')
def _shallow(run: Run, _: contextlib.ExitStack) -> Run:
    clone = run.project.with_name("shallow")
    return replace(run, project=_clone(run.project, clone, "--depth=1", "--no-local"))


@_cell("git: none", "a zip of the sources, by git archive", 'os.path.exists(".git")')
def _source_zip(run: Run, _: contextlib.ExitStack) -> Run:
    file = run.out.parent / "source.zip"
    git(run.project, "archive", "--format=zip", "-o", str(file), "HEAD")
    folder = run.project.with_name("unzipped")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return replace(run, project=folder)


# --- The control -----------------------------------------------------------------------------


@_cell(
    "control: a byte",
    "one byte of the code, so an input",
    'any("\\n#\\n" in open(os.path.join(folder, name)).read()'
    ' for folder, _, names in os.walk("src") for name in names if name.endswith(".py"))',
    expected="differs",
)
def _control(run: Run, _: contextlib.ExitStack) -> Run:
    module = max((run.project / "src").rglob("*.py"))
    with module.open("ab") as stream:
        stream.write(b"\n#\n")
    return run


# --- Running them ----------------------------------------------------------------------------


def _ordinary_environment() -> dict[str, str]:
    """Give this environment without what steers Python or git."""
    unwanted = ("PYTHON", "GIT_", "PYTEST_", "PACKAGER_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    return {**kept, "NO_COLOR": "1"}


@dataclass
class Matrix:
    """One project under all circumstances.

    Layers that are in the store are not made again, so each run gets a store of its own that
    holds what the lock names, and nothing that was made from it.
    """

    project: Path
    store: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=_ordinary_environment)

    def __post_init__(self) -> None:
        self.source = _clone(self.project, self.folder / "source")
        # More than one commit, so that a shallow clone is one.
        git(self.source, "commit", "--quiet", "--allow-empty", "-m", "Another commit")
        first = self._run(self.folder / "first", self.source, self.store).build()
        assert first.returncode == 0, first.stderr
        lock = (self.source / "packager.lock").read_text("utf-8")
        self.fetched = self.folder / "fetched"
        (self.fetched / "blobs").mkdir(parents=True)
        for digest in set(re.findall(r'sha256 = "([0-9a-f]{64})"', lock)):
            shutil.copy(self.store / "blobs" / digest, self.fetched / "blobs")
        self.ordinary = self.outcome(ORDINARY)
        assert self.ordinary.image, self.ordinary.why

    def outcome(self, cell: Cell) -> Outcome:
        """Build under one perturbation; what was needed for it is removed again."""
        with contextlib.ExitStack() as stack:
            try:
                run = self.perturbed(stack, cell)
            except UnavailableError as why:
                return Outcome(cell, why=str(why), verdict="not to be had here")
            begin = time.monotonic()
            done = run.build()
            seconds = time.monotonic() - begin
            if done.returncode:
                return Outcome(cell, seconds=seconds, why=_reason(done), verdict="refused")
            image, manifest = digests(run.out)
            told = json.loads(done.stdout)
            assert (told["id"], told["manifest"]) == (image, manifest)
        ordinary = self.ordinary if cell is not ORDINARY else Outcome(cell, image, manifest)
        same = (image, manifest) == (ordinary.image, ordinary.manifest)
        return Outcome(cell, image, manifest, seconds, verdict="same" if same else "differs")

    def perturbed(self, stack: contextlib.ExitStack, *cells: Cell) -> Run:
        """Prepare a run under perturbations, in a folder that goes with the stack.

        A perturbation that the probe does not show is an error: its cell would prove nothing.
        """
        folder = self.folder / hashlib.sha256(repr(cells).encode()).hexdigest()[:8]
        folder.mkdir()
        stack.callback(shutil.rmtree, folder)
        shutil.copytree(self.source, folder / "project", symlinks=True)
        shutil.copytree(self.fetched, folder / "store")
        run = ordinary = self._run(folder, folder / "project", folder / "store")
        before = {cell.name: ordinary.probe(cell.probe) for cell in cells}
        for cell in cells:
            run = cell.perturb(run, stack)
        for cell in cells:
            if cell is not ORDINARY and run.probe(cell.probe) == before[cell.name]:
                raise AssertionError(f"{cell.name}: {cell.probe} is still {before[cell.name]}")
        return run

    def _run(self, folder: Path, project: Path, store: Path) -> Run:
        folder.mkdir(exist_ok=True)
        return Run(project, store, folder / "out.tar", self.environment)


def digests(archive: Path) -> tuple[str, str]:
    """Read an archive's image ID and manifest digest from its bytes, not from what was said."""
    with tarfile.open(archive) as bundle:

        def member(name: str) -> bytes:
            stream = bundle.extractfile(name)
            assert stream is not None
            return stream.read()

        (entry,) = json.loads(member("index.json"))["manifests"]
        manifest = member(f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}")
        config = json.loads(manifest)["config"]["digest"].removeprefix("sha256:")
        image = hashlib.sha256(member(f"blobs/sha256/{config}")).hexdigest()
    return f"sha256:{image}", f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def git(folder: Path, *words: str, prefix: Sequence[str] = ()) -> str:
    """Run git as somebody whom no configuration knows."""
    who = {
        f"GIT_{role}_{what}": f"{what}@example.org".lower()
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    quiet = {"HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"], **who}
    done = subprocess.run(
        [*prefix, "git", "-c", "safe.directory=*", *words],
        cwd=folder,
        env=quiet,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def _clone(source: Path, target: Path, *options: str, prefix: Sequence[str] = ()) -> Path:
    git(source, "clone", "--quiet", *options, source.as_uri(), str(target), prefix=prefix)
    return target


def _patched(run: Run, code: str) -> Run:
    """Let Python run some code as it starts."""
    folder = run.out.parent / "patches"
    folder.mkdir(exist_ok=True)
    with (folder / "sitecustomize.py").open("a") as stream:
        stream.write(code)
    return run.having(PYTHONPATH=str(folder))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Quote the error made for users; anything else is a failure of the test."""
    assert done.returncode == 1, done.stderr
    return str(json.loads(done.stdout)["error"]["what"])


def table(outcomes: Iterator[Outcome] | Sequence[Outcome]) -> Iterator[str]:
    """Write outcomes as a table, a line as soon as each is known."""
    yield "| cell | what was changed | image ID | manifest | seconds | verdict |"
    yield "| --- | --- | --- | --- | ---: | --- |"
    for one in outcomes:
        image, manifest = (_short(digest) for digest in (one.image, one.manifest))
        seconds = f"{one.seconds:.1f}" if one.seconds else "-"
        yield (
            f"| {one.cell.name} | {one.cell.changed} | {image} | {manifest} | {seconds} "
            f"| {_verdict(one)} |"
        )


def _short(digest: str) -> str:
    return f"`{digest.removeprefix('sha256:')[:12]}`" if digest else "-"


def _verdict(one: Outcome) -> str:
    said = one.verdict + (f": {one.why}" if one.why else "")
    if one.verdict == one.cell.expected != "same":
        return f"{said}, as it must" if one.verdict == "differs" else said
    return said if one.good else f"**{said}**"
