"""Names to pinned, hashed requirements: pip-tools where it can, uv for another system or Python.

pip-tools resolves for the interpreter and the system that it runs on, and writes no
markers for what it found.  So it serves where host and target agree; uv resolves for the
target from anywhere.  Where hosts agree both give the same pins.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packager import net, pip
from packager.errors import UsageError, without_credentials
from packager.lock.indexes import Indexes
from packager.lock.lockfile import BUILT
from packager.lock.pip_compile import TARGET
from packager.lock.requirements import HEADER, is_ours, read_requirements
from packager.project import MACHINES, Project

__all__ = ["choose_resolver", "refuse_unknown", "resolve", "resolve_dev"]

_UV_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# The versions of glibc that uv knows by name.
_UV_GLIBC = (17, 28, *range(31, 41))
# Only wheels enter an image: a release without one for the target is no candidate.
_IMAGE = "requirements.txt"
_DEV = "requirements-dev.txt"
_BUILT = "built.in"
_SOURCES = {_IMAGE: "[project.dependencies]", _DEV: "the extra dev"}


def choose_resolver(project: Project) -> tuple[str, str]:
    """Choose who resolves, and say why.

    Returns
    -------
    tuple of str
        ``"pip-tools"`` or ``"uv"``, and the reason in a few words.

    Raises
    ------
    UsageError
        When the project insists on pip-tools where it cannot resolve for the target.
    """
    here = f"CPython {sys.version_info.major}.{sys.version_info.minor} on {platform.system()}"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    agree = (
        platform.system() == "Linux"
        and python == project.python
        and project.platforms[0] in _platforms_of(platform.machine())
    )
    if project.resolver == "pip-tools" and not agree:
        raise UsageError(
            f"pip-tools resolves for {here}, not for CPython {project.python} on "
            f"{project.platforms[0]}",
            where="pyproject.toml: tool.packager.resolver",
            hint='Leave the key out, or set it to "uv".',
        )
    if project.resolver:
        return project.resolver, "as [tool.packager] says"
    if agree:
        return "pip-tools", "host and target agree"
    return "uv", f"this is {here} {platform.machine()}, the target is another"


def _platforms_of(machine: str) -> list[str]:
    return [name for name, machines in MACHINES.items() if machine in machines]


def refuse_unknown(project: Project, upgrade: Sequence[str]) -> None:
    """Refuse to upgrade what is not pinned.

    Raises
    ------
    UsageError
        Names every distribution that no requirements file pins.
    """
    paths = [path for name in (_IMAGE, _DEV) if is_ours(path := project.root / name)]
    pins = (pin for path in paths for pin in read_requirements(path.read_bytes(), path.name))
    wanted = {canonicalize_name(name) for name in upgrade}
    if unknown := sorted(wanted - {pin.name for pin in pins}):
        raise UsageError(
            f"no pin of {', '.join(unknown)} is there to be moved",
            where="--upgrade",
            hint="It takes the name of a distribution in requirements.txt or -dev.txt.",
        )


def resolve(project: Project, work: Path, *, upgrade: Sequence[str] | None = None) -> bytes:
    """Resolve the image's requirements.

    Parameters
    ----------
    project : Project
        What to resolve for.
    work : Path
        A folder for temporary files, the resolver's own too.  Wheels in its folder `BUILT`
        are taken wherever their distributions are required, and no others.
    upgrade : sequence of str, optional
        Distributions whose pins may move; an empty sequence moves all, None none.

    Returns
    -------
    bytes
        ``requirements.txt``, to be written.

    Raises
    ------
    UsageError
        When the requirements cannot be met; the resolver's own words follow.
    HostError
        When an index cannot be reached.
    """
    _write_source(work, project.requirements)
    return _resolve(project, work, _IMAGE, upgrade)


def resolve_dev(
    project: Project, work: Path, image: bytes, *, upgrade: Sequence[str] | None = None
) -> bytes:
    """Resolve the requirements of the `dev` extra, with the image's pins as they are.

    Parameters
    ----------
    project, work, upgrade
        As for `resolve`.
    image : bytes
        What `resolve` returned.

    Returns
    -------
    bytes
        ``requirements-dev.txt``, to be written.

    Raises
    ------
    UsageError, HostError
        As for `resolve`.
    """
    (work / _IMAGE).write_bytes(image)
    _write_source(work, (f"-c {_IMAGE}", *project.requirements, *project.dev_dependencies))
    return _resolve(project, work, _DEV, upgrade)


def _write_source(work: Path, requirements: Sequence[str]) -> None:
    if built := _built(work):
        # By its very file: an index may have another of that name, and of a higher version.
        lines = [f"{name} @ {path.as_uri()}\n" for name, path in built.items()]
        (work / _BUILT).write_text("".join(lines), "utf-8")
        requirements = (f"-c {_BUILT}", *requirements)
    # The annotations of both resolvers name their input; this name says what it is.
    (work / "pyproject.toml.in").write_text("\n".join(requirements) + "\n", "utf-8")


def _built(work: Path) -> dict[str, Path]:
    return {path.name.partition("-")[0]: path for path in sorted((work / BUILT).glob("*.whl"))}


def _resolve(project: Project, work: Path, name: str, upgrade: Sequence[str] | None) -> bytes:
    if is_ours(project.root / name):
        pins = (project.root / name).read_bytes().replace(b"\r\n", b"\n")
        (work / name).write_bytes(pins)
    resolver, _ = choose_resolver(project)
    run = _pip_compile if resolver == "pip-tools" else _uv_compile
    run(project, work, name, upgrade)
    what = _SOURCES[name]
    header = HEADER.format(what=what, python=project.python, platform=project.platforms[0])
    links = f"--find-links {BUILT}\n" if _built(work) else ""
    return (header + links + _without_places((work / name).read_text("utf-8"))).encode()


def _without_places(text: str) -> str:
    """Drop a resolver's own header and any address that it wrote."""
    lines = [line for line in text.splitlines() if not line.startswith(("#", "--"))]
    body = "\n".join(lines).replace("-r pyproject.toml.in", "pyproject.toml")
    body = re.sub(r"(?m)^(\S+) @ file:\S*/[^-/\s]+-([^-/\s]+)-[^/\s]+\.whl", _as_version, body)
    return body.strip() + "\n" if body.strip() else ""


