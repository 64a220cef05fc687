"""The sources that an image was made from, found by the inputs' digest that it carries.

Looked at are, in this order: the commit that the image's archive names, HEAD, the working
tree as it is, and every other commit that git still has.  A model that is not in them,
because models are big or kept out of git, is taken by its digest from the working tree or
out of the image itself; so are the recorded examples.  Without git, in an unpacked source
archive, there is only the working tree.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Literal

from packaging.version import Version

from packager import claims, git, provenance
from packager import project as projects
from packager.assembling import Inputs, gather
from packager.errors import ClaimError, HostError, PackagerError, UsageError
from packager.image import LABEL_INPUTS, LABEL_MODEL, LABEL_REPRODUCIBLE, REVISION
from packager.layers import tree
from packager.layers.tree import Model
from packager.outputs import members
from packager.outputs.opened import Opened, OpenedLayer
from packager.project import Project
from packager.reporter import Reporter

__all__ = ["Place", "Sources", "find"]

Place = Literal["commit", "working tree", "image"]

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_LINK = b"120000 "
_STEERING = re.compile(r"[\\:\x00]" if os.name == "nt" else r"\x00")
_MOST_TROUBLES = 3


@dataclass(frozen=True, slots=True)
class Sources:
    """What an image was made from, and where each part of it was found.

    Attributes
    ----------
    inputs : Inputs
        Their digest is the image's.
    commit : str
        Hex; empty where the working tree gave code and lock.
    model : {"commit", "working tree", "image"}
        Where the model was found.
    examples : {"commit", "working tree", "image"} or None
        Where the recorded examples were found; None where there are none.
    """

    inputs: Inputs
    commit: str
    model: Place
    examples: Place | None


def find(project: Project, image: Opened, scratch: Path, reporter: Reporter) -> Sources:
    """Find the sources of an image.

    Parameters
    ----------
    project : Project
        The working tree, in whose history commits are looked for.
    image : Opened
        Made by packager.
    scratch : Path
        A folder for a clone and for what is taken out of the image; what is returned reads
        from there.
    reporter : Reporter
        Told how many sources were tried.

    Raises
    ------
    UsageError
        When packager did not make the image, or let the engine build it from a Dockerfile.
    ClaimError
        When no sources here give the digest of the inputs that the image carries.
    """
    if image.labels.get(LABEL_REPRODUCIBLE) == "false":
        raise UsageError(
            "was built from a Dockerfile: it cannot be built again bit for bit, so there is "
            "nothing to verify it against",
            where=image.name,
            hint="packager smoke shows that it predicts what was recorded; packager build, without "
            "--dockerfile, makes an image that can be verified.",
        )
    wanted = image.labels.get(LABEL_INPUTS, "")
    if not _DIGEST.fullmatch(wanted):
        raise UsageError("was not made by packager", where=image.name)
    parts = _Parts(project, image, scratch)
    count, troubles = 0, []
    for commit, root in _candidates(project, image, scratch):
        count += 1
        origin = f"commit {commit[:12]}" if commit else "the working tree"
        reporter.begin("sources", f"{origin}, {count} tried")
        try:
            sources = parts.combine(root, commit)
        except PackagerError as error:
            troubles.append(f"{origin}: {error.where}: {error.what}")
            continue
        if sources and sources.inputs.digest == wanted:
            return sources
    raise ClaimError(
        f"no sources here have the digest of its inputs, {wanted} ({count} tried)",
        where=image.name,
        hint="\n  ".join(
            [
                "Go to the image's own repository, with its branches and tags fetched.",
                *troubles[:_MOST_TROUBLES],
            ]
        ),
    )


def _candidates(project: Project, image: Opened, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield commits, each checked out when it is asked for, and the working tree as ``""``."""
    if not git.is_repository(project.root):
        yield "", project.root
        return
    clone = scratch / "clone"
    about = git.about(project.root)
    prefix, run = about.prefix, git.borrow(about, clone / ".git", clone)
    # The reflog, because who amends a commit has built from the one before.
    commits = git.lines(project.root, "rev-list", "--date-order", "--all", "--reflog")
    named, head = image.annotations.get(REVISION, ""), provenance.of(project).commit
    likely = [commit for commit in dict.fromkeys([named, head]) if commit in {*commits, head}]
    others = [commit for commit in commits if commit not in likely]
    seen = set()
    for commit in [*filter(None, likely), "", *others]:
        if not commit:
            yield "", project.root
            continue
        with suppress(HostError):  # a partial clone may lack what one commit needs
            if not _may_be(image, run("show", f"{commit}:{prefix}pyproject.toml")):
                continue
            run("checkout", "--quiet", "--force", "--detach", commit)
            listing = _inputs_of(run("ls-tree", "-r", "-z", commit), clone / prefix, prefix)
            if listing not in seen:
                seen.add(listing)
                yield commit, clone / prefix


