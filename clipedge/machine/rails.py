"""Power rails of a Jetson, which INA3221 monitors measure and sysfs shows.

JetPack 5 and later (the mainline driver ``ina3221``, Linux' Documentation/hwmon/ina3221.rst): of each channel N from 1
to 3, ``inN_label``, ``inN_input`` in mV and ``currN_input`` in mA below ``/sys/class/hwmon/hwmon*``. JetPack 4
(``ina3221x``; NVIDIA's Jetson Linux Developer Guide, "Software-Based Power Consumption Modeling"): of each channel N
from 0 to 2, ``rail_name_N`` and ``in_powerN_input`` in mW below ``/sys/bus/i2c/drivers/ina3221x/*/iio:device*``.
None of this has been read on a board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipedge.machine.files import number_in, text_of

__all__ = ["Rail", "find_rails", "input_rails", "read_rails"]

# The rails that make up what the module draws, as the library energymon adds them up
# (github.com/energymon/energymon, jetson/README.md): those that lie behind another must not be added to it.
INPUTS = (
    ("VDD_IN",),  # Orin NX, Orin Nano, Xavier NX, TX2: the module's input
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)


@dataclass(frozen=True)
class Rail:
    """``files`` are one with milliwatts, or two whose product is: millivolts and milliamperes."""

    name: str
    files: tuple[Path, ...]


def find_rails(root: Path = Path("/")) -> tuple[Rail, ...]:
    """The rails of this machine; none without such monitors. Channels that are not connected ("NC") are left out."""
    found: list[tuple[str | None, tuple[Path, ...]]] = []
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if text_of(monitor / "name") == "ina3221":
            for channel in (1, 2, 3):
                files = (monitor / f"in{channel}_input", monitor / f"curr{channel}_input")
                found.append((text_of(monitor / f"in{channel}_label"), files))
    for monitor in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for channel in (0, 1, 2):
            found.append((text_of(monitor / f"rail_name_{channel}"), (monitor / f"in_power{channel}_input",)))
    return tuple(
        Rail(name, files) for name, files in found if name and name != "NC" and all(file.exists() for file in files)
    )


def read_rails(rails: tuple[Rail, ...]) -> dict[str, float]:
    """Watts by rail, now; a rail that does not answer is left out."""
    watts = {}
    for rail in rails:
        numbers = [number_in(file) for file in rail.files]
        if len(numbers) == 1 and numbers[0] is not None:
            watts[rail.name] = numbers[0] / 1e3
        elif len(numbers) == 2 and numbers[0] is not None and numbers[1] is not None:
            watts[rail.name] = numbers[0] * numbers[1] / 1e6
    return watts


def input_rails(rails: Mapping[str, float]) -> tuple[str, ...]:
    """Which of these rails add up to what the module draws; empty if this is not known for such a board."""
    return next((names for names in INPUTS if set(names) <= rails.keys()), ())
