import dataclasses
import hashlib

import pytest

from {{ cookiecutter.package_name }} import registry, settings

OTHERS = "sha256 = '00'\nsource = 'a book'\nlicense = 'CC0-1.0'\n"


@pytest.fixture
def entry(tmp_path):
    """A registered file, and a copy of it where it can be fetched from."""
    (tmp_path / "there").mkdir()
    source = tmp_path / "there" / "table.csv"
    source.write_bytes(b"a,b\n1,2\n")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return registry.Entry(tmp_path / "here" / "table.csv", digest, "a book", "CC0-1.0")


def test_the_data_are_what_the_registry_says(quick):
    entry = registry.entry(quick.data.name)
    assert registry.fetch(entry) == entry.path
    assert entry.license


def test_an_altered_file_is_refused_and_left_alone(entry):
    entry.path.parent.mkdir()
    entry.path.write_bytes(b"a,b\n1,3\n")
    with pytest.raises(registry.RegistryError, match="not the file it should be"):
        registry.fetch(entry)
    assert entry.path.read_bytes() == b"a,b\n1,3\n"


def test_a_missing_file_is_named_with_its_source(entry):
    with pytest.raises(registry.RegistryError, match=r"table\.csv is missing: get it from a book"):
        registry.fetch(entry)


@pytest.fixture
def served(entry, httpserver_folder):
    return dataclasses.replace(entry, url=f"{httpserver_folder}/table.csv")


def test_a_file_with_an_address_is_fetched(served):
    assert registry.fetch(served).read_bytes() == b"a,b\n1,2\n"


def test_a_fetched_file_with_another_digest_is_refused_and_not_kept(served):
    wrong = dataclasses.replace(served, sha256="0" * 64)
    with pytest.raises(registry.RegistryError, match="could not be fetched"):
        registry.fetch(wrong)
    assert not wrong.path.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"no table \[made\]"),
        ("[made]\nfile = 'x'\n", "lacks 'sha256'"),
        ("[made", "Expected"),
        (f"[made]\nfile = '../x'\n{OTHERS}", "is no path inside"),
        (f"[made]\nfile = '/x'\n{OTHERS}", "is no path inside"),
    ],
)
def test_a_mistake_in_the_registry_is_named(tmp_path, text, said):
    (tmp_path / "registry.toml").write_text(text)
    with pytest.raises(registry.RegistryError, match=said):
        registry.entry("made", tmp_path)


def test_a_missing_registry_is_named(tmp_path):
    with pytest.raises(registry.RegistryError, match="is missing"):
        registry.entry("model", tmp_path)


def test_raw_data_are_under_the_folder_for_raw_data(quick):
    path = registry.entry(quick.data.name).path
    assert path.parent == settings.ROOT / "data" / "raw"
