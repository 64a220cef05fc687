"""An image opened for reading, wherever it is: an archive, an OCI layout, an engine.

Read are the OCI image layout 1.0, the docker archive (docker image specification 1.2), and
archives that are both.  Nothing in them is trusted: what a digest names is checked against
it, a name never leads out of its folder, what readers could understand differently is refused,
and what is no image is an error that names it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import re
import secrets
import tarfile
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

from packager.errors import ClaimError, HostError, UsageError
from packager.files import Out, canonical_json
from packager.layers import tar
from packager.layers.tar import Slice
from packager.outputs import engine as engines

__all__ = ["Kind", "Opened", "OpenedLayer", "damaged", "opened", "opened_as", "real_diff_id"]

Kind = Literal["archive", "layout", "engine"]
"""Where an image can be."""

_CHUNK = 1 << 20
_MOST_JSON = 16 << 20
_MOST_MEMBERS = 10_000
_MOST_INDEXES = 4
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_REFERENCE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*")
_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_GZIP = b"\x1f\x8b"
_OTHER_COMPRESSION = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}


@dataclass(frozen=True, slots=True)
class OpenedLayer:
    """A layer of an opened image.

    Attributes
    ----------
    diff_id : str
        As the config says it, ``sha256:…``; `damaged` tells whether it is true.
    what : str
        What the image's history says of it, ``wheels: numpy 2.4.1``; empty where nothing.
    size : int
        Bytes of the file that holds it, compressed or not.
    open : callable
        Opens the uncompressed tar, afresh at each call.
    sound : bool
        False where the manifest gives another digest or size than that file has.
    """

    diff_id: str
    what: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Opened:
    """An image whose config and manifest have been read and whose layers can be.

    Attributes
    ----------
    name : str
        As the user called it.
    manifest : bytes or None
        None where there is none: in a docker archive, and so in most engines.
    annotations : mapping
        Of the layout's index, about this image.
    layers : tuple of OpenedLayer
        Bottom first.
    """

    name: str
    kind: Kind
    config: bytes
    manifest: bytes | None
    annotations: Mapping[str, str]
    layers: tuple[OpenedLayer, ...]

    @property
    def id(self) -> str:
        """The image ID, ``sha256:…``: the digest of the config."""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    @property
    def diff_ids(self) -> list[str]:
        """The uncompressed layers' digests, bottom first, as the config says them."""
        return [layer.diff_id for layer in self.layers]

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the config."""
        return dict((json.loads(self.config).get("config") or {}).get("Labels") or {})

    @property
    def platform(self) -> str:
        """What it runs on: ``linux/amd64``."""
        config = json.loads(self.config)
        return "/".join(config[key] for key in ("os", "architecture", "variant") if key in config)


def opened(name: str, scratch: Path) -> Opened:
    """Open an image.

    Parameters
    ----------
    name : str
        A folder is an OCI layout; a file is an archive, gzipped or not; anything else is a
        tag or an ID in the engine, which is asked to export it.
    scratch : Path
        A folder for what has to be unpacked or exported; needed as long as layers are read.

    Raises
    ------
    UsageError
        When there is no such image, or it is not whole; names it.  Layers that are there are
        not judged: see `damaged`.
    HostError
        When no engine answers, or a file cannot be read or written.
    """
    kind: Kind = "engine"
    if name and Path(name).is_dir():
        kind = "layout"
    elif name and Path(name).is_file():
        kind = "archive"
    return opened_as(kind, name, scratch)


def opened_as(kind: Kind, name: str, scratch: Path, platform: str = "") -> Opened:
    """Open an image of which it is known where it is.

    Parameters
    ----------
    kind : {"archive", "layout", "engine"}
        What the name is of.
    name, scratch
        As for `opened`.
    platform : str, optional
        Which to take of the images that an index names for several platforms.

    Raises
    ------
    PackagerError
        As `opened`.
    """
    try:
        if kind == "layout":
            find: _Find = _Folder(Path(name)).find
        elif kind == "archive":
            find = _members(_unzipped(Path(name), scratch), name)
        else:
            find = _members(_exported(name, scratch), name)
        return _read(name, kind, find, platform)
    except OSError as error:
        raise HostError(f"cannot be read: {error.strerror or error}", where=name) from error


def damaged(image: Opened) -> list[OpenedLayer]:
    """Find the layers that are not what the image's documents say; each is read whole.

    Parameters
    ----------
    image : Opened
        Its config says the diff IDs; its manifest, if any, the files' digests and sizes.

    Returns
    -------
    list of OpenedLayer
        Also those that cannot be decompressed; empty for a sound image.

    Raises
    ------
    UsageError
        When a layer is compressed in a way that packager does not read.
    """
    return [
        layer for layer in image.layers if not layer.sound or layer.diff_id != real_diff_id(layer)
    ]


def real_diff_id(layer: OpenedLayer) -> str:
    """Say which diff ID a layer's bytes give; empty where they cannot be decompressed."""
    try:
        with layer.open() as stream:
            digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]
    except _DamagedError:
        return ""
    return f"sha256:{digest.hexdigest()}"


