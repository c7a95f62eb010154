"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest

from featurestore.store import Store, open_store

# As cli.main does, for this process and those that tests start: torch's threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _no_weights_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither see nor touch the notes on weights of whoever runs them, nor the hub."""
    monkeypatch.setenv("RADFS_WEIGHTS", str(tmp_path / "weights-notes"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return open_store(tmp_path / "store", create=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real radiographs, from $RADFS_TEST_DATA or beside the checkout."""
    folder = Path(os.environ.get("RADFS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "nih-cxr14-64px" / "records.csv").is_file():
        pytest.skip("no real data: set RADFS_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def openi_wheel() -> Path:
    """The wheel of torchxrayvision, which holds real reports: `pip download --no-deps torchxrayvision==1.5.7`."""
    path = Path(os.environ.get("RADFS_OPENI_WHEEL", ""))
    if not path.is_file():
        pytest.skip("no OpenI reports: set RADFS_OPENI_WHEEL to the wheel of torchxrayvision 1.5.7")
    return path
