"""What is inside an image, from whom, with which digests: read from an engine or a file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from packager.errors import UsageError
from packager.image import LABEL_INPUTS, LABEL_REPRODUCIBLE
from packager.outputs.engine import Engine
from packager.outputs.opened import opened
from packager.proof import Limits

__all__ = ["of_file", "of_image"]


def of_image(engine: Engine, reference: str) -> dict[str, Any]:
    """Describe an image of the engine; its own runtime adds model and signature.

    Returns
    -------
    dict
        `id`, `labels`, `layers` (diff IDs with what they hold), and `facts` as
        ``docker run IMAGE info --json`` prints them.

    Raises
    ------
    UsageError
        When there is no such image, or packager did not make it.
    """
    found = engine.get(reference)
    layers = found["RootFS"].get("Layers") or []
    history = list(reversed(engine.history(reference)))
    if len(history) > len(layers):  # steps of a Dockerfile that left nothing but settings
        history = [one for one in history if one.get("Size")]
    whats = [(one.get("CreatedBy", ""), one.get("Size", 0)) for one in history]
    unknown = [("", 0)] * (len(layers) - len(history))  # below, where a base brought no history
    described = _describe(
        reference,
        found["Id"],
        (found["Config"] or {}).get("Labels") or {},
        layers,
        [*unknown, *whats],
    )
    limits = Limits()
    run = engine.run_sealed(
        found["Id"],
        ["info", "--json"],
        seconds=limits.seconds,
        memory=limits.memory,
        processes=limits.processes,
    )
    described["facts"] = _facts(run.stdout) if run.exit_code == 0 else None
    return described


class _Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class _Facts(BaseModel):
    """As much of what an image says of itself as is printed; any image may say anything."""

    signature: dict[str, list[_Tensor]] | None = None


def _facts(said: bytes) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(said)
        _Facts.model_validate(facts, strict=True)
    except (ValueError, RecursionError):
        return None
    return facts


def of_file(path: Path) -> dict[str, Any]:
    """Describe an image without an engine: an archive, or a folder with an OCI layout.

    Raises
    ------
    UsageError
        When it holds no image, or packager did not make it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        image = opened(str(path), Path(scratch))
    layers = [(layer.what, layer.size) for layer in image.layers]
    return _describe(image.name, image.id, image.labels, image.diff_ids, layers)


def _describe(
    name: str,
    image_id: str,
    labels: Mapping[str, str],
    diff_ids: list[str],
    history: list[tuple[str, int]],
) -> dict[str, Any]:
    if not {LABEL_INPUTS, LABEL_REPRODUCIBLE} & labels.keys():
        raise UsageError("was not made by packager", where=name)
    layers = [
        {"diff_id": diff_id, "what": what.removeprefix("packager: "), "size": size}
        for diff_id, (what, size) in zip(diff_ids, history, strict=False)
    ]
    return {"image": name, "id": image_id, "labels": dict(labels), "layers": layers}
