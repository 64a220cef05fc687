"""Shared by the tests of registries: a certificate, and somebody between client and registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from registries import Between, Certificate, Meddle, Running, Start, certified, running, serving


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certified(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def between(tmp_path: Path, certificate: Certificate) -> Iterator[Start]:
    """Give a registry that is reached through somebody who meddles."""
    with (
        running(tmp_path / "behind", certificate, {}, tls=False) as registry,
        contextlib.ExitStack() as stack,
    ):

        def start(meddle: Meddle) -> tuple[Running, Between]:
            server = Between(registry, certificate, meddle)
            stack.enter_context(serving(server))
            address = f"127.0.0.1:{server.server_port}"
            return Running(address, registry.folder, certificate), server

        yield start
