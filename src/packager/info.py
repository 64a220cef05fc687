"""What is inside an image, from whom, with which digests: read from an engine or an archive."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packager import smoke
from packager.errors import UsageError
from packager.image import LABEL_INPUTS
from packager.outputs.engine import Engine

__all__ = ["of_archive", "of_image"]


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
    history = list(reversed(engine.history(reference)))
    described = _describe(
        reference,
        found["Id"],
        (found["Config"] or {}).get("Labels") or {},
        found["RootFS"].get("Layers") or [],
        [(one.get("CreatedBy", ""), one.get("Size", 0)) for one in history],
    )
    limits = smoke.Limits()
    run = engine.run_sealed(
        found["Id"],
        ["info", "--json"],
        seconds=limits.seconds,
        memory=limits.memory,
        processes=limits.processes,
    )
    described["facts"] = json.loads(run.stdout) if run.exit_code == 0 else None
    return described


def of_archive(path: Path) -> dict[str, Any]:
    """Describe an image archive without an engine.

    Raises
    ------
    UsageError
        When the file is no archive of an image that packager made.
    """
    try:
        with tarfile.open(path) as archive:
            entry = json.loads(_read(archive, "manifest.json"))[0]
            config = json.loads(_read(archive, entry["Config"]))
            sizes = [archive.getmember(name).size for name in entry["Layers"]]
    except (tarfile.TarError, KeyError, IndexError, ValueError) as error:
        raise UsageError(f"not an image archive: {error}", where=str(path)) from None
    created_by = [one.get("created_by", "") for one in config.get("history", [])]
    return _describe(
        str(path),
        f"sha256:{Path(entry['Config']).name}",
        config["config"].get("Labels") or {},
        config["rootfs"]["diff_ids"],
        list(zip(created_by, sizes, strict=False)),
    )


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream.read()


def _describe(
    name: str,
    image_id: str,
    labels: Mapping[str, str],
    diff_ids: list[str],
    history: list[tuple[str, int]],
) -> dict[str, Any]:
    if LABEL_INPUTS not in labels:
        raise UsageError("was not made by packager", where=name)
    layers = [
        {"diff_id": diff_id, "what": what.removeprefix("packager: "), "size": size}
        for diff_id, (what, size) in zip(diff_ids, history, strict=False)
    ]
    return {"image": name, "id": image_id, "labels": dict(labels), "layers": layers}