def _fail(name: str, why: str, hint: str = "") -> NoReturn:
    raise UsageError(f"is no image that can be read: {why}", where=name, hint=hint)


# --- Where bytes are: both a folder and a tar are names to places ----------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A part of a file."""

    file: Path
    start: int
    size: int

    def open(self) -> io.BufferedReader:
        return Slice.open(self.file, self.start, self.size)


_Find = Callable[[str], _Place | None]


class _Folder:
    """A layout that lies open on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def find(self, name: str) -> _Place | None:
        """Find a file below the folder; a link that leads out of it finds nothing."""
        try:
            path = (self._root / name).resolve()
        except RuntimeError:  # links in a circle
            return None
        if not path.is_relative_to(self._root) or not path.is_file():
            return None
        return _Place(path, 0, path.stat().st_size)


def _unzipped(path: Path, scratch: Path) -> Path:
    """Give a tar that can be read anywhere in it: a gzipped one is unpacked."""
    with path.open("rb") as file:
        if _compression(file.read(6), str(path)) != "gzip":
            return path
    with _Unzipped(path.open("rb"), str(path)) as stream:
        return _saved(iter(partial(stream.read, _CHUNK), b""), scratch)


def _exported(name: str, scratch: Path) -> Path:
    engine = engines.connect()
    # What could never be a reference is not asked for: a path would be part of an address.
    asked = _REFERENCE.fullmatch(name) and ".." not in name
    found = engine.find(name) if asked else None
    if found is None:
        raise UsageError(
            f"is no file, no folder and no image of {engine.name}",
            where=name if name.isprintable() and name else ascii(name),
        )
    return _saved(engine.save(found["Id"]), scratch)


def _saved(chunks: Iterable[bytes], scratch: Path) -> Path:
    path = scratch / f"{secrets.token_hex(8)}.tar"
    with Out(path, "xb", str(path)) as out:
        for chunk in chunks:
            out.write(chunk)
        out.settle()
    return path


def _members(path: Path, name: str) -> _Find:
    """List a tar, of which only regular files, and links to them, count."""
    found: dict[str, tarfile.TarInfo] = {}
    try:
        listed = tar.members(path, "it")
    except ClaimError as error:
        _fail(name, error.what)
    if len(listed) > _MOST_MEMBERS:
        _fail(name, f"it holds more than {_MOST_MEMBERS} files")
    for member in listed:
        # "./index.json" is how tar writes the files of the current folder.
        where = posixpath.normpath(member.name)
        if where in found and not (member.isdir() and found[where].isdir()):
            _fail(name, f"it holds {where!r} twice")
        found[where] = member
    _check_places(listed, found, name)

    def find(wanted: str) -> _Place | None:
        member = found.get(wanted)
        if member is not None and member.issym():
            # An engine writes a layer that occurs twice as a link beside the first.
            if member.linkname != posixpath.normpath(member.linkname):
                return None  # the ".." of "x/../y" leads elsewhere where x is a link
            target = posixpath.join(posixpath.dirname(wanted), member.linkname)
            member = found.get(posixpath.normpath(target))
        if member is None or not member.isreg() or member.issparse():
            return None
        return _Place(path, member.offset_data, member.size)

    return find


def _check_places(
    listed: Iterable[tarfile.TarInfo], found: Mapping[str, tarfile.TarInfo], name: str
) -> None:
    """Refuse what unpacking would put elsewhere, over another file: below a link, for example."""
    for member in listed:
        if member.name.startswith("/") or ".." in member.name.split("/"):
            _fail(name, f"it holds {member.name!r}, which leads out of it")
        if member.islnk():
            _fail(name, f"it holds {member.name!r}, a hard link")
    paths = sorted(found)
    for path, member in found.items():
        if member.isdir():
            continue
        after = bisect_left(paths, f"{path}/")
        if path == "." or (after < len(paths) and paths[after].startswith(f"{path}/")):
            _fail(name, f"it holds files below {path!r}, which is no folder")


# --- Reading what is there -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What either form of an image comes down to; of each layer, whether it is as named."""

    config: bytes
    layers: list[tuple[_Place, bool]]
    manifest: bytes | None = None
    annotations: Mapping[str, str] | None = None


