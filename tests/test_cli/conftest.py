"""Running commands in a folder of one's own, as a person would."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from featurestore.errors import RadfsError

from .study import BUILD, write_study

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """`run("info")` runs `radfs info` in an empty folder; fails the test on an exit code that was not expected."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RADFS_STORE", raising=False)

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments))
        if isinstance(result.exception, RadfsError):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def study(run, tmp_path) -> Run:
    """The same, with a small study whose cohort is built and extracted."""
    write_study(tmp_path)
    run(*BUILD)
    run("extract", "--backbone", "tiny")
    run("extract", "--backbone", "tiny-text")
    return run
