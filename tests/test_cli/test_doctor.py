"""The doctor finds what would go wrong later, and says what to do."""

import pytest

from cli import doctor
from featurestore.store import open_store


def states(findings):
    return [state for state, _ in findings]


def test_a_foreign_owner_of_a_package_name_is_found():
    owners = {"cli": ["radfs", "someone-elses-cli"], "heads": ["radfs"], "featurestore": ["radfs", "radfs"]}
    ((state, text),) = doctor.check_names(owners)
    assert state == "FAIL"
    assert "package cli is also installed by someone-elses-cli" in text
    assert states(doctor.check_names({"cli": ["radfs"]})) == ["ok"]


def test_a_missing_library_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "_LIBRARIES", ("torch", "no-such-library"))
    findings = list(doctor.check_libraries())
    assert findings[0] == ("FAIL", "no-such-library is not installed: pip install radfs")


@pytest.mark.parametrize(
    ("damage", "state", "message"),
    [
        (lambda root: None, "ok", "free on its disk"),
        (lambda root: (root / "radfs.json").write_text('{"format": 99}'), "FAIL", "has format 99"),
        (lambda root: root.chmod(0o755), "warn", "chmod 700"),
    ],
)
def test_the_store_is_looked_at(tmp_path, damage, state, message):
    root = open_store(tmp_path / "s", create=True).root
    damage(root)
    findings = [f for f in doctor.check_store(root) if f[0] == state]
    assert any(message in text for _, text in findings)


def test_no_store_is_fine(tmp_path):
    assert states(doctor.check_store(tmp_path / "none")) == ["ok"]
