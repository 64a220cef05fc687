"""Why two images differ: the config key by key, then layer by layer, path by path.

Layers of one diff ID are equal and are not read; of the others each is read once, and what
stays in memory is the list of their members.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from packager import inside
from packager.errors import UsageError
from packager.files import canonical_json
from packager.inside import Inside
from packager.outputs.members import Member, Owners, content, listed
from packager.outputs.opened import Opened, OpenedLayer, damaged, opened

__all__ = [
    "Difference",
    "KeyDifference",
    "LayerDifference",
    "LayerSide",
    "PathDifference",
    "Side",
    "as_json",
    "between",
    "compare",
]

Kind = Literal[
    "presence",
    "type",
    "content",
    "link",
    "mode",
    "owner",
    "time",
    "attributes",
    "order",
    "encoding",
]

_BY_TYPE = {"content", "link"}
_FACTS = "srv/packager/image.json"
_MOST_DEPTH = 32
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of these an image has one, so its two versions are compared even where the name changed.
_ROLES = {"base", "bytecode", "os-packages", "runtime", "model", "code"}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two images.

    Attributes
    ----------
    manifest : str or None
        Its digest; None where the image comes without one.
    """

    name: str
    kind: str
    id: str
    manifest: str | None
    platform: str


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A key of config or manifest.

    Attributes
    ----------
    key : str
        Its path as jq writes it; ``.`` where only the spelling of the whole differs.
    a, b : str or None
        The values as JSON; None where the key is missing.
    """

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class PathDifference:
    """One thing in which a path differs.

    Attributes
    ----------
    kind : str
        ``encoding`` means that all members agree, and the tar's bytes do not.
    a, b : str or None
        What it is on either side; None where the path is missing.
    owner : str
        The wheel or package that it came with; empty where no record tells.
    """

    path: str
    kind: Kind
    a: str | None
    b: str | None
    owner: str


@dataclass(frozen=True, slots=True)
class LayerSide:
    """Where a layer stands in its image (from 0, bottom first), and what it is."""

    position: int
    diff_id: str
    what: str


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """A layer that only one image has (the other is None), that moved, or that changed."""

    a: LayerSide | None
    b: LayerSide | None
    paths: tuple[PathDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """All in which two images differ.

    Attributes
    ----------
    config : tuple of KeyDifference
        Without the diff IDs, which the layers tell.
    manifest : tuple of KeyDifference
        Compared where both have one and the configs are the same.
    """

    a: Side
    b: Side
    config: tuple[KeyDifference, ...]
    layers: tuple[LayerDifference, ...]
    manifest: tuple[KeyDifference, ...]
    inside: Inside | None

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.config or self.layers or self.manifest)


def between(a: str, b: str, scratch: Path) -> Difference:
    """Open two images and compare them.

    Parameters
    ----------
    a, b : str
        As `opened` takes them.
    scratch : Path
        A folder for what has to be unpacked or exported.

    Raises
    ------
    UsageError
        When one of them is no image, or is damaged.
    HostError
        When an engine is needed and none answers.
    """
    images = [opened(name, scratch) for name in (a, b)]
    for image in images:
        # Layers of one diff ID are not read again: a config could claim any.
        if rotten := damaged(image):
            what = rotten[0].what or rotten[0].diff_id
            says = "its diff ID" if rotten[0].sound else "the manifest"
            raise UsageError(f"is damaged: layer {what} is not what {says} says", where=image.name)
    return compare(*images)


def compare(a: Opened, b: Opened) -> Difference:
    """Compare two images.

    Parameters
    ----------
    a, b : Opened
        A layer without a diff ID is read as it is; any other must have the one that it says.

    Raises
    ------
    UsageError
        When a layer that has to be read is damaged, or is no tar.
    """
    layers = _Layers(a, b)
    differences = tuple(layers.differences())
    config = _documents(a.config, b.config)
    manifest: tuple[KeyDifference, ...] = ()
    if a.config == b.config and a.manifest and b.manifest:
        manifest = _documents(a.manifest, b.manifest)
    return Difference(_side(a), _side(b), config, differences, manifest, layers.inside)


def as_json(difference: Difference) -> dict[str, Any]:
    """Give a difference in the form that ``--json`` prints; keys' values are JSON again."""
    told = asdict(difference)
    for part in ("config", "manifest"):
        told[part] = [
            {
                "key": one.key,
                **{side: json.loads(text) for side, text in (("a", one.a), ("b", one.b)) if text},
            }
            for one in getattr(difference, part)
        ]
    return {"same": difference.same, **told}


