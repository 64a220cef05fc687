"""The published schemas of Kubernetes and KServe, which our manifests are held against.

Both come from packages, pinned here by version and hash and read without installing them:
kubernetes-validate has Kubernetes' own schemas with every unknown key refused, and KServe's SDK
has classes that were generated of its schema.  Both are Apache-2.0.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import referencing

_WHEELS = """\
kserve==0.21.0 \\
    --hash=sha256:df9bc5888704d9085015e08f1a8fced5ff0698f3becc6212d4e7b8234c71623b
kubernetes-validate==1.37.0 \\
    --hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
"""
_KUBERNETES = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict"
_KSERVE = "kserve/models"
_PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


class WrongError(Exception):
    """A manifest that the schemas do not allow: the message says where, and why."""


class Schemas:
    """Both, as read from wheels in a folder."""

    def __init__(self, folder: Path) -> None:
        self._kubernetes = zipfile.ZipFile(next(folder.glob("kubernetes_validate-*.whl")))
        self._kserve = zipfile.ZipFile(next(folder.glob("kserve-*.whl")))
        shared = json.loads(self._kubernetes.read(f"{_KUBERNETES}/_definitions.json"))
        resource = referencing.jsonschema.DRAFT202012.create_resource(shared)
        self._registry = referencing.Registry().with_resource("/api/_definitions.json", resource)
        self._types: set[str] = set(shared["$defs"])

    def check(self, manifest: dict[str, Any]) -> None:
        """Raise `WrongError` where a manifest is not what its schema allows."""
        group, _, version = manifest["apiVersion"].rpartition("/")
        if group == "serving.kserve.io":
            self._check_class(f"{version.capitalize()}{manifest['kind']}", manifest, "")
        else:
            self._check_type(f"{version.capitalize()}{manifest['kind']}", manifest, "")

    def _check_type(self, name: str, value: object, where: str) -> None:
        """Hold a value against a type of Kubernetes, by the name that its clients have for it."""
        version, kind = re.fullmatch(r"(V[0-9]+(?:(?:alpha|beta)[0-9]+)?)(\w+)", name).groups()
        [found] = [
            one
            for one in self._types
            if one.endswith(f".{version.lower()}.{kind}") and "apiserver" not in one
        ]
        schema = {"$ref": f"/api/_definitions.json#/$defs/{found}"}
        validator = jsonschema.Draft202012Validator(schema, registry=self._registry)
        for error in validator.iter_errors(value):
            raise WrongError(f"{where}{error.json_path}: {error.message}")

    def _check_class(self, name: str, value: object, where: str) -> None:
        """Hold a value against a class of KServe's SDK."""
        if not isinstance(value, dict):
            raise WrongError(f"{where}: {value!r} is no {name}")
        types = self._class(name)
        for key, inner in value.items():
            if key not in types:
                raise WrongError(f"{where}.{key}: {name} has no such key")
            self._check_value(types[key], inner, f"{where}.{key}")

    def _check_value(self, kind: str, value: object, where: str) -> None:
        if kind in _PLAIN:
            if not isinstance(value, _PLAIN[kind]):
                raise WrongError(f"{where}: {value!r} is no {kind}")
        elif found := re.fullmatch(r"list\[(\w+)\]", kind):
            for number, inner in enumerate(value):
                self._check_value(found[1], inner, f"{where}[{number}]")
        elif found := re.fullmatch(r"dict\(str, (\w+)\)", kind):
            for key, inner in value.items():
                self._check_value(found[1], inner, f"{where}.{key}")
        elif f"{_KSERVE}/{_module(kind)}.py" in self._kserve.namelist():
            self._check_class(kind, value, where)
        else:
            self._check_type(kind, value, where)

    def _class(self, name: str) -> dict[str, str]:
        """Read what a class says of its keys: the type of each."""
        module = ast.parse(self._kserve.read(f"{_KSERVE}/{_module(name)}.py"))
        [body] = [node.body for node in module.body if isinstance(node, ast.ClassDef)]
        said = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        return {key: said["openapi_types"][name] for name, key in said["attribute_map"].items()}


def fetch(folder: Path) -> Schemas:
    """Fetch the wheels as pip is set up to, and read them."""
    pins = folder / "pins.txt"
    pins.write_text(_WHEELS)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    words = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    subprocess.run([*pip, *words, "--requirement", str(pins)], check=True)
    return Schemas(folder)


def _module(name: str) -> str:
    """Say in which module of the SDK a class is."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
