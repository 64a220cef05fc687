"""`packager verify`: rebuild an image from its sources, compare, and say so in a report.

The image that is looked at is never changed, loaded or tagged; what is rebuilt goes into
the store and nowhere else.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Literal

from packager import __version__, diff, formats, git, sources
from packager.assembling import Built, assemble
from packager.diff import Difference
from packager.errors import HostError, UsageError
from packager.image import COMPRESSED_BY, manifest_of
from packager.outputs import engine as engines
from packager.outputs.opened import Opened, OpenedLayer, damaged, opened, real_diff_id
from packager.project import Project
from packager.reporter import Reporter
from packager.sources import Sources
from packager.store import Store

__all__ = ["Level", "Verification", "author", "check_report", "report", "verify"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Level:
    """One of the three comparisons.

    Attributes
    ----------
    name : {"image", "manifest", "engine"}
        The config with all diff IDs; the manifest with the compressed layers; what the
        engine holds under the image's ID.
    verdict : {"same", "changed", "not compared"}
        How it ended.
    expected, found : str
        Digests: the image's own, and what was rebuilt or exported; empty if not compared.
    why : str
        What a digest does not say.
    """

    name: Literal["image", "manifest", "engine"]
    verdict: Literal["same", "changed", "not compared"]
    expected: str = ""
    found: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of rebuilding an image.

    Attributes
    ----------
    difference : Difference or None
        Of the image and what was rebuilt, where they are not the same.
    empty_store : bool
        Whether every locked byte was fetched anew.
    """

    image: Opened
    sources: Sources
    built: Built
    levels: tuple[Level, ...]
    difference: Difference | None
    empty_store: bool

    @property
    def reproduced(self) -> bool:
        """Whether nothing that was compared had changed."""
        return all(level.verdict != "changed" for level in self.levels)


def verify(
    project: Project,
    image: Opened,
    store: Store,
    scratch: Path,
    reporter: Reporter,
    *,
    empty_store: bool = False,
) -> Verification:
    """Rebuild an image from the lock and the sources that it was made from, and compare.

    Parameters
    ----------
    project : Project
        In whose working tree and history the sources are looked for.
    image : Opened
        What is verified.
    store : Store
        Where locked bytes come from.
    scratch : Path
        A folder for temporary files.
    reporter : Reporter
        Gets a row for each step.
    empty_store : bool
        Use a store that holds nothing.

    Raises
    ------
    UsageError
        When packager did not make the image.
    ClaimError
        When the sources are not here, or a locked byte is not what the lock says.
    HostError
        When locked bytes cannot be had any more.
    """
    found = sources.find(project, image, scratch, reporter)
    reporter.row("sources", _describe(found), "", "found")
    if empty_store:
        store = Store(scratch / "store", reporter)
    built = assemble(found.inputs, store, reporter)
    reporter.begin("compare", "the image's layers")
    manifest = manifest_of(built.image, store).data if _comparable(image) else None
    own = _image_level(image, built), _manifest_level(image, manifest)
    engine, held = _engine_level(image, scratch)
    levels = (*own, engine)
    for level in levels:
        reporter.row(level.name, level.why or level.found, "", level.verdict)
    difference = None
    if any(level.verdict == "changed" for level in levels):
        reporter.begin("compare", "where it differs")
        culprit = image if any(level.verdict == "changed" for level in own) else held
        try:
            difference = diff.compare(_believing_nothing(culprit), _as_opened(built, manifest))
        except UsageError as error:  # what is no tar at all has changed, too
            reporter.note(error.what)
    return Verification(image, found, built, levels, difference, empty_store)


def _describe(found: Sources) -> str:
    origin = f"commit {found.commit[:12]}" if found.commit else "the working tree"
    own = "commit" if found.commit else "working tree"
    parts = {"the model": found.model, "the examples": found.examples}
    others = [
        f"{part} from the {place}" for part, place in parts.items() if place not in {own, None}
    ]
    return ", ".join([origin, *others])


def _image_level(image: Opened, built: Built) -> Level:
    if rotten := damaged(image):
        names = ", ".join(layer.what or layer.diff_id for layer in rotten)
        why = f"not what the image's own config or manifest says: {names}"
        return Level("image", "changed", image.id, built.image.id, why)
    same = image.config == built.image.config
    return Level("image", "same" if same else "changed", image.id, built.image.id)


def _compressor(image: Opened) -> str | None:
    annotations = json.loads(image.manifest or b"{}").get("annotations")
    said = annotations.get(COMPRESSED_BY) if isinstance(annotations, dict) else None
    return said if isinstance(said, str) else None


def _comparable(image: Opened) -> bool:
    return _compressor(image) == formats.COMPRESSOR


