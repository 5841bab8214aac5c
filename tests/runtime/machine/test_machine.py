"""Processor, memory, clocks, throttling and Jetson, from the texts that kernels and programs print."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import pytest

from clipedge.backends.cpu import has_vnni
from clipedge.machine.clocks import read_clocks
from clipedge.machine.describe import describe_machine
from clipedge.machine.files import text_of
from clipedge.machine.jetson import PowerMode, parse_nvpmodel, parse_release, read_jetson
from clipedge.machine.memory import parse_meminfo, peak_memory_mb
from clipedge.machine.processor import parse_cpuinfo
from clipedge.machine.throttling import read_throttling, throttled_between

ORIN_CPUINFO = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_arm_processor_is_named_by_its_part() -> None:
    found = parse_cpuinfo(ORIN_CPUINFO * 8, "aarch64", 8)
    assert (found.name, found.cores) == ("Cortex-A78AE", 8)
    assert found.features == {"dot product": True, "i8mm": False, "SVE": False, "half precision": True}


def test_unknown_and_mixed_cores_are_named_by_number() -> None:
    tx2 = "CPU implementer\t: 0x4e\nCPU part\t: 0x003\n\nCPU implementer\t: 0x41\nCPU part\t: 0xd07\n"
    assert parse_cpuinfo(tx2, "aarch64", 6).name == "NVIDIA Denver and Cortex-A57"
    assert parse_cpuinfo(tx2.replace("0xd07", "0xfff"), "aarch64", 6).name.endswith("ARM implementer 0x41, part 0xfff")


def test_flags_of_x86_are_whole_words() -> None:
    text = "model name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu avx2 avx512_vnni_not\n"
    found = parse_cpuinfo(text, "x86_64", 2)
    assert found.name == "Some CPU @ 2.0GHz"
    assert found.features == {"AVX2": True, "AVX-512": False, "VNNI": False, "AMX INT8": False}
    assert parse_cpuinfo("", "riscv64", 4).features == {}


@pytest.mark.skipif(platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="x86 on Linux")
def test_this_machine_is_described_as_the_backends_see_it() -> None:
    machine = describe_machine()
    assert machine.processor.features["VNNI"] == has_vnni()
    assert machine.processor.cores == len(os.sched_getaffinity(0))
    assert machine.memory is not None
    assert machine.memory.total_mb == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)
    assert 0 < machine.memory.available_mb < machine.memory.total_mb


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it")
def test_the_peak_is_that_of_this_process() -> None:
    before = peak_memory_mb()
    block = bytearray(64 * 2**20)
    block[::4096] = b"\1" * len(block[::4096])
    after = peak_memory_mb()
    assert before is not None and after is not None
    assert after >= before
    # getrusage asks the same counter another way; a child's begins with its parent's, so it may only be higher
    assert after <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3 + 1


def test_memory_that_is_not_told() -> None:
    assert parse_meminfo("MemTotal:       24684096 kB\n") is None
    found = parse_meminfo("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\nHugePages_Total:       0\n")
    assert found is not None
    assert (found.total_mb, found.available_mb, found.swap_mb) == (1.024, 0.512, 0.0)


def test_clocks_of_an_orin(tmp_path: Path) -> None:
    cpu = {"scaling_cur_freq": "729600\n", "scaling_max_freq": "1510400\n", "scaling_governor": "schedutil\n"}
    files = {f"sys/devices/system/cpu/cpu{i}/cpufreq/{name}": text for i in range(6) for name, text in cpu.items()}
    files["sys/devices/system/cpu/cpu5/cpufreq/scaling_max_freq"] = "1984000\n"
    files |= {
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
        "sys/class/devfreq/17000000.gpu/max_freq": "624750000",
    }
    files |= {"sys/class/devfreq/15340000.vic/cur_freq": "729600000"}
    found = read_clocks(write(tmp_path, files))
    assert (found.cpu, found.cpu_max, found.governor) == (729.6, 1984.0, "schedutil")
    assert (found.gpu, found.gpu_max) == (306.0, 624.75)


@pytest.mark.parametrize("name", ["57000000.gpu", "17000000.gv11b", "17000000.ga10b", "gpu-gpc-0"])
def test_the_gpu_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    assert read_clocks(write(tmp_path, {f"sys/class/devfreq/{name}/cur_freq": "114750000"})).gpu == 114.75


def test_without_cpufreq_the_clock_is_cpuinfos(tmp_path: Path) -> None:
    found = read_clocks(write(tmp_path, {"proc/cpuinfo": "cpu MHz\t\t: 2445.432\n\ncpu MHz\t\t: 2445.432\n"}))
    assert (found.cpu, found.cpu_max, found.governor, found.gpu) == (2445.432, None, None, None)
    assert read_clocks(tmp_path / "nothing").cpu is None


def test_throttling_is_a_counter_that_grew_or_an_alert_that_is_on(tmp_path: Path) -> None:
    cooling = "sys/class/thermal/cooling_device"
    write(
        tmp_path,
        {
            "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": "27390\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "4\n",
            f"{cooling}0/type": "pwm-fan\n",
            f"{cooling}0/cur_state": "3\n",
            f"{cooling}1/type": "gpu-throttle-alert\n",
            f"{cooling}1/cur_state": "0\n",
        },
    )
    before = read_throttling(tmp_path)
    assert throttled_between(before, before) == ()
    write(tmp_path, {"sys/class/hwmon/hwmon3/oc3_event_cnt": "27397\n", f"{cooling}1/cur_state": "1\n"})
    after = read_throttling(tmp_path)
    assert throttled_between(before, after) == ("soctherm_oc oc3_event_cnt grew by 7", "gpu-throttle-alert is on")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan", "36.4.3"),
        ("# R32 (release), REVISION: 7.6, GCID: 38171779, BOARD: t210ref, EABI: aarch64, DATE: Tue Nov  5", "32.7.6"),
        ("# R32 (release), REVISION: 5, GCID: 25531747, BOARD: t186ref, EABI: aarch64", "32.5"),
        ("not a release line", None),
    ],
)
def test_the_release_of_jetson_linux(text: str, expected: str | None) -> None:
    assert parse_release(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NV Power Mode: MAXN\n0\n", PowerMode("MAXN", 0)),
        ("NVPM VERB: Config file: /etc/nvpmodel.conf\nNV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n",
         PowerMode("MODE_15W_6CORE", 2)),
        ("NV Power Mode: 15W", PowerMode("15W", None)),
        ("NVPM ERROR: failed to read PARAM", None),
    ],
)  # fmt: skip
def test_the_power_mode(text: str, expected: PowerMode | None) -> None:
    assert parse_nvpmodel(text) == expected


def test_a_jetson_is_recognised_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no dpkg, no nvpmodel
    assert read_jetson(tmp_path) is None
    pi = write(tmp_path / "pi", {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert read_jetson(pi) is None
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    }
    found = read_jetson(write(tmp_path / "orin", files))
    assert found is not None
    assert (found.model, found.release, found.jetpack) == ("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "6")
    assert found.power_mode is None


def test_a_file_that_is_a_folder_or_no_text_is_no_error(tmp_path: Path) -> None:
    assert text_of(tmp_path) is None
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\0")
    assert text_of(tmp_path / "bytes") is not None