def _side(image: Opened) -> Side:
    digest = f"sha256:{hashlib.sha256(image.manifest).hexdigest()}" if image.manifest else None
    return Side(image.name, image.kind, image.id, digest, image.platform)


# --- Documents -------------------------------------------------------------------------------


def _documents(a: bytes, b: bytes) -> tuple[KeyDifference, ...]:
    if a == b:
        return ()
    one, other = json.loads(a), json.loads(b)
    if _text(one) == _text(other):
        written = [_text(f"written in {len(x)} bytes, {_sha256(x)}") for x in (a, b)]
        return (KeyDifference(".", *written),)
    return tuple(_keys("", one, other, _MOST_DEPTH))


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _text(value: Any) -> str:
    return canonical_json(value).decode()


def _keys(path: str, a: Any, b: Any, depth: int) -> Iterator[KeyDifference]:
    if path == ".rootfs.diff_ids":
        return  # the layers tell it better
    if depth and isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            below = f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{_text(key)}]"
            if key in a and key in b:
                yield from _keys(below, a[key], b[key], depth - 1)
            else:
                yield KeyDifference(
                    below, *(_text(one[key]) if key in one else None for one in (a, b))
                )
    elif depth and isinstance(a, list) and isinstance(b, list):
        yield from _items(path, a, b, depth)
    elif _text(a) != _text(b):
        yield KeyDifference(path or ".", _text(a), _text(b))


def _items(path: str, a: list[Any], b: list[Any], depth: int) -> Iterator[KeyDifference]:
    """Compare lists so that one item more is one difference."""
    matcher = difflib.SequenceMatcher(None, [_text(one) for one in a], [_text(one) for one in b])
    for what, start, end, start_b, end_b in matcher.get_opcodes():
        if what == "equal":
            continue
        for i, j in zip_longest(range(start, end), range(start_b, end_b)):
            if i is None:
                yield KeyDifference(f"{path}[{j}]", None, _text(b[j]))
            elif j is None:
                yield KeyDifference(f"{path}[{i}]", _text(a[i]), None)
            else:
                yield from _keys(f"{path}[{i}]", a[i], b[j], depth - 1)


# --- Layers ----------------------------------------------------------------------------------

_Numbered = tuple[int, OpenedLayer]
_Pair = tuple[_Numbered | None, _Numbered | None]
_Key = tuple[str, int]


def _follows(path: str) -> bool:
    """Tell whether a file differs whenever any other does, so that it explains nothing."""
    return path == _FACTS or path.endswith((".pyc", ".dist-info/RECORD"))


def _aligned(a: Sequence[OpenedLayer], b: Sequence[OpenedLayer]) -> list[_Pair]:
    """Pair the layers that are one thing; equal ones that stayed where they were are left out."""
    keys: list[Callable[[OpenedLayer], object]] = [
        lambda layer: layer.diff_id or layer,
        lambda layer: layer.what,
        lambda layer: _without_version(layer.what),
        lambda layer: _role(layer.what),
    ]
    pairs = [
        (one, other)
        for one, other in _paired(list(enumerate(a)), list(enumerate(b)), keys)
        if not (one and other and one[1].diff_id == other[1].diff_id)
    ]
    alone = {other[1].diff_id: other for one, other in pairs if one is None and other}
    moved = {
        one[0]: alone.pop(one[1].diff_id)
        for one, other in pairs
        if one and other is None and one[1].diff_id in alone
    }
    met = {other[0] for other in moved.values()}
    return [
        (one, moved.get(one[0], other) if one else other)
        for one, other in pairs
        if one or (other and other[0] not in met)
    ]


def _paired(
    a: list[_Numbered], b: list[_Numbered], keys: Sequence[Callable[[OpenedLayer], object]]
) -> Iterator[_Pair]:
    """Pair by the strictest key first, then inside each run that it cannot pair by the next."""
    if not keys or not a or not b:
        yield from ((one, None) for one in a)
        yield from ((None, other) for other in b)
        return
    in_a, in_b = ([keys[0](layer) for _, layer in numbered] for numbered in (a, b))
    matcher = difflib.SequenceMatcher(None, in_a, in_b)
    for what, start, end, start_b, end_b in matcher.get_opcodes():
        if what == "equal":
            yield from zip(a[start:end], b[start_b:end_b], strict=True)
        else:
            yield from _paired(a[start:end], b[start_b:end_b], keys[1:])


def _without_version(what: str) -> str:
    return " ".join(word for word in what.split() if not word[0].isdigit())


def _role(what: str) -> str:
    """Give what an image has one of, even if it was renamed; another wheel is another thing."""
    role = what.partition(": ")[0]
    return what if role == "wheels" else role if role in _ROLES else ""


