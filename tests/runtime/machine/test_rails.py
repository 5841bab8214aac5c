"""Power rails in sysfs, and what is recorded of them, on trees that have the drivers' form."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from clipedge.machine.power import mean_power, power_source, recorded_power
from clipedge.machine.rails import find_rails, input_rails, read_rails


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture
def orin_nx(tmp_path: Path) -> Path:
    """The mainline driver on an Orin NX: three rails, and a seventh voltage that is a sum of shunts."""
    names = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    files = {"name": "ina3221", "in7_label": "sum of shunt voltages", "in7_input": "9", "curr4_input": "5"}
    for channel, (name, millivolts, milliamperes) in enumerate(
        zip(names, (4984, 4984, 4992), (1856, 200, 400), strict=True), 1
    ):
        files |= {f"in{channel}_label": name, f"in{channel}_input": str(millivolts)}
        files |= {f"curr{channel}_input": str(milliamperes)}
    other = {"sys/class/hwmon/hwmon0/name": "tmp451", "sys/class/hwmon/hwmon0/in1_label": "VDD_IN"}
    return write(tmp_path, {f"sys/class/hwmon/hwmon1/{name}": text for name, text in files.items()} | other)


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """JetPack 4's driver on a Nano."""
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    rails = {"POM_5V_IN": 2875, "POM_5V_GPU": 40, "POM_5V_CPU": 819}
    files = {f"{folder}/rail_name_{i}": name for i, name in enumerate(rails)}
    return write(tmp_path, files | {f"{folder}/in_power{i}_input": str(mw) for i, mw in enumerate(rails.values())})


def test_the_mainline_driver(orin_nx: Path) -> None:
    watts = read_rails(find_rails(orin_nx))
    assert watts == pytest.approx({"VDD_IN": 4.984 * 1.856, "VDD_CPU_GPU_CV": 4.984 * 0.2, "VDD_SOC": 4.992 * 0.4})
    assert input_rails(watts) == ("VDD_IN",)


def test_jetpack_4s_driver(nano: Path) -> None:
    watts = read_rails(find_rails(nano))
    assert watts == {"POM_5V_IN": 2.875, "POM_5V_GPU": 0.04, "POM_5V_CPU": 0.819}
    assert input_rails(watts) == ("POM_5V_IN",)


def test_a_rail_that_is_not_connected_or_gone_is_left_out(nano: Path) -> None:
    folder = nano / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    (folder / "rail_name_1").write_text("NC\n")
    rails = find_rails(nano)
    assert [rail.name for rail in rails] == ["POM_5V_IN", "POM_5V_CPU"]
    (folder / "in_power2_input").write_text("")
    assert read_rails(rails) == {"POM_5V_IN": 2.875}


def test_a_machine_without_monitors_has_no_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_rails(tmp_path) == ()
    source = power_source(tmp_path)
    assert source is None
    with recorded_power(source) as samples:
        pass
    assert mean_power(source, samples) is None


def test_power_is_recorded_from_sysfs(orin_nx: Path) -> None:
    source = power_source(orin_nx)
    assert source is not None and source.name == "INA3221"
    with recorded_power(source) as samples:
        while len(samples) < 2:
            time.sleep(0.01)
    power = mean_power(source, samples)
    assert power is not None and power.samples == len(samples) >= 2
    assert power.total == pytest.approx(4.984 * 1.856)
    assert power.total_of == ("VDD_IN",)


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the program")
def test_power_is_recorded_from_tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    line = "RAM 1/2MB (lfb 1x4MB) CPU [1%@729] VDD_GPU_SOC {0}mW/1mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW"
    shell = f"echo starting\necho '{line.format(2340)}'\necho '{line.format(2360)}'\nexec sleep 0.3\n"
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "--interval 100" ] || exit 1\n{shell}')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    source = power_source(tmp_path)
    assert source is not None and source.name == "tegrastats"
    with recorded_power(source) as samples:
        while len(samples) < 2:
            time.sleep(0.01)
    power = mean_power(source, samples)
    assert power is not None and power.total == pytest.approx(2.35 + 0.39 + 4.025)


def test_rails_of_an_unknown_board_are_not_added_up() -> None:
    samples = [{"VDD_GPU": 2.0, "VIN": 9.0}, {"VDD_GPU": 4.0}]
    power = mean_power(power_source_named("INA3221"), samples)
    assert power is not None
    assert (power.rails, power.total, power.total_of) == ({"VDD_GPU": 3.0}, None, ())


def power_source_named(name: str):  # type: ignore[no-untyped-def]
    from clipedge.machine.power import PowerSource

    return PowerSource(name, lambda stop: iter(()))
