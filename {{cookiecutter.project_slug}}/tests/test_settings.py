import tomllib

import pytest

from {{ cookiecutter.package_name }} import settings

LIMITS = "[evaluation.thresholds]"
TEXT = (settings.ROOT / settings.FILE).read_text("utf-8")


def read(tmp_path, text, profile=""):
    (tmp_path / settings.FILE).write_text(text, "utf-8")
    return settings.read(profile, tmp_path)


def test_a_profile_changes_only_what_it_names():
    whole, quick = settings.read(), settings.read("quick")
    assert whole.digest != quick.digest
    assert quick.split.repeats == 1
    assert quick.task == whole.task


def test_comments_do_not_change_the_digest(tmp_path):
    assert read(tmp_path, f"# another comment\n{TEXT}").digest == settings.read().digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed = ", "seed = -1 #", "seed: "),
        ("seed = ", "sed = ", "seed: Field required"),
        ("[split]", "[split]\nheld_in = 1", "split.held_in: no such key"),
        ("optimise = ", "optimise = 'beauty' #", "beauty is no metric of a"),
        (LIMITS, LIMITS + "\nspeed = { max = 1 }", "speed is no metric of a"),
        (LIMITS, LIMITS + "\nspeed = { max = 1, min = 1 }", "speed: give min or max"),
        ("[data]", "[data]\nexamples = 'rows.csv'", "examples and examples_license go together"),
        ("held_out = ", "held_out = 0.4 #", "the nearest to 0.4 is 0.5"),
        ("target = ", "target = 3 #", "task.target: "),
        ("numeric = [", "numeric = ['no', 'no', ", "name at least one column, none twice"),
        ("[split]", "[split", "Expected"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path, old, new, said):
    assert old in TEXT
    with pytest.raises(settings.SettingsError) as error:
        read(tmp_path, TEXT.replace(old, new, 1))
    assert said in str(error.value)
    assert settings.FILE in str(error.value)


def test_a_profile_that_is_not_there_is_named(tmp_path):
    with pytest.raises(settings.SettingsError, match=r"no \[profiles\.slow\]"):
        read(tmp_path, TEXT, "slow")


def test_missing_settings_are_named(tmp_path):
    with pytest.raises(settings.SettingsError, match="is missing"):
        settings.read(root=tmp_path)


def test_every_parameter_of_the_model_stands_in_the_settings():
    assert set(tomllib.loads(TEXT)["model"]) == set(settings.Parameters.model_fields)