class _Layers:
    """Compares the layers of two images, and remembers what the records in them tell."""

    def __init__(self, a: Opened, b: Opened) -> None:
        self._images, self._owners = (a, b), (Owners(), Owners())
        self.inside: Inside | None = None

    def differences(self) -> Iterator[LayerDifference]:
        for a, b in _aligned(self._images[0].layers, self._images[1].layers):
            sides = [one and LayerSide(one[0], one[1].diff_id, one[1].what) for one in (a, b)]
            read = a and b and a[1].diff_id != b[1].diff_id
            paths = self._paths(a[1], b[1]) if a and b and read else ()
            yield LayerDifference(sides[0], sides[1], tuple(paths))

    def _paths(self, a: OpenedLayer, b: OpenedLayer) -> list[PathDifference]:
        lists = [
            listed(layer, owners, image.name)
            for layer, owners, image in zip((a, b), self._owners, self._images, strict=True)
        ]
        ours, theirs = map(_by_key, lists)
        found: list[PathDifference] = []
        for key in sorted({*ours, *theirs}, key=lambda key: (key[0].split("/"), key[1])):
            one, other = ours.get(key), theirs.get(key)
            found += self._facts(one, other)
            if one and other and _both_files_but_different(one, other) and self._tells(one.path):
                self.inside = _inside((a, one), (b, other))
        found += self._order(ours, theirs)
        return found or self._encoding(a, b, lists[0])

    def _tells(self, path: str) -> bool:
        """Take the first file that differs, and rather one that is no mere consequence."""
        return self.inside is None or (_follows(self.inside.path) and not _follows(path))

    def _facts(self, a: Member | None, b: Member | None) -> Iterator[PathDifference]:
        owner = self._owner(a, b)
        if a is None or b is None:
            types = [one.type if one else None for one in (a, b)]
            path = next(one.path for one in (a, b) if one)
            yield PathDifference(path, "presence", types[0], types[1], owner)
            return
        facts, others = _facts(a), _facts(b)
        for kind, told in facts.items():
            if a.type != b.type and kind in _BY_TYPE:
                continue  # that the types differ says it
            if others.get(kind, told) != told:
                yield PathDifference(a.path, kind, told, others[kind], owner)

    def _order(self, ours: dict[_Key, Member], theirs: dict[_Key, Member]) -> list[PathDifference]:
        """Name the first path that stands elsewhere, among those that both have."""
        orders = [
            [key for key in one if key in other] for one, other in ((ours, theirs), (theirs, ours))
        ]
        for place, (one, other) in enumerate(zip(*orders, strict=True)):
            if one != other:
                told = [f"{index + 1}. in order" for index in (place, orders[1].index(one))]
                owner = self._owner(ours[one], theirs[one])
                return [PathDifference(one[0], "order", told[0], told[1], owner)]
        return []

    def _encoding(
        self, a: OpenedLayer, b: OpenedLayer, members: list[Member]
    ) -> list[PathDifference]:
        """Say where two tars differ that hold the same: how a header is spelt, or the filling."""
        at = inside.first_byte(content(a), content(b))
        if at is None:
            return []
        after = bisect_right(members, at, key=lambda member: member.at)
        member = members[after - 1] if after else None
        told = f"byte {at} of the tar"
        path = member.path if member else ""
        return [PathDifference(path, "encoding", told, told, self._owner(member, None))]

    def _owner(self, a: Member | None, b: Member | None) -> str:
        found = [owners.of(one) for owners, one in zip(self._owners, (a, b), strict=True) if one]
        return " → ".join(dict.fromkeys(one for one in found if one))


def _by_key(members: Iterable[Member]) -> dict[_Key, Member]:
    """Index members in their order; a path may occur more than once."""
    seen: Counter[str] = Counter()
    found = {}
    for member in members:
        seen[member.path] += 1
        found[member.path, seen[member.path]] = member
    return found


def _facts(member: Member) -> dict[Kind, str]:
    facts: dict[Kind, str] = {"type": member.type}
    if member.sha256:
        facts["content"] = f"{member.size} bytes, sha256:{member.sha256}"
    if member.target:
        facts["link"] = member.target
    return facts | {
        "mode": f"{member.mode:04o}",
        "owner": member.owner,
        "time": _time(member.time),
        "attributes": member.attributes,
    }


def _both_files_but_different(a: Member, b: Member) -> bool:
    return bool(a.sha256 and b.sha256) and a.sha256 != b.sha256


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


def _inside(a: tuple[OpenedLayer, Member], b: tuple[OpenedLayer, Member]) -> Inside:
    one, other = (
        partial(content, layer, member.content_at, member.size) for layer, member in (a, b)
    )
    return inside.look(a[1].path, one, other)
