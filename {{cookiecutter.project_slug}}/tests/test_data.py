import dataclasses

import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package_name }} import data, registry


def groups(part, settings):
    return set(map(tuple, part[list(settings.split.groups)].to_numpy())) - {()}


def changed(settings, table, **values):
    """The settings with other values in one of their tables."""
    part = getattr(settings, table).model_copy(update=values)
    return settings.model_copy(update={table: part})


def test_no_group_is_on_both_sides_of_the_split(table, quick):
    training, held_out = data.split(table, quick)
    assert len(training) + len(held_out) == len(table)
    assert not groups(training, quick) & groups(held_out, quick)
    assert data.leakage(training, held_out, quick)["shared_groups"] == 0


def test_about_the_part_that_the_settings_say_is_held_out(table, quick):
    _, held_out = data.split(table, quick)
    assert abs(len(held_out) / len(table) - quick.split.held_out) < 0.06


def test_without_groups_rows_of_one_group_are_torn_apart_and_counted(table, quick):
    if not quick.split.groups:
        pytest.skip("these data have no groups")
    loose = changed(quick, "split", groups=())
    training, held_out = data.split(table, loose)
    assert data.leakage(training, held_out, quick)["shared_groups"] > 0


def test_a_row_that_stands_on_both_sides_is_counted(table, quick):
    training, held_out = data.split(table, quick)
    before = data.leakage(training, held_out, quick)["duplicate_rows"]
    leaked = pd.concat([held_out, training.head(1)], ignore_index=True)
    assert data.leakage(training, leaked, quick)["duplicate_rows"] == before + 1


def test_folds_measure_every_row_once_a_repetition(table, quick):
    twice = changed(quick, "split", repeats=2, folds=3)
    found = list(data.folds(table, twice))
    assert [seed for seed, *_ in found] == [quick.seed] * 3 + [quick.seed + 1] * 3
    assert sum(len(measured) for *_, measured in found) == 2 * len(table)


def test_another_seed_gives_another_split(table, quick):
    other = quick.model_copy(update={"seed": quick.seed + 1})
    assert not data.split(table, quick)[1].equals(data.split(table, other)[1])


def test_a_column_that_is_not_there_is_named(quick):
    with pytest.raises(data.DataError, match=r"names nowhere; dataset\.clean gives "):
        data.load(changed(quick, "evaluation", by=("nowhere",)))


def test_a_target_that_cannot_be_is_named(table, quick, monkeypatch):
    target = quick.task.target
    if quick.task.classes:
        wrong = changed(quick, "task", classes=quick.task.classes[1:])
        said = "which task.classes in experiment.toml does not name"
    else:
        monkeypatch.setattr(data.dataset, "clean", lambda _: table.assign(**{target: "no number"}))
        wrong, said = quick, "no finite number"
    with pytest.raises(data.DataError, match=said):
        data.load(wrong)


def test_more_parts_than_groups_are_refused(table, quick):
    with pytest.raises(data.DataError, match="cannot be split"):
        list(data.folds(table.head(3), changed(quick, "split", folds=4)))


def test_targets_are_positions_or_values(table, quick):
    found = data.targets(table, quick)
    if quick.task.classes:
        names = np.array(quick.task.classes)[found]
        assert (names == table[quick.task.target]).all()
    else:
        assert (found == table[quick.task.target]).all()


def test_the_data_command_writes_both_parts(quick, monkeypatch, tmp_path):
    entry = registry.entry(quick.data.name)
    monkeypatch.setattr(registry, "entry", lambda name, folder: dataclasses.replace(entry))
    monkeypatch.setattr(data, "ROOT", tmp_path)
    data.main()
    written = {path.name: len(pd.read_csv(path)) for path in tmp_path.rglob("*.csv")}
    interim = written.pop(f"{quick.data.name}.csv")
    assert set(written) == {"training.csv", "held_out.csv"}
    assert sum(written.values()) == interim
