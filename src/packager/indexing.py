"""An index of several platforms: each image pushed by its digest, then all under one tag."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from packager import build, image
from packager.build import Order, Result
from packager.project import PLATFORMS, Project
from packager.proof import Limits
from packager.reference import Reference
from packager.reporter import Reporter, human_size
from packager.store import Store

__all__ = ["Indexed", "orders", "push"]


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a registry was given.

    Attributes
    ----------
    reference : str
        The name that the index has there.
    digest : str
        Of the index, ``sha256:…``.
    """

    reference: str
    digest: str


def orders(
    project: Project, *, limits: Limits | None, load: bool, push: str, insecure: bool
) -> list[Order]:
    """Order an image for each of the project's platforms, to be pushed by its digest alone.

    In the engine the first has the project's name, and the others name their machine, too.

    Parameters
    ----------
    project, limits, load, push, insecure
        As for `build.order`.

    Raises
    ------
    UsageError
        As `build.order`.
    """
    own = Reference.of(project.name, project.version)
    made = []
    for number, platform in enumerate(project.platforms):
        tag = f"{own.tag}-{PLATFORMS[platform]}" if number else own.tag
        one = build.order(
            project,
            tag=str(replace(own, tag=tag)),
            output=None,
            load=load,
            platform=platform,
            limits=limits,
            push=push,
            insecure=insecure,
        )
        made.append(replace(one, tagged=False))
    return made


def push(results: Sequence[Result], store: Store, reporter: Reporter) -> Indexed:
    """Give a registry the index of images that it has, under their tag.

    Parameters
    ----------
    results : sequence of Result
        What came of `orders`.
    store : Store
        Has the compressed layers.
    reporter : Reporter
        Gets a row.

    Raises
    ------
    ClaimError
        When the registry does not keep what it was given.
    HostError
        When it refuses the index, or stops answering.
    """
    from packager import registry

    wanted = results[0].order
    assert wanted.push
    repository = registry.connect(wanted.push, actions="pull,push", insecure=wanted.insecure)
    manifests = {
        one.order.platform: image.manifest_of(one.built.image, store).descriptor for one in results
    }
    data = image.index_of(manifests)
    repository.put(data, image.INDEX, wanted.push.tag)
    reporter.row("index", ", ".join(sorted(manifests)), human_size(len(data)), "")
    return Indexed(str(wanted.push), f"sha256:{hashlib.sha256(data).hexdigest()}")
