"""Sources to build wheels from: sdists on an index of loopback, folders, commits."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

FLIT = """\
[build-system]
requires = ["flit_core>=3.8,<4"]
build-backend = "flit_core.buildapi"

[project]
name = "{name}"
version = "{version}"
description = "Made up"
requires-python = ">=3.11"
"""


def flit(name: str, version: str = "1.0", code: str = "FACTOR = 2.5\n") -> dict[str, str]:
    """Give the sources of a package without compiled code."""
    return {
        "pyproject.toml": FLIT.format(name=name, version=version),
        f"{name.replace('-', '_')}.py": code,
    }


def write_sources(folder: Path, files: Mapping[str, str]) -> Path:
    """Write sources into a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_sdist(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Write an sdist, as a backend does."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}.tar.gz"
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in {"PKG-INFO": info, **files}.items():
            member = tarfile.TarInfo(f"{stem}/{file}")
            member.size, member.mtime = len(text.encode()), 1_600_000_000
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


SETUPTOOLS = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"

[tool.setuptools]
py-modules = []
ext-modules = [{{ name = "{module}", sources = ["{module}.c"] }}]
"""

C = """\
#include <Python.h>

static PyObject *times(PyObject *self, PyObject *arguments) {{
    double one, other;
    if (!PyArg_ParseTuple(arguments, "dd", &one, &other)) return NULL;
    return PyFloat_FromDouble(one * other);
}}

static PyMethodDef methods[] = {{{{"times", times, METH_VARARGS, ""}}, {{NULL, NULL, 0, NULL}}}};
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "{module}", "", -1, methods}};
PyMODINIT_FUNC PyInit_{module}(void) {{ return PyModule_Create(&module); }}
"""


def compiled(name: str, version: str = "1.0") -> dict[str, str]:
    """Give the sources of an extension module in C."""
    module = name.replace("-", "_")
    return {
        "pyproject.toml": SETUPTOOLS.format(name=name, version=version, module=module),
        f"{module}.c": C.format(module=module),
    }


OWN_BACKEND = """\
import base64, hashlib, os, zipfile

NAME, VERSION = "{name}", "{version}"


def get_requires_for_build_wheel(settings=None):
    return {requires}


def build_wheel(folder, settings=None, metadata=None):
    {before}
    info = NAME + "-" + VERSION + ".dist-info/"
    files = {{
        NAME + ".py": "BUILT_BY = " + repr(os.getuid()) + "\\n",
        info + "METADATA": f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    rows = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        rows += path + ",sha256=" + digest.rstrip("=") + "," + str(len(text)) + "\\n"
    files[info + "RECORD"] = rows + info + "RECORD,,\\n"
    file = NAME + "-" + VERSION + "-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, file), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(zipfile.ZipInfo(path), text)
    return file
"""


def own_backend(
    name: str, version: str = "1.0", before: str = "pass", requires: str = "[]"
) -> dict[str, str]:
    """Give sources that bring their own backend, which does something before it builds."""
    system = '[build-system]\nrequires = []\nbuild-backend = "made"\nbackend-path = ["."]\n'
    made = OWN_BACKEND.format(name=name, version=version, before=before, requires=requires)
    return {"pyproject.toml": system, "made.py": made}
