"""Configs are found and described without being run, and mistakes are helped."""

import pytest

from jaxmeta import Experiment
from jaxmeta.core import catalogue
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.table import Table
from jaxmeta.data.source import DataError

CONFIG = '''\
"""What it is, in a line.

And more.
"""

PAPER = "Somebody 2020"
COST = "a minute"


def get_config():
    return 1
'''


@pytest.fixture
def write(tmp_path):
    def write(text, name="my_config.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_config_says_what_it_is(write):
    entry = catalogue.describe(write(CONFIG))
    assert entry.name == "my-config"
    assert entry.kind == "experiment"
    assert entry.what == "What it is, in a line."
    assert (entry.paper, entry.cost) == ("Somebody 2020", "a minute")


def test_describing_does_not_run(write):
    entry = catalogue.describe(write(CONFIG + "\nraise SystemExit(1)\n"))
    assert entry.kind == "experiment"


def test_a_config_that_says_nothing_is_described_as_such(write):
    entry = catalogue.describe(write("def get_table(quick): ...\n"))
    assert (entry.kind, entry.what, entry.paper, entry.cost) == ("table", "", "", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "cannot be read as a config"),
        ("x = 1\n", "defines neither get_config"),
        ("\0", "cannot be read as a config"),
        ("class C:\n    def get_config(self): ...\n", "defines neither"),
    ],
)
def test_what_is_no_config_is_refused(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=message) as caught:
        catalogue.describe(path)
    assert path.name in str(caught.value)


def test_bytes_that_are_no_text_are_refused(write, tmp_path):
    path = tmp_path / "binary.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as a config"):
        catalogue.describe(path)


def test_shipped_configs_all_describe_themselves():
    entries = catalogue.entries()
    assert {"msr-translation", "msr-rotation", "maml-omniglot"} <= {
        entry.name for entry in entries
    }
    for entry in entries:
        assert entry.what, entry.name
        assert entry.paper, entry.name
        assert entry.cost, entry.name


def test_names_may_be_written_with_underscores():
    assert catalogue.find("msr_translation", "table").name == "msr-translation"


def test_a_near_miss_is_suggested():
    with pytest.raises(ValueError, match="did you mean 'msr-translation'"):
        catalogue.find("msr-translaton", "table")


def test_what_resembles_nothing_gets_the_list():
    with pytest.raises(ValueError, match=r"known: .*maml-omniglot") as caught:
        catalogue.find("zzzz", "experiment")
    assert "msr-translation" not in str(caught.value)


def test_the_other_kind_gets_the_right_command():
    with pytest.raises(ValueError, match=r"is a table; use `jaxmeta reproduce msr"):
        catalogue.find("msr-translation", "experiment")
    with pytest.raises(ValueError, match=r"is an experiment; use `jaxmeta train maml"):
        catalogue.find("maml-omniglot", "table")


def test_a_path_is_found(write):
    path = write(CONFIG)
    assert catalogue.find(str(path), "experiment").path == path


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no config file nowhere/x.py"):
        catalogue.find("nowhere/x.py", "experiment")


def test_a_config_that_fails_is_named_with_its_error(write):
    entry = catalogue.describe(write(CONFIG + "\nraise RuntimeError('no luck')\n"))
    with pytest.raises(ValueError, match=r"my_config.py fails.*RuntimeError: no luck"):
        catalogue.load(entry)


def test_a_config_may_define_dataclasses_with_postponed_annotations(write):
    text = """
from __future__ import annotations
import dataclasses

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine:
    size: int = 3

def get_config():
    return Mine()
"""
    module = catalogue.load(catalogue.describe(write(text)))
    assert module.get_config().size == 3


def test_a_config_hides_no_module_of_its_name(write):
    catalogue.load(catalogue.describe(write(CONFIG, "json.py")))
    import json

    assert json.loads("1") == 1


@pytest.mark.parametrize(
    "entry",
    [entry for entry in catalogue.entries() if entry.kind == "experiment"],
    ids=lambda entry: entry.name,
)
def test_shipped_experiments_load(entry):
    assert isinstance(catalogue.load(entry).get_config(), Experiment | Procedure)


TABLES = pytest.mark.parametrize(
    "entry",
    [entry for entry in catalogue.entries() if entry.kind == "table"],
    ids=lambda entry: entry.name,
)


@TABLES
def test_shipped_tables_load_and_their_cells_are_distinct(entry):
    module = catalogue.load(entry)
    for quick in (True, False):
        table = module.get_table(quick)
        assert isinstance(table, Table)
        names = [(cell.row, cell.column) for cell in table.cells]
        assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match="there is no row 'nothing'; the rows are"):
        table.check_rows(["nothing"])
    table.check_rows(table.rows())


@TABLES
def test_the_cells_of_shipped_tables_are_experiments(entry):
    module = catalogue.load(entry)
    for quick in (True, False):
        for cell in module.get_table(quick).cells:
            try:
                experiment = cell.experiment(0)
            except DataError as error:
                pytest.skip(f"no data: {error}")
            assert isinstance(experiment, Experiment | Procedure)