def _as_version(found: re.Match[str]) -> str:
    return f"{canonicalize_name(found[1])}=={unquote(found[2])}"


def _pip_compile(project: Project, work: Path, name: str, upgrade: Sequence[str] | None) -> None:
    flags = [
        f"--output-file={name}",
        "--generate-hashes",
        "--allow-unsafe",
        "--strip-extras",
        "--no-header",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-emit-trusted-host",
        "--no-emit-options",
        "--no-config",
        "--resolver=backtracking",
        "--quiet",
        *(["--pip-args=--only-binary=:all:"] if name == _IMAGE else []),
        *_upgrade_flags(upgrade),
        *(f"--extra-index-url={url}" for url in project.hints.extra_index_urls),
        *(f"--find-links={link}" for link in project.hints.find_links),
        "pyproject.toml.in",
    ]
    target = {TARGET: project.full_python}
    _run([sys.executable, "-m", "packager.lock.pip_compile", *flags], work, target, project)


def _uv_compile(project: Project, work: Path, name: str, upgrade: Sequence[str] | None) -> None:
    settings = pip.settings()
    links = [*settings.find_links, *project.hints.find_links]
    # Addresses go through the environment: other users can read a command line.
    environment = {
        "UV_DEFAULT_INDEX": settings.index_urls[0] if settings.index_urls else "",
        "UV_NO_INDEX": "" if settings.index_urls else "1",
        "UV_INDEX": " ".join([*settings.index_urls[1:], *project.hints.extra_index_urls]),
        "UV_FIND_LINKS": ",".join(links),
        "UV_SYSTEM_CERTS": "1",
        "SSL_CERT_FILE": _trusted(settings.cert, work),
        "UV_INSECURE_HOST": " ".join(sorted(settings.trusted_hosts)),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), settings.proxy),
    }
    glibc = max(one for one in _UV_GLIBC if one <= project.offered.glibc)
    flags = [
        f"--output-file={name}",
        "--generate-hashes",
        "--no-header",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-config",
        "--index-strategy=unsafe-best-match",  # as pip does: the best version of any index
        f"--python-version={project.full_python}",
        f"--python-platform={_UV_MACHINES[project.platforms[0]]}-manylinux_2_{glibc}",
        "--no-python-downloads",
        "--quiet",
        *(["--only-binary=:all:"] if name == _IMAGE else []),
        *_upgrade_flags(upgrade),
        "pyproject.toml.in",
    ]
    _run(
        [sys.executable, "-m", "uv", "pip", "compile", *flags],
        work,
        {key: value for key, value in environment.items() if value},
        project,
    )


def _trusted(cert: str, work: Path) -> str:
    """Put pip's certificates beside the system's: pip trusts both, and uv what it is given."""
    if not Path(cert).is_file():
        return ""
    both = work / "certificates.pem"
    parts = (Path(cert), net.system_certificates())
    both.write_bytes(b"\n".join(part.read_bytes() for part in parts))
    return str(both)


def _upgrade_flags(upgrade: Sequence[str] | None) -> list[str]:
    if upgrade is None:
        return []
    return [f"--upgrade-package={name}" for name in upgrade] or ["--upgrade"]


def _run(command: list[str], work: Path, extra: Mapping[str, str], project: Project) -> None:
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    # What pip would ask its user, for a login say, nobody would see.
    quiet = {"PIP_NO_INPUT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, **extra, **temporary, **quiet}
    run = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        # A resolver takes an index that it cannot reach for one that has nothing.
        for name in project.dependencies[:1]:
            Indexes(net.session, project.hints).files(canonicalize_name(Requirement(name).name))
        raise UsageError(
            "the requirements cannot be met by wheels for the image's Python and platform",
            where="pyproject.toml: project.dependencies",
            hint=_last_words(run.stderr or run.stdout),
        )


def _last_words(output: str) -> str:
    """Keep what a resolver said in the end, without any credentials."""
    text = without_credentials(output)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n  ".join(lines[-12:])
