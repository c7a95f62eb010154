"""What memory is left is the least of what anybody leaves, and what does not fit is refused."""

import resource

import pytest

from featurestore import memory
from featurestore.errors import DataError

GB = 10**9


@pytest.fixture
def machine(tmp_path):
    """A machine of 64 GB in files, of which 40 are available, without any limit."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  62500000 kB\nMemAvailable:  39062500 kB\nHugePages_Total:  0\n")
    (tmp_path / "proc/self/statm").write_text("1000 1 1 1 0 1 0\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    return tmp_path


def group(folder, limit, used, cached, *, version=2):
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), 2: ("memory.max", "memory.current", "")}
    limit_file, used_file, prefix = names[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / used_file).write_text(f"{used}\n")
    stat = f"anon 5\n{prefix}inactive_file {cached // 4}\n{prefix}active_file {cached - cached // 4}\n"
    (folder / "memory.stat").write_text(stat)


def available(machine):
    return memory.available_bytes(machine / "proc", machine / "groups")


def test_the_system_says_what_is_available(machine):
    assert available(machine) == 40 * GB


def test_the_limit_of_a_container_counts_and_its_cached_files_are_free(machine):
    group(machine / "groups", 16 * GB, 12 * GB, 8 * GB)
    assert available(machine) == 12 * GB
    group(machine / "groups", "max", 12 * GB, 8 * GB)
    assert available(machine) == 40 * GB


def test_the_limit_of_a_parent_group_counts(machine):
    (machine / "proc/self/cgroup").write_text("0::/slurm/job_1/step_0/task_0\n")
    group(machine / "groups/slurm/job_1/step_0/task_0", "max", GB, 0)
    group(machine / "groups/slurm/job_1", 10 * GB, 3 * GB, 0)
    assert available(machine) == 7 * GB


@pytest.mark.parametrize("path", ["/slurm/uid_0/job_1", "/docker/not-seen-from-inside"])
def test_groups_of_version_1_count(machine, path):
    (machine / "proc/self/cgroup").write_text(f"5:devices:/\n4:cpu,memory:{path}\n0::/\n")
    group(machine / "groups/memory", 9223372036854771712, 3 * GB, 0, version=1)
    assert available(machine) == 40 * GB
    group(machine / "groups/memory/slurm/uid_0/job_1", 8 * GB, 3 * GB, 1 * GB, version=1)
    assert available(machine) == (6 if "slurm" in path else 40) * GB


def test_ulimit_counts(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10**7, 10**7))
    monkeypatch.setattr(memory.os, "sysconf", lambda name: 4096)
    assert available(machine) == 10**7 - 1000 * 4096


def test_nothing_known_refuses_nothing(tmp_path):
    assert memory.available_bytes(tmp_path, tmp_path) is None
    memory.require(10**18, "it", "Do not.", available=lambda: None)


def test_what_does_not_fit_is_refused():
    memory.require(94 * GB, "it", "Do not.", available=lambda: 100 * GB)
    with pytest.raises(DataError, match=r"^it takes 96\.0 GB and 100\.0 GB of memory are free\. Do not\.$"):
        memory.require(96 * GB, "it", "Do not.", available=lambda: 100 * GB)


def test_this_machine_has_some():
    assert (memory.available_bytes() or GB) > 10**7
