"""What a run takes, and where it was made."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from metamed import machine

CPU = SimpleNamespace(type="cpu")


def test_seconds_are_those_of_the_processor():
    meter = machine.Meter(CPU)
    hashlib.sha256(bytes(50_000_000)).digest()
    assert 0 < meter.seconds < 10


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not forget peaks here")
def test_peak_memory_is_that_of_this_run():
    large = np.ones(60_000_000)  # 458 MiB
    del large
    meter = machine.Meter(CPU)
    before = int(meter.read()["peak_memory_mb"])
    kept = np.ones(20_000_000)  # 153 MiB
    grown = int(meter.read()["peak_memory_mb"]) - before
    assert 100 < grown < 300 and len(kept)


def test_energy_is_read_of_whole_packages(tmp_path):
    for name, joules in (("intel-rapl:0", 5), ("intel-rapl:0:0", 3), ("intel-rapl:1", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(joules * 1_000_000))
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("unreadable")
    assert dict(machine._package_joules(tmp_path)) == {"intel-rapl:0": 5.0}


def test_energy_is_what_was_spent_meanwhile_and_absent_where_unknown(monkeypatch):
    readings = iter([{"a": 10.0, "b": 1.0}, {"a": 14.5, "b": 1.5}])
    monkeypatch.setattr(machine, "_package_joules", lambda: next(readings).items())
    found = machine.Meter(CPU).read()
    assert found["energy_j"] == "5.0" and found["energy_of"] == "a b"
    monkeypatch.setattr(machine, "_package_joules", dict)
    assert "energy_j" not in machine.Meter(CPU).read()


def test_the_environment_of_a_run():
    found = machine.environment(CPU)
    assert {"device", "hardware", "cores", "threads", "system", "python", "metamed", "torch", "numpy"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())
    if Path("/proc/cpuinfo").exists() and "model name" in Path("/proc/cpuinfo").read_text():
        assert found["hardware"] in Path("/proc/cpuinfo").read_text()
