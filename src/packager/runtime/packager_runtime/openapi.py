"""The server's OpenAPI document, with the model's own inputs and outputs in its schemas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import answers
from .facts import DATATYPES, FLOATS, INTEGERS, Image, Recording, Tensor
from .protocol import MOST_SIZE, Signature, takes

__all__ = ["document"]

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_UNKNOWN = Tensor("", "", nullable=True)
_SIZES = {"type": "array", "items": {"type": "integer", "minimum": -1}}


def document(
    image: Image, examples: Recording | None, signature: Signature, most_bytes: int
) -> dict[str, Any]:
    """Describe the server.

    Parameters
    ----------
    image : Image
        The facts of the image.
    examples : Recording or None
        The recorded examples; the first becomes the document's.
    signature : Signature
        What the model takes and gives.
    most_bytes : int
        Of a request's body.

    Returns
    -------
    dict
        OpenAPI 3.1, ready for JSON.  Each request that the server takes fits its schemas.  The
        reverse cannot be said in a schema: that data has as many values as its shape says, and
        that all inputs have the same number of rows.
    """
    model = f"/v2/models/{image.name}"
    models = [model, f"{model}/versions/{image.version}"] if image.version else [model]
    paths: dict[str, Any] = {
        "/v2": {"get": _get("server", "What this server is", "Server")},
        "/v2/health/live": {"get": _get("live", "Whether the server runs", "Live")},
        "/v2/health/ready": {"get": _get("ready", "Whether the model answers", "Ready", "503")},
        "/metrics": {"get": _plain("metrics", "For Prometheus", "text/plain")},
        "/openapi.json": {"get": _plain("openapi", "This document", "application/json")},
        "/": {"get": _plain("page", "For people", "text/html")},
    }
    body: dict[str, Any] = {"schema": _reference("Request")}
    if examples:
        first = {name: values[:1] for name, values in examples.given.items()}
        body["example"] = answers.request(first, examples.inputs)
    for at, path in enumerate(models):
        suffix = "_version" if at else ""
        paths[path] = {"get": _get("model" + suffix, "What the model takes and gives", "Model")}
        paths[f"{path}/ready"] = {
            "get": _get("model_ready" + suffix, "Whether it answers", "ModelReady", "503")
        }
        paths[f"{path}/infer"] = {"post": _infer("infer" + suffix, body, most_bytes)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": image.name,
            "version": image.version or "0",
            **({"summary": image.description} if image.description else {}),
            **({"license": {"name": image.license}} if image.license else {}),
        },
        "servers": [{"url": "."}],  # beside this document, also behind a proxy's prefix
        "paths": paths,
        "components": {"schemas": _schemas(image, signature)},
    }


def _get(name: str, about: str, schema: str, *others: str) -> dict[str, Any]:
    told = {"application/json": {"schema": _reference(schema)}}
    answers = {status: {"description": about, "content": told} for status in ("200", *others)}
    if not others:
        answers["503"] = _failure("The model is still being loaded")
    return {"operationId": name, "summary": about, "responses": answers}


def _plain(name: str, about: str, kind: str) -> dict[str, Any]:
    schema = {"type": "object"} if kind == "application/json" else _TEXT
    responses = {
        "200": {"description": about, "content": {kind: {"schema": schema}}},
        "404": _failure("There is none"),
        "503": _failure("The model is still being loaded"),
    }
    return {"operationId": name, "summary": about, "responses": responses}


def _infer(name: str, body: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    failures = {
        "400": "The request is wrong: what, and in which row and column",
        "408": "The body did not arrive in time",
        "413": f"The body is larger than {most_bytes} bytes",
        "415": "The body is not said to be JSON",
        "422": "The model raised an error on these rows",
        "500": "The model does not work",
        "503": "The model is being loaded, or too many requests are waiting",
        "504": "The model did not answer in time",
    }
    return {
        "operationId": name,
        "summary": "Predict",
        "requestBody": {
            "required": True,
            "content": {"application/json": body},
        },
        "responses": {
            "200": {
                "description": "Predictions",
                "content": {"application/json": {"schema": _reference("Answer")}},
            }
        }
        | {status: _failure(text) for status, text in failures.items()},
    }


def _failure(about: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference("Error")}}
    return {"description": about, "content": content}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(image: Image, signature: Signature) -> dict[str, Any]:
    tensor = _object(name=_TEXT, shape=_SIZES)
    tensor["properties"] |= {
        "datatype": {"enum": sorted(DATATYPES)},
        "parameters": _object(nullable=_FLAG),
    }
    tensors = {"type": "array", "items": tensor}
    return {
        "Error": _object(error=_TEXT),
        "Live": _object(live=_FLAG),
        "Ready": _object(ready=_FLAG),
        "ModelReady": _object(name=_TEXT, ready=_FLAG),
        "Server": _object(name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT}),
        "Model": _object(
            name={"const": image.name}, platform=_TEXT, inputs=tensors, outputs=tensors
        ),
        "Request": _request(signature),
        "Answer": _object(
            model_name={"const": image.name},
            outputs={"type": "array", "items": _any_of(signature.outputs, _given)},
        ),
    }


def _request(signature: Signature) -> dict[str, Any]:
    count = len(signature.inputs)
    inputs: dict[str, Any] = {
        "type": "array",
        "items": _any_of(signature.inputs, _taken),
        "minItems": max(count, 1),
    }
    if count:
        inputs["maxItems"] = count
    name = {"enum": [tensor.name for tensor in signature.outputs]} if signature.outputs else _TEXT
    output = _object(name=name)
    output["properties"]["parameters"] = _flags("binary_data")
    schema = _object(inputs=inputs)
    schema["properties"] |= {
        "id": _nullable(_TEXT),
        "parameters": _flags("binary_data_output"),
        "outputs": _nullable({"type": "array", "items": output}),
    }
    return schema


def _any_of(
    tensors: Sequence[Tensor], describe: Callable[[Tensor], dict[str, Any]]
) -> dict[str, Any]:
    return {"anyOf": [describe(tensor) for tensor in tensors]} if tensors else describe(_UNKNOWN)


def _taken(tensor: Tensor) -> dict[str, Any]:
    """Describe what is taken as one input."""
    sizes = [
        {"const": size} if size > 0 else {"type": "integer", "minimum": 1, "maximum": MOST_SIZE}
        for size in tensor.shape
    ]
    shape = _array_of(sizes)
    if tensor.shape == (-1,):
        shape = {"anyOf": [shape, _array_of([*sizes, {"const": 1}])]}
    if tensor is _UNKNOWN:
        shape = {"type": "array", "items": sizes[0], "minItems": 1}
    described = _object(
        name=_name(tensor),
        shape=shape,
        datatype={"enum": sorted(name for name in DATATYPES if takes(tensor.datatype, name))},
        data=_data(tensor),
    )
    parameters = {"properties": {"binary_data_size": {"type": "null"}}}
    described["properties"]["parameters"] = {"type": ["object", "null"]} | parameters
    return described


def _given(tensor: Tensor) -> dict[str, Any]:
    """Describe what is given as one output; a number that is none is null."""
    return _object(
        name=_name(tensor),
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        datatype={"enum": [tensor.datatype] if tensor.datatype else sorted(DATATYPES)},
        data={"type": "array", "items": _value(replace(tensor, nullable=True))},
    )


def _name(tensor: Tensor) -> dict[str, Any]:
    return _TEXT if tensor is _UNKNOWN else {"const": tensor.name}


def _data(tensor: Tensor) -> dict[str, Any]:
    """Describe values flat, or nested as deep as the shape is long."""
    value = nested = _value(tensor)
    # A plain column may also come as one of lists of one.
    for size in reversed(tensor.shape[1:] or (1,)):
        nested = {"type": "array", "items": nested, "minItems": max(size, 1)}
        if size > 0:
            nested["maxItems"] = size
        if tensor.nullable:
            nested["type"] = ["array", "null"]
    if tensor is _UNKNOWN:
        nested = {"type": "array"}
    return {"type": "array", "items": {"anyOf": [value, nested]}, "minItems": 1}


def _value(tensor: Tensor) -> dict[str, Any]:
    kinds = {"BOOL": ["boolean"], "BYTES": ["string"]}
    if tensor.datatype in INTEGERS:
        low, high = INTEGERS[tensor.datatype]
        value: dict[str, Any] = {"type": ["integer"], "minimum": low, "maximum": high}
    elif most := FLOATS.get(tensor.datatype):
        value = {"type": ["number"], "minimum": -most, "maximum": most}
    else:
        value = {"type": list(kinds.get(tensor.datatype, ["boolean", "number", "string"]))}
    if tensor.nullable:
        value["type"].append("null")
    return value


def _array_of(items: list[dict[str, Any]]) -> dict[str, Any]:
    size = len(items)
    return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"type": [schema["type"], "null"]}


def _flags(name: str) -> dict[str, Any]:
    """Describe parameters in which one name is known."""
    return {"type": ["object", "null"], "properties": {name: {"type": ["boolean", "null"]}}}
