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
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from packager import net
from packager.errors import ClaimError, UsageError
from packager.lock.indexes import Indexes
from packager.lock.pip_compile import TARGET
from packager.project import Project

__all__ = ["Pinned", "choose_resolver", "is_ours", "read_requirements", "resolve"]

_MACHINES = {"linux/amd64": {"x86_64", "AMD64"}, "linux/arm64": {"aarch64", "arm64"}}
_UV_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# glibc as the base has it, or the newest that uv knows by name.
_UV_GLIBC = {"debian:bookworm": "manylinux_2_36", "debian:trixie": "manylinux_2_40"}
# Only wheels enter an image: a release without one for the target is no candidate.
_IMAGE = "requirements.txt"
_HEADER = """\
# Pinned by `packager lock` from {what} for CPython {python} on {platform}.
# Not meant to be edited: change pyproject.toml and run `packager lock` again.
"""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One requirement of a pinned file, with every hash that its line allows."""

    name: str
    version: str
    hashes: frozenset[str]


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
    return [name for name, machines in _MACHINES.items() if machine in machines]


def resolve(
    project: Project, work: Path, *, upgrade: Sequence[str] | None = None
) -> dict[str, bytes]:
    """Resolve the image's requirements, and those of the `dev` extra where there is one.

    Parameters
    ----------
    project : Project
        What to resolve for.
    work : Path
        An empty folder for temporary files, the resolver's own too.
    upgrade : sequence of str, optional
        Distributions whose pins may move; an empty sequence moves all, None none.

    Returns
    -------
    dict of str to bytes
        ``requirements.txt`` and ``requirements-dev.txt``, to be written.

    Raises
    ------
    UsageError
        When the requirements cannot be met; the resolver's own words follow.
    HostError
        When an index cannot be reached.
    """
    resolver, _ = choose_resolver(project)
    run = _pip_compile if resolver == "pip-tools" else _uv_compile
    jobs = {_IMAGE: ("[project.dependencies]", project.dependencies, "")}
    if project.dev_dependencies:
        both = (*project.dependencies, *project.dev_dependencies)
        jobs["requirements-dev.txt"] = ("the extra dev", both, f"-c {_IMAGE}\n")
    for name, (what, requirements, constraint) in jobs.items():
        # The annotations of both resolvers name their input; this name says what it is.
        source = constraint + "\n".join(requirements) + "\n"
        (work / "pyproject.toml.in").write_text(source, "utf-8")
        if is_ours(project.root / name):
            pins = (project.root / name).read_bytes().replace(b"\r\n", b"\n")
            (work / name).write_bytes(pins)
        run(project, work, name, upgrade)
        header = _HEADER.format(what=what, python=project.python, platform=project.platforms[0])
        body = _without_places((work / name).read_text("utf-8"))
        (work / name).write_text(header + body, "utf-8", newline="\n")
    return {name: (work / name).read_bytes() for name in jobs}


def is_ours(path: Path) -> bool:
    """Tell whether a requirements file is one that `packager lock` wrote."""
    return path.exists() and path.read_bytes().startswith(_HEADER.partition("{")[0].encode())


def _without_places(text: str) -> str:
    """Drop a resolver's own header and any address that it wrote."""
    lines = [line for line in text.splitlines() if not line.startswith(("#", "--"))]
    body = "\n".join(lines).replace("-r pyproject.toml.in", "pyproject.toml")
    return body.strip() + "\n" if body.strip() else ""


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
    settings = net.pip_settings()
    links = [*settings.find_links, *project.hints.find_links]
    # Addresses go through the environment: other users can read a command line.
    environment = {
        "UV_DEFAULT_INDEX": settings.index_urls[0] if settings.index_urls else "",
        "UV_NO_INDEX": "" if settings.index_urls else "1",
        "UV_INDEX": " ".join([*settings.index_urls[1:], *project.hints.extra_index_urls]),
        "UV_FIND_LINKS": ",".join(links),
        "UV_SYSTEM_CERTS": "1",
        "SSL_CERT_FILE": settings.cert,
        "UV_INSECURE_HOST": " ".join(sorted(settings.trusted_hosts)),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), settings.proxy),
    }
    flags = [
        f"--output-file={name}",
        "--generate-hashes",
        "--no-header",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-config",
        "--index-strategy=unsafe-best-match",  # as pip does: the best version of any index
        f"--python-version={project.full_python}",
        f"--python-platform={_UV_MACHINES[project.platforms[0]]}-{_UV_GLIBC[project.base]}",
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


def _upgrade_flags(upgrade: Sequence[str] | None) -> list[str]:
    if upgrade is None:
        return []
    return [f"--upgrade-package={name}" for name in upgrade] or ["--upgrade"]


def _run(command: list[str], work: Path, extra: Mapping[str, str], project: Project) -> None:
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    environment = {**os.environ, **extra, **temporary, "PYTHONDONTWRITEBYTECODE": "1"}
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
    text = net.without_credentials(output)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n  ".join(lines[-12:])


def read_requirements(data: bytes, file: str) -> list[Pinned]:
    """Read a pinned and hashed requirements file, as `resolve` makes it.

    Parameters
    ----------
    data : bytes
        Its content.
    file : str
        Its name, for messages.

    Raises
    ------
    ClaimError
        When a line is not pinned by ``==`` and hashed.
    """
    joined = re.sub(r"\\\r?\n", " ", data.decode("utf-8", "replace"))
    lines = (line.partition(" #")[0].strip() for line in joined.splitlines())
    return [_pinned(line, file) for line in lines if line and not line.startswith("#")]


def _pinned(line: str, file: str) -> Pinned:
    text, *hashes = line.split("--hash=sha256:")
    try:
        requirement = Requirement(text.strip())
        (pin,) = requirement.specifier
        Version(pin.version)
    except (InvalidRequirement, ValueError, RecursionError):
        pin = None
    if pin is None or pin.operator != "==" or not hashes:
        raise ClaimError(
            f"{line[:60]!r} is not pinned and hashed", where=file, hint="Run packager lock again."
        )
    name = canonicalize_name(requirement.name)
    return Pinned(name, pin.version, frozenset(one.strip() for one in hashes))
