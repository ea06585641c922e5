"""A run directory belongs to one configuration."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest

from jaxmeta.core.run import Run, cpu_seconds, read_json, write_json


@pytest.fixture
def experiment(small_experiment):
    return small_experiment()


def test_a_new_directory_gets_the_configuration(tmp_path, experiment):
    run = Run.open(tmp_path / "a" / "b", experiment)
    assert read_json(run.config_path)["steps"] == 8
    assert not run.finished


def test_loading_gives_the_experiment_back(tmp_path, experiment):
    Run.open(tmp_path / "run", experiment)
    run = Run.load(tmp_path / "run")
    assert run.experiment == experiment
    assert run.directory == tmp_path / "run"


def test_the_same_configuration_opens_again(tmp_path, experiment):
    Run.open(tmp_path, experiment)
    assert Run.open(tmp_path, experiment).experiment == experiment


def test_a_field_that_has_been_added_since_has_its_default(tmp_path, experiment):
    run = Run.open(tmp_path, experiment)
    config = read_json(run.config_path)
    del config["parallel"]["deterministic"], config["max_skips"]
    write_json(run.config_path, config)
    assert Run.open(tmp_path, experiment).experiment == experiment
    with pytest.raises(ValueError, match=r"\(max_skips: 1 here, 2 there\)"):
        Run.open(tmp_path, dataclasses.replace(experiment, max_skips=1))


def test_another_configuration_is_refused_and_the_field_named(tmp_path, experiment):
    run = Run.open(tmp_path, experiment)
    before = run.config_path.read_bytes()
    other = dataclasses.replace(experiment, seed=5)
    with pytest.raises(ValueError, match=r"\(seed: 5 here, 0 there\); choose another"):
        Run.open(tmp_path, other)
    assert run.config_path.read_bytes() == before


def test_checkpoints_of_nobody_knows_whom_are_refused(tmp_path, experiment):
    run = Run.open(tmp_path, experiment)
    run.config_path.unlink()
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"checkpoints and no config.json .*choose"):
        Run.open(tmp_path, experiment)


def test_many_differences_are_counted(tmp_path, experiment):
    Run.open(tmp_path, experiment)
    optimizer = dataclasses.replace(experiment.optimizer, learning_rate=0.5)
    other = dataclasses.replace(experiment, seed=5, steps=16, optimizer=optimizer)
    with pytest.raises(
        ValueError,
        match=r"\(optimizer.learning_rate: 0.5 here, 0.05 there, and 2 more\)",
    ):
        Run.open(tmp_path, other)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path, experiment):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ValueError, match="choose another --run-dir"):
        Run.open(path, experiment)
    with pytest.raises(ValueError, match="choose another --run-dir"):
        Run.open(path / "below", experiment)
    assert path.read_text() == "precious"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run directory"):
        Run.load(tmp_path)
    with pytest.raises(ValueError, match="is not a run directory"):
        Run.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", "null", "3", '{"a": 1}', '{"class": 1}', '{"class": "os:x"}'],
)
def test_a_damaged_configuration_is_an_error_in_words(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - the message differs, not the type
        Run.load(tmp_path)


def test_a_configuration_of_something_else_is_refused(tmp_path):
    value = {"class": "jaxmeta.core.parallel:Parallel", "backend": "vmap"}
    write_json(tmp_path / "config.json", value)
    with pytest.raises(ValueError, match="does not describe an experiment"):
        Run.load(tmp_path)


def test_write_json_is_atomic(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_read_json_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"gone.json .*cannot be read"):
        read_json(tmp_path / "gone.json")


def test_the_card_adds_up_over_starts(tmp_path, experiment):
    run = Run.open(tmp_path, experiment)
    write = run.keep_card()
    at_once = read_json(tmp_path / "card.json")
    time.sleep(0.05)
    write()
    first = read_json(tmp_path / "card.json")
    assert (at_once["starts"], first["starts"]) == (1, 1)
    assert at_once["wall_seconds"] + 0.05 <= first["wall_seconds"]
    run.keep_card()
    card = read_json(tmp_path / "card.json")
    assert card["starts"] == 2
    assert card["wall_seconds"] >= first["wall_seconds"]
    assert card["cpu_seconds"] >= first["cpu_seconds"]
    assert card["config"] == json.loads(run.config_path.read_text())
    assert card["seed"] == 0
    assert card["hardware"]["devices"] == 4
    assert {"python", "jax", "jaxmeta", "orbax-checkpoint"} <= card["versions"].keys()
    assert len(card["config_hash"]) == 12


def test_processor_time_of_other_processes_counts():
    before, own = cpu_seconds(), time.process_time()
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    own = time.process_time() - own
    assert cpu_seconds() - before - own > 0.25
