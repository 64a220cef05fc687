"""The street: data flows one way, and no module imports what stands above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "packager"
FLOORS = [
    ["errors", "reporter", "formats", "files", "inside", "leases", "aside", "runtime"],
    [
        *("net", "pip", "git", "store", "downloads", "project", "settings"),
        *("reference", "registry", "registry_login"),
    ],
    ["lock"],
    ["layers"],
    ["image"],
    ["outputs"],
    [
        *("smoke", "proof", "info", "init", "locking", "claims", "assembling", "provenance"),
        *(
            "delivering",
            "build",
            "unchanged",
            "foreseen",
            "dockerfile",
            "sources",
            "verify",
            "diff",
        ),
        *("cards", "markers", "metrics", "questions", "citation"),
        *("predicting", "rows", "serving", "basing", "exporting", "memory", "bundle"),
        *("indexing", "local_base", "attaching", "wheelwright"),
    ],
    ["console", "cli", "__main__"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "packager":
                found |= {alias.name for alias in node.names if alias.name in FLOOR_OF}
            elif node.module.startswith("packager."):
                found.add(node.module.split(".")[1])
    return found


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_imports_what_stands_above_it(path: Path) -> None:
    room = room_of(path)
    for other in imported_rooms(path):
        assert FLOOR_OF[other] <= FLOOR_OF[room], f"{room} imports {other}"


def test_the_runtime_imports_nothing_of_packager() -> None:
    for path in (SOURCE / "runtime" / "packager_runtime").glob("*.py"):
        assert "packager." not in path.read_text().replace("packager.json", "")


def test_only_the_engines_rooms_know_the_docker_sdk() -> None:
    users = {path.relative_to(SOURCE).as_posix() for path in FILES if "docker" in imports_of(path)}
    rooms = ("builder", "containers", "engine", "finding", "sdk", "wire")
    # Where Docker keeps logins, the SDK knows best.
    assert users == {"registry_login.py", *(f"outputs/{room}.py" for room in rooms)}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("packager.cli", {"docker", "rich", "pydantic", "requests"}),
        ("packager.outputs.engine", {"docker", "pydantic", "requests"}),
    ],
)
def test_what_is_to_be_quick_imports_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
    )
    assert not heavy & set(run.stdout.split())
