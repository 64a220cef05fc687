"""What the scripts of Debian packages would have made, made without running them.

Each function names the package whose script it stands for.  Where such a script copies a
template that the package ships, the same template is used here.  All scripts of the default
base were read for this; what a project's own packages do beyond alternatives and the
linker's cache (accounts of their own, caches that save time) is not done.
"""

from __future__ import annotations

import posixpath
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from packager.errors import ClaimError
from packager.layers import ldcache
from packager.layers.tar import MOST_TEXT, Entry, data_entry
from packager.lock import elf

__all__ = [
    "MACHINES",
    "accounts",
    "alternatives",
    "configuration",
    "linker_cache",
    "links",
    "record",
]

MACHINES = ("amd64", "arm64")
"""Debian's names of the machines that a base can be for."""

_OWNER = "packager's base"
_USERS = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
nonroot:x:65532:65532:nonroot:/tmp:/usr/sbin/nologin
"""
_GROUPS = """\
root:x:0:
nogroup:x:65534:
nonroot:x:65532:
"""
_TEMPLATES = {
    "etc/motd": "usr/share/base-files/motd",
    "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
    "etc/profile": "usr/share/base-files/profile",
    "etc/shells": "usr/share/debianutils/shells",
    "root/.bashrc": "usr/share/base-files/dot.bashrc",
    "root/.profile": "usr/share/base-files/dot.profile",
}
_FOLDERS = ("etc/opt", "media", "mnt", "opt", "srv", "usr/local/bin", "var/mail", "var/opt")
_CERTIFICATES = "usr/share/ca-certificates/"
_BUILTIN_DIRS = ("/lib", "/usr/lib")
_LIVE = set("$`*?{")
_MOST_LINKS = 40


def links(architecture: str) -> list[Entry]:
    """Link the top-level folders into ``/usr`` (usr-is-merged, base-files).

    Parameters
    ----------
    architecture : {"amd64", "arm64"}
        Debian's name of the image's machine; amd64 alone has a ``/lib64``.

    Returns
    -------
    list of Entry
    """
    names = ["bin", "lib", "sbin", *(["lib64"] if architecture == "amd64" else [])]
    return [_link(name, f"usr/{name}") for name in names]


def accounts() -> list[Entry]:
    """Name root, nobody, and the user that images run as (base-passwd).

    Returns
    -------
    list of Entry
    """
    return [_text("etc/passwd", _USERS), _text("etc/group", _GROUPS)]


def configuration(shipped: Sequence[Entry], python: str) -> list[Entry]:
    """Make what base-files, libc-bin, tzdata, ca-certificates and python3-minimal would make.

    Parameters
    ----------
    shipped : sequence of Entry
        What the packages hold: templates, certificates.
    python : str
        The version of the base's CPython, ``3.11``.

    Returns
    -------
    list of Entry

    Raises
    ------
    ClaimError
        When a template is missing.
    """
    tree = {entry.path: entry for entry in shipped}
    return [
        *(_copy(tree, source, path) for path, source in _TEMPLATES.items()),
        *(Entry(path, "dir", 0o755, owner=_OWNER) for path in _FOLDERS),
        Entry(f"usr/local/lib/python{python}/dist-packages", "dir", 0o755, owner=_OWNER),
        Entry("run/lock", "dir", 0o1777, owner=_OWNER),
        _link("var/run", "/run"),
        _link("var/lock", "/run/lock"),
        _link("var/spool/mail", "../mail"),
        _link("etc/dpkg/origins/default", "debian"),
        _link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
        _text("etc/timezone", "Etc/UTC\n"),
        _authorities(shipped),
    ]


@dataclass(frozen=True, slots=True)
class _Choice:
    """One way to fill an alternative: the links it sets, each (where, name, to what)."""

    priority: int
    links: tuple[tuple[str, str, str], ...]


def alternatives(scripts: Mapping[str, str], entries: Iterable[Entry]) -> list[Entry]:
    """Make the links of update-alternatives(1), the highest priority winning.

    Parameters
    ----------
    scripts : mapping of str to str
        Each package's script that runs after its installation, empty for none.
    entries : iterable of Entry
        What is in the image; a link to what is not (a manual page) is left out, as
        update-alternatives leaves it out.

    Returns
    -------
    list of Entry

    Raises
    ------
    ClaimError
        When a script does not name an alternative literally.
    """
    tree = {entry.path: entry for entry in entries}
    choices: defaultdict[str, list[_Choice]] = defaultdict(list)
    for package in sorted(scripts):
        for name, choice in _choices(package, scripts[package]):
            if _real(tree, choice.links[0][2]) in tree:
                choices[name].append(choice)
    made = []
    for group in choices.values():
        best = max(group, key=lambda choice: choice.priority)
        for where, name, target in best.links:
            if _real(tree, target) in tree:
                made.append(_link(_real_parent(tree, where), f"/etc/alternatives/{name}"))
                made.append(_link(f"etc/alternatives/{name}", target))
    return made


def linker_cache(entries: Iterable[Entry], architecture: str) -> Entry:
    """Make ``/etc/ld.so.cache`` (libc-bin), over the folders that ``/etc/ld.so.conf`` names.

    Parameters
    ----------
    entries : iterable of Entry
        All of the image.
    architecture : {"amd64", "arm64"}
        Debian's name of the image's machine.

    Returns
    -------
    Entry
    """
    tree = {entry.path: entry for entry in entries}
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(tree):
        folder, name = posixpath.split(path)
        by_folder[folder].append(name)
    # One folder under two names counts once, under the first: /lib is /usr/lib.
    folders: dict[str, str] = {}
    for folder in (*_configured(tree), *_BUILTIN_DIRS):
        folders.setdefault(_real(tree, folder), folder)
    libraries = [
        ldcache.Library(name, f"{folder}/{name}")
        for real, folder in folders.items()
        for name in sorted(_libraries(tree, real, by_folder[real]))
    ]
    return data_entry("etc/ld.so.cache", ldcache.write(libraries, architecture), owner=_OWNER)


def record(package: str, control: bytes, md5sums: bytes) -> Iterator[Entry]:
    """Record a package where scanners look for it in an image without dpkg's database.

    Parameters
    ----------
    package : str
        The package's name.
    control, md5sums : bytes
        The files of these names in the package.

    Yields
    ------
    Entry
    """
    folder = "var/lib/dpkg/status.d"
    yield data_entry(f"{folder}/{package}", control, owner=_OWNER)
    yield data_entry(f"{folder}/{package}.md5sums", md5sums, owner=_OWNER)


def _link(path: str, target: str) -> Entry:
    return Entry(path, "symlink", 0o777, target=target, owner=_OWNER)


def _text(path: str, text: str) -> Entry:
    return data_entry(path, text.encode(), owner=_OWNER)


def _copy(tree: Mapping[str, Entry], source: str, path: str) -> Entry:
    if source not in tree:
        raise ClaimError(f"no package of the base holds /{source}, which /{path} is made of")
    return replace(tree[source], path=path, owner=_OWNER)


def _authorities(shipped: Iterable[Entry]) -> Entry:
    # The bundle that update-ca-certificates writes.  It writes links by hash too: nothing
    # in the image needs them, since OpenSSL's own default points at the bundle as well.
    certificates = sorted(
        (entry for entry in shipped if entry.path.startswith(_CERTIFICATES)),
        key=lambda entry: entry.path,
    )
    bundle = b"".join(_read(one).rstrip() + b"\n" for one in certificates if one.kind == "file")
    return data_entry("etc/ssl/certs/ca-certificates.crt", bundle, owner=_OWNER)


def _choices(package: str, script: str) -> Iterator[tuple[str, _Choice]]:
    for line in script.replace("\\\n", " ").splitlines():
        if "update-alternatives" not in line or "--install" not in line:
            continue
        try:
            words = _words(line)
            if "--install" in words:
                yield _choice(words[words.index("--install") + 1 :])
        except ValueError as error:
            raise ClaimError(
                f"the Debian package {package} registers an alternative in a way that is not "
                f"understood without running its script: {' '.join(line.split())[:80]}",
                where="pyproject.toml, [tool.packager] os-packages",
                hint="Do without this package, or name another that provides the same.",
            ) from error


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _choice(words: Sequence[str]) -> tuple[str, _Choice]:
    where, name, target, priority = words[:4]
    found = [(where, name, target)]
    rest = list(words[4:])
    while rest[:1] == ["--slave"]:
        _, where, also, target, *rest = rest
        found.append((where, also, target))
    if any(_LIVE & set(word) for link in found for word in link):
        raise ValueError("not literal")
    return name, _Choice(int(priority), tuple(found))


def _configured(tree: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the folders that ld.so.conf names, and the files that it includes, in order."""
    seen: set[str] = set()
    waiting = _lines(tree, "etc/ld.so.conf", seen)[::-1]
    while waiting:
        words = waiting.pop().partition("#")[0].split()
        if words[:1] == ["include"] and len(words) > 1:
            pattern = words[1].lstrip("/")
            included = [path for path in sorted(tree) if _matches(path, pattern)]
            waiting += [line for path in included for line in _lines(tree, path, seen)][::-1]
        elif words and words[0].startswith("/"):
            yield words[0].rstrip("/")


