"""Shared by the tests of registries: a certificate, and somebody between client and registry."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from registries import Between, Certificate, Meddle, Running, Start, running, serving


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(folder / "key.pem", folder / "chain.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return made


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
