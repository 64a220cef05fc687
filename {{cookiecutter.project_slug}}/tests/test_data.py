import pytest

from {{ cookiecutter.package_name }} import data


@pytest.fixture(scope="module")
def table():
    return data.load()


def birds(part):
    return set(zip(part["species"], part["individual"], strict=True))


def test_rows_without_measurements_go_and_rows_without_sex_stay(table):
    assert len(table) == 342
    assert table.drop(columns="sex").notna().all(axis=None)
    assert table["sex"].isna().sum() == 9
    assert set(table["sex"].dropna()) == {"FEMALE", "MALE"}


def test_species_have_their_common_names(table):
    assert table["species"].value_counts().to_dict() == {
        "Adelie": 151,
        "Gentoo": 123,
        "Chinstrap": 68,
    }


def test_no_bird_is_on_both_sides_of_the_split(table):
    training, held_out = data.split(table)
    assert len(training) + len(held_out) == len(table)
    assert not birds(training) & birds(held_out)


def test_the_split_holds_out_every_species(table):
    _, held_out = data.split(table)
    assert set(held_out["species"]) == set(table["species"])
    assert 0.15 < len(held_out) / len(table) < 0.25


def test_an_altered_file_is_refused(altered_data):
    with pytest.raises(data.DataError, match="not the file it should be"):
        data.load(altered_data)


def test_a_missing_file_is_named_with_its_source(altered_data):
    (altered_data / "penguins.csv").unlink()
    with pytest.raises(data.DataError, match=r"penguins\.csv is missing: get it from https"):
        data.load(altered_data)