def _matches(path: str, pattern: str) -> bool:
    """Match as glob(3) does, on every host: a star stands for no slash."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _lines(tree: Mapping[str, Entry], path: str, seen: set[str]) -> list[str]:
    # Each file once: one may include itself.
    if path in seen or path not in tree or tree[path].kind != "file":
        return []
    seen.add(path)
    return _read(tree[path]).decode("utf-8", "replace").splitlines()


def _libraries(tree: Mapping[str, Entry], folder: str, names: Sequence[str]) -> set[str]:
    """Name a folder's libraries as ldconfig does: by soname, and links for compilers too."""
    found = set()
    for name in names:
        if not (name.startswith(("lib", "ld-")) and ".so" in name):
            continue
        path = f"{folder}/{name}"
        facts = _facts(tree, path)
        if facts is None:
            continue
        soname = facts.soname or name
        compilers = name.endswith(".so") and soname.startswith(name)
        if tree[path].kind == "symlink" and compilers:
            found.add(name)
        elif soname in names:
            found.add(soname)
    return found


def _facts(tree: Mapping[str, Entry], path: str) -> elf.ElfFacts | None:
    entry = tree.get(_real(tree, path))
    if entry is not None and entry.kind == "hardlink":
        entry = tree.get(entry.target)
    if entry is None or entry.open is None:
        return None
    with entry.open() as stream:
        return elf.needed(stream)


def _real(tree: Mapping[str, Entry], path: str) -> str:
    """Follow every symbolic link of a path, as the kernel would inside the image."""
    waiting, done, budget = path.split("/")[::-1], list[str](), _MOST_LINKS
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            done = done[:-1]
            continue
        done.append(part)
        entry = tree.get("/".join(done))
        if entry is not None and entry.kind == "symlink" and budget:
            budget -= 1
            done = [] if entry.target.startswith("/") else done[:-1]
            waiting += entry.target.split("/")[::-1]
    return "/".join(done)


def _real_parent(tree: Mapping[str, Entry], path: str) -> str:
    folder, name = posixpath.split(path)
    return f"{_real(tree, folder)}/{name}"


def _read(entry: Entry) -> bytes:
    assert entry.open is not None
    if entry.size > MOST_TEXT:
        raise ClaimError(f"{entry.owner} holds /{entry.path} of {entry.size} bytes")
    with entry.open() as stream:
        return stream.read()