def _manifest_level(image: Opened, manifest: bytes | None) -> Level:
    if image.manifest is None:
        return Level("manifest", "not compared", why="the image comes without one")
    if manifest is None:
        by = _compressor(image) or "another tool"
        why = f"its layers were compressed by {by}, and here by {formats.COMPRESSOR}"
        return Level("manifest", "not compared", why=why)
    expected, found = _digest(image.manifest), _digest(manifest)
    return Level("manifest", "same" if found == expected else "changed", expected, found)


def _digest(document: bytes) -> str:
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def _engine_level(image: Opened, scratch: Path) -> tuple[Level, Opened]:
    """Compare what an engine holds; exporting it brings every byte to light."""
    try:
        engine = engines.connect()
    except HostError:
        return Level("engine", "not compared", why="no container engine answers"), image
    try:
        held = image
        if image.kind != "engine":
            # containerd's store knows it by its manifest.
            names = [image.id, *([_digest(image.manifest)] if image.manifest else [])]
            found = next(filter(None, map(engine.find, names)), None)
            if found is None:
                return Level("engine", "not compared", why=f"{engine.name} does not hold it"), image
            held = opened(found["Id"], scratch)
        if held.id == image.id and not damaged(held):
            why = f"{engine.name} holds it whole"
            return Level("engine", "same", image.id, held.id, why), held
    except (HostError, UsageError):
        why = f"{engine.name} does not give it back as an image"
        return Level("engine", "not compared", why=why), image
    why = f"{engine.name} holds other bytes than the image's config says"
    return Level("engine", "changed", image.id, held.id, why), held


def _believing_nothing(image: Opened) -> Opened:
    """Give layers the diff IDs that they have instead of those that the config says."""
    layers = [replace(layer, diff_id=real_diff_id(layer)) for layer in image.layers]
    # The name goes into the report, and may be a path or an address.
    return replace(image, name="image", layers=tuple(layers))


def _as_opened(built: Built, manifest: bytes | None) -> Opened:
    layers = [
        OpenedLayer(
            f"sha256:{layer.blob.sha256}",
            f"{layer.role}: {layer.what}",
            layer.blob.size,
            partial(_open, layer.blob.path),
        )
        for layer in built.image.layers
    ]
    return Opened("rebuilt", "archive", built.image.config, manifest, {}, tuple(layers))


def check_report(path: Path, image: str | None) -> None:
    """Refuse, before minutes of work, a place where no report can be written.

    Raises
    ------
    UsageError
        When there is no such folder, or the report would replace the image.
    """
    folder = path.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise UsageError(f"{folder} is no folder that can be written to", where="--report")
    if image and path.resolve().is_relative_to(Path(image).resolve()) and Path(image).exists():
        raise UsageError("the report would replace the image", where="--report")


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def author(root: Path) -> str:
    """Say who verifies: the name that git knows, else the one that the system knows."""
    with suppress(HostError):
        if name := git.lines(root, "config", "--get", "user.name"):
            return name[0]
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def report(verification: Verification, *, by: str) -> dict[str, Any]:
    """Say what was done and found, in a form that anybody may publish.

    Paths, and the name of the machine, stay out of it.

    Parameters
    ----------
    verification : Verification
        From `verify`.
    by : str
        Who verified.

    Returns
    -------
    dict
        Ready for JSON, as `packager/verification.schema.json` describes it.
    """
    image, found, rebuilt = verification.image, verification.sources, verification.built.image
    project = found.inputs.project
    return {
        "format": _FORMAT,
        "verdict": "reproduced" if verification.reproduced else "changed",
        "model_retrained": False,
        "image": {
            "name": project.name,
            "version": project.version,
            "platform": image.platform,
            "kind": image.kind,
            "id": image.id,
            "inputs": found.inputs.digest,
            "model": found.inputs.model.digest,
            "layers": image.diff_ids,
        },
        "sources": {
            "commit": found.commit or None,
            "code": "commit" if found.commit else "working tree",
            "model": found.model,
            "examples": found.examples,
        },
        "rebuilt": {
            "id": rebuilt.id,
            "layers": rebuilt.diff_ids,
            "empty_store": verification.empty_store,
        },
        "levels": [asdict(level) for level in verification.levels],
        "difference": diff.as_json(verification.difference) if verification.difference else None,
        "by": by,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": _host(),
        "versions": _versions(),
    }


def _host() -> Mapping[str, Any]:
    name = platform.platform(terse=True)
    with suppress(OSError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return {
        "system": platform.system(),
        "release": platform.release(),
        "distribution": name,
        "machine": platform.machine(),
        "processors": os.cpu_count(),
    }


def _versions() -> Mapping[str, Any]:
    return {
        "packager": __version__,
        "python": platform.python_version(),
        "deflate": version("deflate"),
        "formats": {"layers": formats.LAYERS, "bytecode": formats.BYTECODE, "lock": formats.LOCK},
    }
