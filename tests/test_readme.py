"""What the README shows is what happens."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from jaxmeta import cli
from jaxmeta.core import catalogue

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BASH = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))


def test_python_example_runs():
    parser = doctest.DocTestParser()
    text = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    example = parser.get_doctest(text, {}, "README.md", "README.md", 0)
    assert example.examples
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0


def test_ci_runs_the_test_command():
    (command,) = re.findall(r"activate && (pip install -r .* && pytest)$", BASH, re.M)
    ci = (ROOT / ".ci" / "run").read_text()
    for part in command.split(" && "):
        assert re.search(rf"^{re.escape(part)}$", ci, re.M), part


@pytest.mark.parametrize("line", re.findall(r"^jaxmeta .*", BASH, re.M))
def test_commands_name_things_that_exist(line):
    _, command, *rest = shlex.split(line, comments=True)
    assert command in cli.COMMANDS
    if command in ("train", "reproduce"):
        kind = "experiment" if command == "train" else "table"
        assert catalogue.find(rest[0], kind).path.is_file()
