"""What a smoke test may use, what came of it, and where it has been passed before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from packager import __version__
from packager.files import canonical_json
from packager.reporter import Reporter
from packager.store import Store

if TYPE_CHECKING:
    from packager.outputs.images import Images

__all__ = ["Limits", "Verdict", "is_there", "recall", "remember", "report"]

_KIND = "proof"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sealed container may use: seconds, memory, and processes with their threads."""

    seconds: float = 300
    memory: str = "4g"
    processes: int = 512


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was replayed, and how far off it was.

    Attributes
    ----------
    examples : int
        Rows; 0 when the project recorded none and only loading was proved.
    outputs : list of dict
        For each output `name`, `compared`, `mismatched`, `largest_difference`.
    seconds : dict
        For the `container` from its start to its end, for `load` and, where there were examples,
        `predict`; for `serve`, where it was tried.
    refused : int or None
        How many wrong requests the image's server refused, after it had given the same
        predictions; None where it was not tried.
    remembered : bool
        Whether this is what came of it in an earlier run.
    """

    examples: int
    outputs: list[dict[str, Any]]
    seconds: dict[str, float]
    refused: int | None = None
    remembered: bool = False

    def told(self) -> dict[str, Any]:
        """Give what a script wants to know of it."""
        kept = ("examples", "outputs", "refused", "remembered")
        return {key: value for key, value in asdict(self).items() if key in kept}

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference over all outputs."""
        return max((one["largest_difference"] or 0.0 for one in self.outputs), default=0.0)


def remember(store: Store, image: str, engine: str, limits: Limits, verdict: Verdict) -> None:
    """Note that an image passed.

    Parameters
    ----------
    store : Store
        Keeps the note.
    image : str
        The image ID, which pins every byte of it, the recorded examples too.
    engine : str
        The ID of the engine that it ran in.
    limits : Limits
        What it could use.
    verdict : Verdict
        What came of it.
    """
    store.write_note(_KIND, _key(image, engine, limits), asdict(verdict))


def recall(store: Store, image: str, engine: str, limits: Limits) -> Verdict | None:
    """Recall that this very image has passed, within these limits, in this engine."""
    noted = store.note(_KIND, _key(image, engine, limits))
    return replace(Verdict(**noted), remembered=True) if noted else None


def is_there(
    engine: Images,
    name: str,
    images: Collection[str],
    limits: Limits | None,
    *,
    store: Store,
    reporter: Reporter,
) -> tuple[bool, Verdict | None]:
    """Look whether an engine has an image under its name, and whether it has been proved there.

    Parameters
    ----------
    engine : Images
        Is asked.
    name : str
        With its tag.
    images : collection of str
        The image IDs, of which it should stand for one: some engines know the image by its
        manifest.
    limits : Limits, optional
        Of the smoke test; None where none is wanted.
    store : Store
        Remembers what was proved.
    reporter : Reporter
        Gets the rows, if nothing is left to be done.

    Returns
    -------
    bool
        Whether nothing is left to be done.
    Verdict or None
        What came of the smoke test then.
    """
    found = engine.find(name)
    image = found["Id"] if found else ""
    if image not in images:
        return False, None
    known = recall(store, image, engine.id, limits) if limits else None
    if limits and not known:
        return False, None
    reporter.row("load", "the engine has it", "", "")
    if known:
        report(known, reporter=reporter)
    return True, known


def report(verdict: Verdict, took: str = "", *, reporter: Reporter) -> None:
    """Report what came of a smoke test, now or in an earlier run."""
    if verdict.examples:
        what = f"{verdict.examples} examples, largest difference {verdict.largest_difference:.2g}"
        state = "passed before" if verdict.remembered else "passed"
    else:
        what, state = "no recorded examples: only loading was tried", "loaded"
    reporter.row("smoke", what, took, state)
    if verdict.refused is not None:
        what = f"the same over HTTP, {verdict.refused} wrong requests refused"
        reporter.row("serve", what, "", state)


def _key(image: str, engine: str, limits: Limits) -> str:
    return hashlib.sha256(canonical_json([__version__, image, engine, asdict(limits)])).hexdigest()
