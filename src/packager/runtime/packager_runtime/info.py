"""What the image says of itself: for people as a page, for programs as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .facts import Image, InputError, Recording, Tensor

__all__ = ["card", "citation", "describe", "page"]


def describe(image: Image, examples: Recording | None, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Gather the facts for a program.

    Parameters
    ----------
    image : Image
        The facts of the image.
    examples : Recording or None
        The recorded examples.
    inputs : sequence of Tensor
        The inputs, recorded or as the model itself knows them.

    Returns
    -------
    dict
        Ready for JSON; what was not recorded is None.
    """
    facts = asdict(image)
    facts["model"] = {"name": image.model.name, "digest": facts.pop("model_digest")}
    facts["card"] = image.card and image.card.name
    facts["citation"] = image.citation and image.citation.name
    facts["signature"] = {
        "inputs": [asdict(tensor) for tensor in inputs],
        "outputs": [asdict(tensor) for tensor in examples.outputs] if examples else None,
    }
    facts["examples"] = examples and {
        "rows": examples.rows,
        "source": examples.source,
        "license": examples.license,
        "tolerance": {"rtol": examples.rtol, "atol": examples.atol},
    }
    return facts


def page(image: Image, examples: Recording | None, inputs: Sequence[Tensor]) -> str:
    """Set the facts as text for a person.

    Parameters
    ----------
    image, examples, inputs
        As for `describe`.

    Returns
    -------
    str
        Lines, the last one with its end.
    """
    facts = [
        ("model", image.model.name),
        ("digest", image.model_digest),
        ("licence", image.license),
        ("python", f"{image.python} on {image.base}, {image.platform}"),
        ("built from", image.inputs_digest),
        ("examples", "none recorded"),
    ]
    if examples:
        facts[-1:] = [
            ("examples", f"{examples.rows} rows in this image, licence {examples.license}"),
            ("", f"from {examples.source}"),
            ("tolerance", f"rtol {examples.rtol:g}, atol {examples.atol:g}"),
        ]
    if image.card:
        facts.append(("card", "what it is for, how good it is, its limits: info --card"))
    return "\n".join(
        [
            f"{image.name} {image.version}",
            *([image.description] if image.description else []),
            "",
            *_aligned(facts),
            "",
            "takes",
            *_aligned(_signature(inputs)),
            "",
            "gives",
            *_aligned(_signature(examples.outputs if examples else ())),
            "",
        ]
    )


def card(image: Image) -> str:
    """Read the model card.

    Parameters
    ----------
    image : Image
        The facts of the image.

    Returns
    -------
    str
        Markdown, as its author wrote it.

    Raises
    ------
    InputError
        When there is none in the image.
    """
    if image.card is None:
        raise InputError("there is no model card in this image")
    return _text(image.card)


def citation(image: Image) -> str:
    """Read how to cite the model.

    Parameters
    ----------
    image : Image
        The facts of the image.

    Returns
    -------
    str
        A BibTeX entry, or nothing where the project says none.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    return _text(image.citation) if image.citation else ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as wrong:
        raise InputError(f"{path}: cannot be read: {wrong}") from None


def _signature(tensors: Sequence[Tensor]) -> list[tuple[str, ...]]:
    if not tensors:
        return [("not recorded",)]
    return [
        (
            tensor.name,
            tensor.datatype or "as trained",
            f"[{', '.join('n' if size == -1 else str(size) for size in tensor.shape)}]",
            "may be missing" if tensor.nullable else "",
        )
        for tensor in tensors
    ]


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
