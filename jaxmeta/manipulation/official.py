"""The official package beside ours: an interpreter of its own, asked over a pipe."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.source import DataError
from jaxmeta.manipulation.official_server import receive, send

VARIABLE = "JAXMETA_METAWORLD_PYTHON"
"""Names the interpreter of an environment that has the official package."""

VERSION = "3.1.1"
"""Of the official package; the goals of our suites are those that it draws."""

SERVER = Path(__file__).with_name("official_server.py")


class OfficialError(DataError):
    """The official package is not there, or is another one."""

    def __init__(self, problem: str):
        super().__init__(
            f"{problem}; set {VARIABLE} to the interpreter of an environment that has "
            "the official package, which is made by `python3.11 -m venv mw && "
            f"mw/bin/pip install metaworld=={VERSION} packaging`."
        )


class Official:
    """The official package, running until the `with` block ends.

    Raises:
      OfficialError: where `JAXMETA_METAWORLD_PYTHON` names nothing that starts.
    """

    def __init__(self):
        self._interpreter = os.environ.get(VARIABLE, "")
        if not self._interpreter:
            raise OfficialError(f"{VARIABLE} is not set")
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed at exit
        try:
            self._process = subprocess.Popen(
                [self._interpreter, "-W", "ignore", str(SERVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                # Our files beside the server's must not hide what the package imports.
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        except OSError as error:
            self._complaints.close()
            raise OfficialError(
                f"{VARIABLE} names {self._interpreter}, which does not start "
                f"({error.strerror})"
            ) from error

    def __enter__(self) -> "Official":
        return self

    def __exit__(self, *failure: Any) -> None:
        if any(failure):
            self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def ask(self, question: str, **arrays: Any) -> dict[str, np.ndarray]:
        """The answer to one question.

        Args:
          question: a method of `official_server.Package`.
          arrays: its arguments.

        Raises:
          OfficialError: if it ends instead, with the last it said.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, question=question, **arrays)
            answer = receive(self._process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._process.wait()
            self._complaints.seek(0)
            said = self._complaints.read().decode(errors="replace").strip()
            raise OfficialError(
                f"{VARIABLE} names {self._interpreter}, which ends without an answer "
                f"({said.splitlines()[-1] if said else self._process.returncode})"
            )
        return answer


def check() -> None:
    """Starts the official package once and asks for its version.

    Raises:
      OfficialError: naming what is missing, and how to make an environment with it.
    """
    _check(os.environ.get(VARIABLE, ""))


@functools.cache
def _check(interpreter: str) -> None:
    with Official() as official:
        version = str(official.ask("version")["version"])
    if version != VERSION:
        raise OfficialError(f"{interpreter} has metaworld {version}, not {VERSION}")
