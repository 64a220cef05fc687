import tomllib

import pytest

from {{ cookiecutter.package_name }} import settings

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
        ("seed = 0", "seed = -1", "seed: "),
        ("seed = 0", "sed = 0", "seed: Field required"),
        ("[split]", "[split]\nheld_in = 1", "split.held_in: Extra inputs"),
        ("optimise = ", "optimise = 'beauty' #", "beauty is no metric of a"),
        ("latency_ms = {", "speed = {", "speed is no metric of a"),
        ("{ max = 10 }", "{ max = 10, min = 1 }", "size_mb: give min or max"),
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
