"""An image to where it goes: an archive, or an engine, where it gets its tag only once proved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from packager import image, proof
from packager.assembling import Built
from packager.errors import ClaimError, PackagerError, UsageError
from packager.outputs import archive
from packager.proof import Limits, Verdict
from packager.reference import Reference
from packager.reporter import Reporter, human_size
from packager.store import Store

if TYPE_CHECKING:
    from packager.outputs.ahead import Ahead
    from packager.outputs.engine import Engine
    from packager.outputs.registry import Pushed
    from packager.registry import Repository

__all__ = ["deliver", "prove_and_tag", "push", "write_archive"]


def write_archive(
    built: Built, path: Path, reference: Reference, store: Store, annotations: Mapping[str, str]
) -> str:
    """Write the image as an archive.

    Parameters
    ----------
    built : Built
        From `assemble`.
    path : Path
        Replaced if it exists.
    reference : Reference
        The name that loading gives the image.
    store : Store
        Gets the compressed layers.
    annotations : mapping
        For the index: where the image came from.

    Returns
    -------
    str
        The manifest's digest, ``sha256:…``.

    Raises
    ------
    HostError
        When the file cannot be written.
    """
    manifest = image.manifest_of(built.image, store)
    archive.write(path, built.image, manifest, reference, annotations)
    return f"sha256:{manifest.descriptor.sha256}"


def push(
    built: Built, repository: Repository, store: Store, reporter: Reporter, *, tagged: bool
) -> Pushed:
    """Bring the image to a registry.

    Parameters
    ----------
    built : Built
        From `assemble`.
    repository : Repository
        Where it goes, from `registry.connect`.
    store : Store
        Gets the compressed layers.
    reporter : Reporter
        Gets a row.
    tagged : bool
        Whether it gets a tag there.

    Raises
    ------
    ClaimError
        When the registry does not keep what it was given.
    HostError
        When it refuses something, or stops answering.
    """
    from packager.outputs import registry

    begin = time.monotonic()
    reporter.begin("push", f"to {repository.name}")
    manifest = image.manifest_of(built.image, store)
    done = registry.write(repository, built.image, manifest, store, reporter, tagged=tagged)
    total = done.sent + done.mounted + done.there
    what = f"{done.sent} of {total} blobs sent" if done.sent else "the registry has all blobs"
    if done.mounted:
        what += f", {done.mounted} mounted"
    took = f"{time.monotonic() - begin:.1f} s"
    reporter.row("push", what, human_size(done.size), took)
    return done


def deliver(
    built: Built,
    ahead: Ahead,
    reference: Reference,
    limits: Limits | None,
    *,
    store: Store,
    reporter: Reporter,
) -> Verdict | None:
    """Load an image, smoke-test it, and tag it only then.

    Parameters
    ----------
    built : Built
        From `assemble`.
    ahead : Ahead
        Brings it into its engine, with the layers that it has not sent yet.
    reference : Reference
        The name it gets.
    limits : Limits, optional
        Of the smoke test; None leaves the test out.
    store : Store
        Remembers what was proved.
    reporter : Reporter
        Gets a row for loading and one for the test.

    Returns
    -------
    Verdict or None
        The smoke test's; None where there was none.

    Raises
    ------
    PackagerError
        As `smoke.replay`; the image does not bear the name then, and is removed unless it
        was there before.
    """
    begin = time.monotonic()
    engine = ahead.engine
    reporter.begin("load", f"into {engine.name}")
    image_id = engine.id_of(built.image)
    there, known = proof.is_there(
        engine, str(reference), {image_id}, limits, store=store, reporter=reporter
    )
    if there:
        return known
    loaded = ahead.load(built.image)
    total = len(built.image.layers)
    sent = f"{loaded.sent} of {total} layers sent" if loaded.sent else "the engine has it"
    reporter.row("load", sent, f"{time.monotonic() - begin:.1f} s", "")
    return prove_and_tag(
        image_id,
        engine,
        reference,
        limits,
        existed=loaded.existed,
        store=store,
        reporter=reporter,
    )


def prove_and_tag(
    image_id: str,
    engine: Engine,
    reference: Reference,
    limits: Limits | None,
    *,
    existed: bool,
    store: Store,
    reporter: Reporter,
) -> Verdict | None:
    """Smoke-test an image that is in the engine, and tag it only then.

    One that is for machines which the engine does not execute is tagged, too, and it is said that
    it was not tested.

    Parameters
    ----------
    image_id : str
        What the engine calls the image, ``sha256:…``.
    engine : Engine
        Has it.
    reference, limits, store, reporter
        As for `deliver`.
    existed : bool
        Whether the engine had it before: then it stays, proved or not, and what was proved
        then counts.

    Raises
    ------
    PackagerError
        As `deliver`.
    """
    verdict, begin = None, time.monotonic()
    if limits is not None:
        try:
            verdict = proof.recall(store, image_id, engine.id, limits) if existed else None
            verdict = verdict or _prove(image_id, engine, limits, reporter)
        except BaseException as error:
            failed = isinstance(error, ClaimError | UsageError)
            with _noting(reporter):
                if failed:  # an earlier build may have given it the name without a test
                    engine.untag(image_id, reference)
                if existed:
                    engine.settle(image_id)
                else:
                    engine.remove(image_id)
            raise
    if limits and verdict:
        took = "" if verdict.remembered else f"{time.monotonic() - begin:.1f} s"
        proof.report(verdict, took, reporter=reporter)
        proof.remember(store, image_id, engine.id, limits, replace(verdict, remembered=False))
    engine.tag(image_id, reference)
    return verdict


@contextlib.contextmanager
def _noting(reporter: Reporter) -> Iterator[None]:
    """Let no trouble with tidying up hide the error that made it necessary."""
    try:
        yield
    except PackagerError as error:
        reporter.note(f"could not be tidied up: {error}")


def _prove(image_id: str, engine: Engine, limits: Limits, reporter: Reporter) -> Verdict | None:
    """Smoke-test an image; one for other machines can be built everywhere, and tested not."""
    from packager import smoke

    reporter.begin("smoke", "sealed off, replaying the recorded examples")
    try:
        return smoke.replay(engine, image_id, limits)
    except smoke.ForeignError as error:
        reporter.row("smoke", error.what, "", "not run")
        return None
