"""Claims about what is left out: no secret, and no trace of the machine, reaches what is made."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import docker
import pytest
from conftest import git, write_wheel

from packager.errors import ClaimError, PackagerError
from packager.outputs.engine import Engine

pytestmark = pytest.mark.xdist_group("secrets")

MARK = "Kanarie7Zq"
"""What every canary begins with; it looks the same where it is percent-encoded."""

SECRETS = {
    name: f"{MARK}-{name}@/"
    for name in ("index", "pip.conf", "netrc", "proxy", "docker-proxy", "docker-auth", "signature")
} | {name: f"{MARK}-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "git-remote", "env")}
"""May be seen nowhere at all."""

TRACES = {
    name: f"{MARK}.{name}"
    for name in ("project", "home", "store", "temporary", "user", "host", "author", "output")
}
"""Of this machine and who sits at it: its user's own terminal may show them, nothing else."""


# --- The search -------------------------------------------------------------------------------


def forms(text: str) -> list[bytes]:
    """Give what a text looks like as it is, and inside any base64."""
    found = [text.encode()]
    for offset in range(3):
        # The characters at either end depend on the neighbours, too.
        encoded = base64.b64encode(bytes(offset) + text.encode())
        found.append(encoded.rstrip(b"=")[-(-offset * 4 // 3) : -1])
    return found


NEEDLES = forms(MARK)


def canaries(data: bytes, name: str) -> Iterator[str]:
    """Search bytes and everything packed into them, however deep; quote what is found."""
    for needle in NEEDLES:
        if (at := data.find(needle)) >= 0:
            yield f"{name}: {data[max(0, at - 60) : at + 60]!r}"
    for inner, content in unpacked(data):
        yield from canaries(content, f"{name} > {inner}")


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data.startswith(b"\x1f\x8b"):
        yield "gzip", gzip.decompress(data)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                # What is not packed has been searched with the whole.
                if file and (content := file.read())[:2] in PACKED:
                    yield member.name, content


PACKED = {b"\x1f\x8b", b"PK"}


def canaries_below(folder: Path) -> list[str]:
    """Search files and their names."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found += canaries(name.encode(), "the name")
        if path.is_file():
            found += canaries(path.read_bytes(), name)
    return found


def a_layer_with(data: bytes) -> bytes:
    """Pack a file as a layer of an archive is: a tar in gzip, in a tar."""
    for name in ("some/file", "blobs/sha256/00"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        data = gzip.compress(out.getvalue()) if name == "some/file" else out.getvalue()
    return data


@pytest.mark.parametrize("name", [*SECRETS, *TRACES])
@pytest.mark.parametrize("before", ["", "u:", "user:"])
def test_every_canary_is_found_in_any_form_inside_a_layer(name: str, before: str) -> None:
    canary = {**SECRETS, **TRACES}[name]
    for data in (
        f"x = {before}{canary}\n".encode(),
        f"http://{before}{quote(canary, safe='')}@host/".encode(),
        b"Authorization: Basic " + base64.b64encode(f"{before}{canary}".encode()),
    ):
        layer = a_layer_with(data)
        assert MARK.encode() not in layer
        assert list(canaries(layer, "layer"))
    assert not list(canaries(a_layer_with(b"a canary, but not ours: Kanarie"), "layer"))


# --- The surroundings: secrets everywhere, and most of them needed ----------------------------

LOGINS = {
    "first.example": ("u", SECRETS["index"]),
    "second.example": ("user", SECRETS["netrc"]),
    "third.example": ("someone", SECRETS["pip.conf"]),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """A proxy that demands a password, and the indexes behind it, each with its own."""

    server: Web

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        host = parts.hostname or ""
        self.server.asked.add(host)
        if self.headers.get("Proxy-Authorization") != basic("proxy-user", SECRETS["proxy"]):
            self.refuse(407, "Proxy-Authenticate", 'Basic realm="proxy"')
        elif host in LOGINS and self.headers.get("Authorization") != basic(*LOGINS[host]):
            self.refuse(401, "WWW-Authenticate", 'Basic realm="index"')
        elif host in LOGINS and self.server.moved_to:
            self.refuse(302, "Location", self.server.moved_to)
        elif self.server.status:
            self.refuse(self.server.status, "Retry-After", "0")
        else:
            self.serve(self.server.root / host / parts.path.strip("/"))

    def refuse(self, status: int, header: str, value: str) -> None:
        self.send_response(status)
        self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve(self, path: Path) -> None:
        page = path / "index.html"
        file = page if page.is_file() else path
        if not file.is_file():
            self.refuse(404, "Content-Type", "text/plain")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if file == page else "application/zip")
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(file.read_bytes())

    def do_HEAD(self) -> None:  # uv asks so first
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


class Web(http.server.ThreadingHTTPServer):
    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.asked: set[str] = set()
        self.behave()

    def behave(self) -> None:
        """Answer as an index should."""
        self.status, self.moved_to = 0, ""

    def publish(self, host: str, wheel: Path, data: bytes | None = None) -> None:
        """Offer a wheel, or other bytes under its name and hash."""
        folder = self.root / host / wheel.name.split("-")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / wheel.name).write_bytes(wheel.read_bytes() if data is None else data)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        link = f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>'
        (folder / "index.html").write_text(link)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def address(user: str, password: str, host: str) -> str:
    return f"http://{user}:{quote(password, safe='')}@{host}/"


# A machine and a user with names of their own, without being root.
WHO = f"""
import getpass, os, platform, socket
getpass.getuser = lambda: {TRACES["user"]!r}
socket.gethostname = socket.getfqdn = platform.node = lambda *_: {TRACES["host"]!r}
known = os.uname()
os.uname = lambda: os.uname_result((known[0], {TRACES["host"]!r}, *known[2:]))
"""


@dataclass
class Surroundings:
    """A project that needs three wheels, on a machine full of canaries."""

    root: Path
    web: Web
    wheels: dict[str, Path]

    @property
    def project(self) -> Path:
        return self.root / TRACES["project"]

    @property
    def home(self) -> Path:
        return self.root / TRACES["home"]

    @property
    def store(self) -> Path:
        return self.root / TRACES["store"]

    @property
    def archive(self) -> Path:
        return self.root / TRACES["output"] / "image.tar"

    @property
    def tag(self) -> str:
        return f"tiny:secrets-{abs(hash(self.root)) % 10**9}"

    @property
    def report(self) -> Path:
        return self.archive.with_name("report.json")

    def words(self, line: str) -> list[str]:
        """Fill in a command line's names."""
        return line.format(tag=self.tag, archive=self.archive, report=self.report).split()

    def environment(self) -> dict[str, str]:
        proxy = address("proxy-user", SECRETS["proxy"], f"127.0.0.1:{self.web.server_port}")
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "XDG_"))
        }
        return own | {
            "HOME": str(self.home),
            "PACKAGER_CACHE": str(self.store),
            "TMPDIR": str(self.root / TRACES["temporary"]),
            "DOCKER_CONFIG": str(self.home / "docker"),
            "PYTHONPATH": str(self.home / "python"),
            "PIP_CONFIG_FILE": str(self.home / "pip.conf"),
            "PIP_INDEX_URL": address(*LOGINS["first.example"], "first.example"),
            "PIP_FIND_LINKS": "",
            "PIP_TRUSTED_HOST": " ".join(LOGINS),  # pip passes over plain HTTP elsewhere
            "PIP_RETRIES": "0",
            "UV_HTTP_RETRIES": "0",
            "UV_NO_CACHE": "1",
            **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
            **{name: SECRETS[name] for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN")},
            "USER": TRACES["user"],
            "LOGNAME": TRACES["user"],
            "HOSTNAME": TRACES["host"],
        }

    def furnish(self) -> None:
        """Put a canary wherever somebody may have one."""
        for folder in (self.home / "docker", self.home / "python", self.archive.parent):
            folder.mkdir(parents=True)
        (self.root / TRACES["temporary"]).mkdir()
        (self.home / "python" / "sitecustomize.py").write_text(WHO)
        netrc = self.home / ".netrc"
        user, password = LOGINS["second.example"]
        netrc.write_text(f"machine second.example login {user} password {password}\n")
        netrc.chmod(0o600)
        third = address(*LOGINS["third.example"], "third.example")
        (self.home / "pip.conf").write_text(
            f"[global]\nextra-index-url = http://second.example/\n    {third}\n"
        )
        proxy = address("x", SECRETS["docker-proxy"], "proxy.example")
        auth = base64.b64encode(f"x:{SECRETS['docker-auth']}".encode()).decode()
        (self.home / "docker/config.json").write_text(
            json.dumps(
                {
                    "proxies": {"default": {"httpProxy": proxy, "httpsProxy": proxy}},
                    "auths": {"registry.example": {"auth": auth}},
                }
            )
        )
        (self.project / ".env").write_text(f"TOKEN={SECRETS['env']}\n")
        remote = address("token", SECRETS["git-remote"], "forge.example")
        git(self.project, "init", "-q")
        git(self.project, "remote", "add", "origin", remote)
        git(self.project, "config", "user.name", TRACES["author"])
        git(self.project, "config", "user.email", f"{TRACES['author']}@example.org")
        git(self.project, "add", "src", "models", "*.toml", ".gitattributes")
        author = f"--author={TRACES['author']} <{TRACES['author']}@example.org>"
        git(self.project, "commit", "-qm", "Tiny", author)

    def run(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "packager", *words]
        return subprocess.run(
            command,
            cwd=self.project,
            env=self.environment() | changed,
            capture_output=True,
            text=True,
            check=False,
        )

    def forget_wheels(self) -> None:
        """Make the next build ask the indexes again."""
        for wheel in self.wheels.values():
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            (self.store / "blobs" / digest).unlink(missing_ok=True)

    def kept(self) -> list[str]:
        """Search what is kept: the locks, and the store but for its large files."""
        folders = [path for path in self.store.iterdir() if path.is_dir() and path.name != "blobs"]
        found = [one for folder in folders for one in canaries_below(folder)]
        for name in ("requirements.txt", "requirements-dev.txt", "packager.lock"):
            if (path := self.project / name).exists():
                found += canaries(path.read_bytes(), name)
        return found


SECRET_NEEDLES = forms(f"{MARK}-")


def secrets_in(run: subprocess.CompletedProcess[str]) -> list[str]:
    """Search what a terminal shows; the user's own paths may stand there."""
    shown = (run.stdout + run.stderr).encode()
    return [str(needle) for needle in SECRET_NEEDLES if needle in shown]


@pytest.fixture(scope="module", params=["pip-tools", pytest.param("uv", marks=pytest.mark.whole)])
def surroundings(
    request: pytest.FixtureRequest,
    locked_tiny: Path,
    shared_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
    engine: Engine,
) -> Iterator[Surroundings]:
    """A project on such a machine, not locked yet, and no wheel in its store."""
    root = tmp_path_factory.mktemp("secrets")
    with Web(root / "web") as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        hosts = dict(zip(("one", "two", "three"), LOGINS, strict=True))
        wheels = {name: write_wheel(name, folder=root / "wheels") for name in hosts}
        for name, host in hosts.items():
            web.publish(host, wheels[name])
        made = Surroundings(root, web, wheels)
        shutil.copytree(locked_tiny, made.project)
        pyproject = made.project / "pyproject.toml"
        text = pyproject.read_text().replace("dependencies = []", f"dependencies = {[*hosts]}")
        pyproject.write_text(f'{text}resolver = "{request.param}"\n')
        lock = (made.project / "packager.lock").read_text()
        (made.store / "blobs").mkdir(parents=True)
        for digest in re.findall(r'^sha256 = "([0-9a-f]{64})"', lock, re.MULTILINE):
            shutil.copy2(shared_store / "blobs" / digest, made.store / "blobs")
        made.furnish()
        yield made
        web.shutdown()
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.client.images.remove(made.tag)


# --- What is made, and what is said while it is made ------------------------------------------

COMMANDS = [
    "lock",
    "lock",
    "lock --check",
    "build -t {tag} -o {archive}",
    "build -t {tag} -o {archive} --json",
    "smoke {tag}",
    "smoke {tag} --json",
    "info {tag}",
    "info {tag} --json",
    "info {archive} --json",
    "diff {archive} {tag}",
    "verify {archive} --report {report}",
]
"""In this order, each on what those before it made."""


@pytest.fixture(scope="module")
def runs(surroundings: Surroundings) -> list[subprocess.CompletedProcess[str]]:
    done = []
    for line in COMMANDS:
        if line.startswith("build"):
            surroundings.forget_wheels()
        done.append(surroundings.run(*surroundings.words(line)))
        assert done[-1].returncode == 0, done[-1].stderr
    return done


def test_no_command_says_a_secret(
    runs: list[subprocess.CompletedProcess[str]], surroundings: Surroundings
) -> None:
    assert not [(run.args, found) for run in runs if (found := secrets_in(run))]
    assert surroundings.web.asked >= set(LOGINS)


def test_nothing_that_is_given_away_holds_a_secret_or_a_trace(
    runs: list[subprocess.CompletedProcess[str]], surroundings: Surroundings, engine: Engine
) -> None:
    assert runs
    assert not list(canaries(surroundings.archive.read_bytes(), "archive"))
    image = engine.client.images.get(surroundings.tag)
    assert not list(canaries(json.dumps([image.attrs, image.history()]).encode(), "engine"))
    assert not list(canaries(b"".join(engine.save(surroundings.tag)), "docker save"))


def test_a_report_names_who_verified_and_where_and_nothing_else(
    runs: list[subprocess.CompletedProcess[str]], surroundings: Surroundings
) -> None:
    assert runs
    report = surroundings.report.read_text()
    told = {name for name, canary in {**SECRETS, **TRACES}.items() if canary in report}
    assert told <= {"author", "user", "host"}
    for name in told:
        report = report.replace(TRACES[name], "")
    assert not list(canaries(report.encode(), "report"))


def test_the_users_own_docker_settings_do_not_enter_the_seal(
    runs: list[subprocess.CompletedProcess[str]],
    surroundings: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert runs
    predictor = surroundings.project / "src/tiny/predict.py"
    kept = predictor.read_text()
    told = "{name: os.environ[name] for name in os.environ if 'proxy' in name.lower()}"
    predictor.write_text(f"import os\ndef load(_): raise ValueError({told})\n")
    try:
        run = surroundings.run("build", "-t", f"{surroundings.tag}-x")
    finally:
        predictor.write_text(kept)
    assert run.returncode == ClaimError.exit_code
    assert "ValueError: {}" in run.stderr
    # Left to themselves, those settings go into a container.
    monkeypatch.setenv("DOCKER_CONFIG", str(surroundings.home / "docker"))
    careless = docker.from_env().containers.create(surroundings.tag)
    try:
        assert list(canaries(json.dumps(careless.attrs["Config"]["Env"]).encode(), "container"))
    finally:
        careless.remove()


# --- What is said when something fails --------------------------------------------------------


def broken_settings(around: Surroundings) -> dict[str, str]:
    file = around.root / "broken.conf"
    file.write_text(f"index-url = {address(*LOGINS['first.example'], 'first.example')}\n")
    return {"PIP_CONFIG_FILE": str(file)}


def answering(status: int) -> Callable[[Surroundings], dict[str, str]]:
    def change(around: Surroundings) -> dict[str, str]:
        around.web.status = status
        return {}

    return change


def moving(around: Surroundings) -> dict[str, str]:
    around.web.status = 403
    signature = quote(SECRETS["signature"], safe="")
    around.web.moved_to = f"http://storage.example/file?X-Signature={signature}"
    return {}


def wrong_bytes(around: Surroundings) -> dict[str, str]:
    around.web.publish("first.example", around.wheels["one"], b"other bytes")
    return {}


def setting(**changed: str) -> Callable[[Surroundings], dict[str, str]]:
    return lambda _: changed


def proxies(value: str) -> Callable[[Surroundings], dict[str, str]]:
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    return setting(**dict.fromkeys(names, value))


def wrong_at_the_proxy(around: Surroundings) -> dict[str, str]:
    return proxies(address("proxy-user", WRONG, f"127.0.0.1:{around.web.server_port}"))(around)


WRONG = f"{SECRETS['index']}-wrong"
RAW = f"u:{SECRETS['index']}"  # with @ and / as they are, which no address allows

TROUBLE: dict[str, Callable[[Surroundings], dict[str, str]]] = {
    "an address with a wrong password": setting(PIP_INDEX_URL=address("u", WRONG, "first.example")),
    "an index that sends elsewhere": moving,
    "wrong bytes": wrong_bytes,
    "settings that cannot be read": broken_settings,
    "an index that forbids": answering(403),
    "an index that knows nothing": answering(404),
    "an index that is down": answering(500),
    "a password that is not quoted": setting(PIP_INDEX_URL=f"http://{RAW}@first.example/"),
    "a proxy with a wrong password": wrong_at_the_proxy,
    "a proxy that is not there": proxies(address("proxy-user", SECRETS["proxy"], "127.0.0.1:9")),
    "a proxy that cannot be": proxies(f"http://{RAW}@127.0.0.1:99999"),
    "a proxy without a scheme": proxies(f"proxy-user:{SECRETS['proxy'][:-2]}@127.0.0.1:9"),
    "an engine's address": setting(DOCKER_HOST=f"tcp://u:{SECRETS['proxy'][:-2]}@127.0.0.1:9"),
}
QUICK = list(TROUBLE)[:4]


@pytest.mark.parametrize("command", ["lock", "build --json -t {tag} -o {archive}"])
@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.whole) for one in TROUBLE if one not in QUICK)],
)
def test_no_error_says_a_secret(
    name: str,
    command: str,
    runs: list[subprocess.CompletedProcess[str]],
    surroundings: Surroundings,
) -> None:
    assert runs
    changed = TROUBLE[name](surroundings)
    surroundings.forget_wheels()
    try:
        run = surroundings.run(*surroundings.words(command), **changed)
    finally:
        surroundings.web.behave()
        surroundings.web.publish("first.example", surroundings.wheels["one"])
    assert run.returncode in {0, *(error.exit_code for error in PackagerError.__subclasses__())}
    assert run.stderr.startswith("error: ") or not run.returncode
    assert "Traceback" not in run.stderr
    assert not secrets_in(run), run.stderr
    assert not surroundings.kept()


def test_nothing_that_is_kept_holds_a_secret_or_a_trace(
    runs: list[subprocess.CompletedProcess[str]], surroundings: Surroundings
) -> None:
    """Comes last: whatever was tried above has left its traces in this store, if any."""
    assert runs
    assert any((surroundings.store / "notes").iterdir())
    assert not surroundings.kept()
    assert not canaries_below(surroundings.store)
