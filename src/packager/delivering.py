"""An image to where it goes: an archive, or an engine, where it gets its tag only once proved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from packager import image, smoke
from packager.assembling import Built
from packager.errors import ClaimError, PackagerError, UsageError
from packager.outputs import archive
from packager.outputs.engine import Engine
from packager.outputs.reference import Reference
from packager.reporter import Reporter
from packager.smoke import Limits, Verdict
from packager.store import Store

__all__ = ["deliver", "prove_and_tag", "write_archive"]


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


def deliver(
    built: Built, engine: Engine, reference: Reference, limits: Limits | None, reporter: Reporter
) -> Verdict | None:
    """Load an image, smoke-test it, and tag it only then.

    Parameters
    ----------
    built : Built
        From `assemble`.
    engine : Engine
        Gets the image once.
    reference : Reference
        The name it gets.
    limits : Limits, optional
        Of the smoke test; None leaves the test out.
    reporter : Reporter
        Gets a row for loading and one for the test.

    Returns
    -------
    Verdict or None
        The smoke test's.

    Raises
    ------
    PackagerError
        As `smoke.replay`; the image does not bear the name then, and is removed unless it
        was there before.
    """
    begin = time.monotonic()
    reporter.begin("load", f"into {engine.name}")
    loaded = engine.load(built.image)
    total = len(built.image.layers)
    sent = f"{loaded.sent} of {total} layers sent" if loaded.sent else "the engine has it"
    reporter.row("load", sent, f"{time.monotonic() - begin:.1f} s", "")
    return prove_and_tag(
        built.image.id, engine, reference, limits, reporter, existed=loaded.existed
    )


def prove_and_tag(
    image_id: str,
    engine: Engine,
    reference: Reference,
    limits: Limits | None,
    reporter: Reporter,
    *,
    existed: bool,
) -> Verdict | None:
    """Smoke-test an image that is in the engine, and tag it only then.

    Parameters
    ----------
    image_id : str
        The image, ``sha256:…``.
    engine, reference, limits, reporter
        As for `deliver`.
    existed : bool
        Whether the engine had it before: then it stays, proved or not.

    Raises
    ------
    PackagerError
        As `deliver`.
    """
    verdict = None
    if limits is not None:
        try:
            verdict = _prove(image_id, engine, limits, reporter)
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
    engine.tag(image_id, reference)
    return verdict


@contextlib.contextmanager
def _noting(reporter: Reporter) -> Iterator[None]:
    """Let no trouble with tidying up hide the error that made it necessary."""
    try:
        yield
    except PackagerError as error:
        reporter.note(f"could not be tidied up: {error}")


def _prove(image_id: str, engine: Engine, limits: Limits, reporter: Reporter) -> Verdict:
    begin = time.monotonic()
    reporter.begin("smoke", "sealed off, replaying the recorded examples")
    verdict = smoke.replay(engine, image_id, limits)
    took = f"{time.monotonic() - begin:.1f} s"
    if verdict.examples:
        what = f"{verdict.examples} examples, largest difference {verdict.largest_difference:.2g}"
        reporter.row("smoke", what, took, "passed")
    else:
        reporter.row("smoke", "no recorded examples: only loading was tried", took, "loaded")
    return verdict