def _may_be(image: Opened, settings: bytes) -> bool:
    """Tell whether a project's settings could be those of the image: by name and version."""
    said = [image.labels.get(f"org.opencontainers.image.{key}") for key in ("title", "version")]
    try:
        table = tomllib.loads(settings.decode())["project"]
        return said == [table["name"], str(Version(table["version"]))]
    except (ValueError, KeyError, TypeError, RecursionError):
        return True  # whoever loads it will say what is wrong


def _inputs_of(tree: bytes, root: Path, prefix: str) -> bytes:
    """Pick from a commit's listing what an image is made from, which few commits change."""
    try:
        named = [f"{prefix}{path}" for path in provenance.inputs_of(projects.load(root))]
    except PackagerError:
        return tree
    lines = [line for line in tree.split(b"\0") if line]
    paths = [os.fsdecode(line.partition(b"\t")[2]) for line in lines]
    picked = [
        line
        for line, path in zip(lines, paths, strict=True)
        if path.endswith(".gitattributes")
        or any(path == one or path.startswith(f"{one}/") for one in named)
    ]
    # What a link leads to may lie anywhere.
    return tree if any(line.startswith(_LINK) for line in picked) else b"\0".join(picked)


class _Parts:
    """Puts the parts of the inputs together from where they are."""

    def __init__(self, project: Project, image: Opened, scratch: Path) -> None:
        self._project, self._image, self._scratch = project, image, scratch

    def combine(self, root: Path, commit: str) -> Sources | None:
        """Gather the inputs of one candidate; None where it is plainly another project's."""
        project = projects.load(root)
        if not _may_be(self._image, (root / "pyproject.toml").read_bytes()):
            return None
        own: Place = "commit" if commit else "working tree"
        model, model_place = self._model(project, own)
        examples, examples_place = self._examples(project, own, model)
        scratch = partial(TemporaryDirectory, dir=self._scratch)
        inputs = gather(project, self._image.platform, scratch, model=model, examples=examples)
        return Sources(inputs, commit, model_place, examples_place)

    def _model(self, project: Project, own: Place) -> tuple[Model, Place]:
        """Find the model by its digest, the nearest first."""
        wanted = self._image.labels.get(LABEL_MODEL)
        places: list[tuple[Place, Callable[[], Project]]] = [
            (own, lambda: project),
            ("working tree", lambda: self._project),
            ("image", lambda: self._as_taken(project)),
        ]
        for place, holder in places:
            with suppress(PackagerError):  # what is no model here may be one there
                model = tree.read_model(holder())
                if model.digest == wanted:
                    return model, place
        raise ClaimError(f"no model here has the digest {wanted}", where=str(project.model))

    def _as_taken(self, project: Project) -> Project:
        name = PurePosixPath("model", project.model.name)
        return replace(project, root=self._taken.resolve(), model=name)

    def _examples(
        self, project: Project, own: Place, model: Model
    ) -> tuple[Path | None, Place | None]:
        """Find the recorded examples that the image holds, the nearest first."""
        if project.examples is None:
            return None, None
        held = self._taken / "examples.json"
        places: list[tuple[Place, Path]] = [
            (own, project.root / project.examples),
            ("working tree", self._project.root / (self._project.examples or project.examples)),
            ("image", held),
        ]
        for place, path in places:
            with suppress(PackagerError, OSError):  # those of another model are not these
                found = claims.read_examples(project, model.digest, path)
                if found and found.data == held.read_bytes():
                    return path, place
        return None, own

    @cached_property
    def _taken(self) -> Path:
        """The image's own model and examples, taken out of its layers."""
        folder = self._scratch / "taken"
        for layer in reversed(self._image.layers):
            if layer.what.startswith(("model:", "code:")):
                # A layer that is damaged is found by comparing; here it only holds nothing.
                with suppress(UsageError, OSError, ValueError):
                    _take(layer, folder, self._image.name)
        return folder


def _take(layer: OpenedLayer, folder: Path, image: str) -> None:
    """Write the model and the examples of a layer into a folder, nothing else, nowhere else."""
    above = f"{tree.ROOT}/"
    for name, stream, _ in members.files_below(layer, above, image):
        parts = name.removeprefix(above).split("/")
        if parts[0] not in {"model", "examples.json"} or not all(map(_is_plain, parts)):
            continue
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out)


def _is_plain(part: str) -> bool:
    return part not in {"", ".", ".."} and not _STEERING.search(part)