def _read(name: str, kind: Kind, find: _Find, platform: str) -> Opened:
    reader = _Reader(name, find, platform)
    as_layout = reader.layout() if find("index.json") else None
    as_docker = reader.docker() if find("manifest.json") else None
    if as_layout and as_docker and not _agree(as_layout, as_docker):
        _fail(name, "its index.json and its manifest.json name different images")
    found = as_layout or as_docker
    if found is None:
        hint = f"If an image of the engine is meant: {name}:latest." if kind == "layout" else ""
        _fail(name, "it has no index.json and no manifest.json", hint)
    return Opened(
        name, kind, found.config, found.manifest, found.annotations or {}, reader.layers(found)
    )


def _agree(one: _Found, other: _Found) -> bool:
    """Tell whether an engine that reads one form gets what a reader of the other gets."""
    places = [[place for place, _ in found.layers] for found in (one, other)]
    return one.config == other.config and places[0] == places[1]


class _Reader:
    """Reads an image's documents, and believes none of them."""

    def __init__(self, name: str, find: _Find, platform: str) -> None:
        self._name, self._find, self._platform = name, find, platform

    def layout(self) -> _Found:
        """Read an OCI image layout."""
        entry = self._only(self._manifests(self._json("index.json"), _MOST_INDEXES))
        manifest = self._small(self._blob(entry))
        read = self._parsed(manifest, "the manifest")
        return _Found(
            config=self._small(self._blob(read.get("config"))),
            layers=[self._named(one) for one in self._list(read.get("layers"))],
            manifest=manifest,
            annotations=self._texts(entry.get("annotations")),
        )

    def _manifests(self, index: Any, depth: int) -> Iterator[dict[str, Any]]:
        """List the images that an index names and that are there, through further indexes."""
        if depth == 0:
            _fail(self._name, "its indexes are nested too deep")
        for entry in self._list(index.get("manifests")):
            if not isinstance(entry, dict):
                _fail(self._name, "an entry of its index is no object")
            # Beside an image, builders put statements about it, for no platform.
            platform = entry.get("platform")
            if isinstance(platform, dict) and platform.get("os") == "unknown":
                continue
            if self._find(self._path(entry)) is None and depth < _MOST_INDEXES:
                continue  # an engine's export names the platforms, too, that it does not hold
            if entry.get("mediaType") in _INDEXES:
                nested = self._parsed(self._small(self._blob(entry)), "an index")
                yield from self._manifests(nested, depth - 1)
            else:
                yield entry

    def _only(self, entries: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """Take the one image; several names of it are still one."""
        found: dict[str, dict[str, Any]] = {}
        for entry in entries:
            found.setdefault(self._path(entry), entry)
        if len(found) > 1:
            found = {path: one for path, one in found.items() if self._fits(one)}
        if len(found) != 1:
            _fail(self._name, f"it holds {len(found)} images", "Export one image, by its name.")
        return next(iter(found.values()))

    def _fits(self, entry: dict[str, Any]) -> bool:
        match entry.get("platform"):
            case {"os": system, "architecture": machine} if self._platform:
                return self._platform == f"{system}/{machine}"
        return not self._platform

    def docker(self) -> _Found:
        """Read a docker archive."""
        images = self._json("manifest.json", list)
        if len(images) != 1 or not isinstance(images[0], dict):
            _fail(self._name, f"it holds {len(images)} images", "Export one image, by its name.")
        path = str(images[0].get("Config"))
        config = self._small(self._there(path))
        named = posixpath.basename(path).removesuffix(".json")
        if _DIGEST.fullmatch(f"sha256:{named}") and hashlib.sha256(config).hexdigest() != named:
            _fail(self._name, f"{path} does not have the digest that names it")
        names = self._list(images[0].get("Layers"))
        return _Found(config, [(self._there(str(one)), True) for one in names])

    def layers(self, found: _Found) -> tuple[OpenedLayer, ...]:
        """Match layers with what the config says of them."""
        config = self._parsed(found.config, "the config", same=str)
        self._check(config)
        diff_ids = config["rootfs"]["diff_ids"]
        if len(diff_ids) != len(found.layers):
            _fail(
                self._name,
                f"its config names {len(diff_ids)} layers, and it has {len(found.layers)}",
            )
        said = [
            str(one.get("created_by") or "").removeprefix("packager: ")
            for one in self._list(config.get("history") or [])
            if isinstance(one, dict) and not one.get("empty_layer")
        ]
        if len(said) != len(diff_ids):
            said = [""] * len(diff_ids)
        return tuple(
            OpenedLayer(
                diff_id,
                what,
                place.size,
                partial(_tar, place, f"{self._name}: layer {diff_id}"),
                sound,
            )
            for diff_id, what, (place, sound) in zip(diff_ids, said, found.layers, strict=True)
        )

    def _check(self, config: dict[str, Any]) -> None:
        for key in ("os", "architecture", "variant"):
            if not isinstance(config.get(key, ""), str):
                _fail(self._name, f"its config's {key} is no text")
        rootfs = config.get("rootfs")
        diff_ids = self._list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None)
        if not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in diff_ids):
            _fail(self._name, "a diff ID of its config is no sha256 digest")
        inner = config.get("config") or {}
        if not isinstance(inner, dict):
            _fail(self._name, "its config's config is no object")
        self._texts(inner.get("Labels"))

    def _path(self, descriptor: Any) -> str:
        digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
        if not isinstance(digest, str) or not (found := _DIGEST.fullmatch(digest)):
            _fail(self._name, f"{digest!r} is no sha256 digest")
        return f"blobs/sha256/{found[1]}"

    def _blob(self, descriptor: Any) -> _Place:
        """Find the document that a descriptor names, and check that it is that."""
        place, sound = self._named(descriptor)
        if not sound:
            path = self._path(descriptor)
            _fail(self._name, f"{path} does not have the digest and size that name it")
        return place

    def _named(self, descriptor: Any) -> tuple[_Place, bool]:
        """Find what a descriptor names, and tell whether it is that."""
        path = self._path(descriptor)
        place = self._there(path)
        with place.open() as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return place, digest == posixpath.basename(path) and descriptor.get("size") == place.size

    def _there(self, path: str) -> _Place:
        place = self._find(path)
        if place is None:
            _fail(self._name, f"it has no file {path}")
        return place

    def _small(self, place: _Place) -> bytes:
        if place.size > _MOST_JSON:
            _fail(self._name, f"a document of {place.size} bytes is more than anybody reads")
        with place.open() as stream:
            return stream.read()

    def _json(self, path: str, kind: type = dict) -> Any:
        return self._parsed(self._small(self._there(path)), path, kind)

    def _parsed(
        self,
        data: bytes,
        what: str,
        kind: type = dict,
        *,
        same: Callable[[str], str] = str.casefold,
    ) -> Any:
        """Read a document; no two keys of an object may be the `same`.

        Go's readers ignore the case of keys and take the last, so that an engine would read
        another image.  Labels of a config may well differ in nothing but their case.
        """
        try:
            value = json.loads(data.decode(), object_pairs_hook=partial(_unambiguous, same))
            canonical_json(value)  # which refuses NaN and halves of characters, too
        except (ValueError, RecursionError) as error:
            _fail(self._name, f"{what} is no JSON: {error}")
        if not isinstance(value, kind):
            _fail(self._name, f"{what} is not what it should be")
        return value

    def _list(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            _fail(self._name, "a list is missing in its documents")
        return value

    def _texts(self, value: Any) -> dict[str, str]:
        texts = value or {}
        if not isinstance(texts, dict) or not all(isinstance(one, str) for one in texts.values()):
            _fail(self._name, "its labels or annotations are no texts")
        return texts


def _unambiguous(same: Callable[[str], str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({same(key) for key, _ in pairs}) != len(pairs):
        raise ValueError("an object has a key twice")
    return dict(pairs)


# --- Reading layers --------------------------------------------------------------------------


def _compression(head: bytes, where: str) -> Literal["gzip", "none"]:
    for magic, name in _OTHER_COMPRESSION.items():
        if head.startswith(magic):
            raise UsageError(f"is compressed with {name}; packager reads gzip", where=where)
    return "gzip" if head.startswith(_GZIP) else "none"


def _tar(place: _Place, where: str) -> io.BufferedReader:
    """Open a layer's tar, by what its bytes say rather than by what a document says."""
    with place.open() as head:
        compression = _compression(head.read(6), where)
    raw = place.open()
    if compression == "none":
        return raw
    return io.BufferedReader(_Unzipped(raw, where), _CHUNK)


class _DamagedError(UsageError):
    """What was compressed in a way that packager reads, and is broken."""


class _Unzipped(io.RawIOBase):
    """What a gzip file holds; damage is an error that names it."""

    def __init__(self, raw: io.BufferedReader, where: str) -> None:
        self._raw, self._stream, self._where = raw, gzip.GzipFile(fileobj=raw), where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._stream.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _DamagedError(f"cannot be decompressed: {error}", where=self._where) from None

    def close(self) -> None:
        self._stream.close()
        self._raw.close()  # GzipFile closes only what it opened
        super().close()
