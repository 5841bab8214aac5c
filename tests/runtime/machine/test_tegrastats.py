"""tegrastats' lines as boards print them, each with where it was seen; none was made up."""

from __future__ import annotations

import pytest

from clipedge.machine.rails import input_rails
from clipedge.machine.tegrastats import parse_tegrastats

# Datadog's agent, pkg/collector/corechecks/nvidia/jetson, test of the check
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123"
)
TX2 = (
    "RAM 1345/7829MB (lfb 1290x4MB) SWAP 0/512MB (cached 0MB) CPU [2%@345,off,off,off,off,off] EMC_FREQ 13%@40 "
    "GR3D_FREQ 0%@114 APE 150 BCPU@35C MCPU@35C GPU@41C PLL@35C AO@35.5C Tboard@35C Tdiode@36C PMIC@100C thermal@35.5C "
    "VDD_IN 2003/2658 VDD_CPU 320/518 VDD_GPU 400/735 VDD_SOC 400/415 VDD_WIFI 0/0 VDD_DDR 240/348"
)
AGX_XAVIER = (
    "RAM 1903/15692MB (lfb 3251x4MB) CPU [1%@1190,1%@1190,2%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190] EMC_FREQ 0% "
    "GR3D_FREQ 0% AO@32.5C GPU@32C Tboard@32C Tdiode@34.75C AUX@31.5C CPU@33.5C thermal@32.9C PMIC@100C GPU 0/0 "
    "CPU 216/216 SOC 864/864 CV 0/0 VDDRQ 144/144 SYS5V 1889/1889"
)
# a Prometheus exporter's test, JetPack 4.6.1: IRAM too
NANO_IRAM = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) CPU [5%@1224,4%@1224,3%@1224,"
    "6%@1224] EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@37C CPU@40C PMIC@50C GPU@40C AO@45C thermal@40C "
    "POM_5V_IN 1750/1628 POM_5V_GPU 0/0 POM_5V_CPU 366/406"
)
# a collector's documentation, Xavier NX, JetPack 5: brackets around the GPU's clock
XAVIER_NX = (
    "RAM 2690/6854MB (lfb 6x1MB) SWAP 479/3427MB (cached 3MB) CPU [3%@1904,7%@1906,1%@1905,0%@1907,off,off] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 0%@[510] VIC_FREQ 601 APE 150 AUX@39C CPU@39.5C AO@37.5C GPU@37.5C PMIC@50C "
    "VDD_IN 5079mW/5079mW VDD_CPU_GPU_CV 696mW/696mW VDD_SOC 1104mW/1104mW"
)
# github.com/GDWR/jetson_exporter, issue 14, AGX Orin: sensors without power, rails that are not connected
AGX_ORIN = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,0%@729,0%@729,"
    "0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 "
    "CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C GPU@-256C tj@44.343C SOC1@41.25C "
    "CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
# a Go package's example, Orin Nano, JetPack 6: no clock of the GPU
ORIN_NANO = (
    "05-05-2025 06:05:39 RAM 2639/7620MB (lfb 9x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@729,4%@729,8%@729,4%@729,"
    "5%@729,4%@729] GR3D_FREQ 0% cpu@44.156C soc2@43.781C soc0@44.687C gpu@45.968C tj@45.968C soc1@45.312C "
    "VDD_IN 5263mW/5263mW VDD_CPU_GPU_CV 717mW/717mW VDD_SOC 1794mW/1794mW"
)
# an exporter's tests, AGX Orin, JetPack 7: two temperatures and three powers each
ORIN_JETPACK_7 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201,4%@2201,14%@2201,30%@2201,18%@2201,"
    "10%@2201,10%@2201,33%@2201,7%@2201,5%@2201,27%@2201] EMC_FREQ 3%@3199 GR3D_FREQ 12%@[1300,1300] NVENC0 off "
    "NVDEC0 off NVJPG0 off NVJPG1 off VIC off OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 cpu@52.968C/52.968C "
    "soc2@48.406C/48.406C soc0@49.531C/49.531C gpu@47.625C/47.625C VDD_GPU_SOC 5139mW/5139mW/5139mW "
    "VDD_CPU_CV 3268mW/3268mW/3268mW VIN_SYS_5V0 5500mW/5500mW/5500mW"
)


@pytest.mark.parametrize(
    ("line", "inputs", "watts"),
    [
        (NANO, ("POM_5V_IN",), 0.9),
        (NANO_IRAM, ("POM_5V_IN",), 1.75),
        (TX2, ("VDD_IN",), 2.003),
        (XAVIER_NX, ("VDD_IN",), 5.079),
        (AGX_XAVIER, ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), 0.216 + 0.864 + 0.144 + 1.889),
        (AGX_ORIN, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 2.34 + 0.39 + 4.025),
        (ORIN_NANO, ("VDD_IN",), 5.263),
        (ORIN_JETPACK_7, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 5.139 + 3.268 + 5.5),
    ],
)
def test_the_power_that_the_module_draws(line: str, inputs: tuple[str, ...], watts: float) -> None:
    found = parse_tegrastats(line)
    assert found is not None
    assert input_rails(found.watts) == inputs
    assert sum(found.watts[name] for name in inputs) == pytest.approx(watts)
    assert "NC" not in found.watts and "RAM" not in found.watts


def test_cores_clocks_and_the_gpu() -> None:
    nano, tx2, nx, orin, seven = map(parse_tegrastats, (NANO, TX2, XAVIER_NX, AGX_ORIN, ORIN_JETPACK_7))
    assert nano and tx2 and nx and orin and seven
    assert (nano.cpu_mhz, nano.cores_off) == ((102,) * 4, 0)
    assert (tx2.cpu_mhz, tx2.cores_off) == ((345,), 5)
    assert (nx.cpu_mhz, nx.cores_off) == ((1904, 1906, 1905, 1907), 2)
    assert (len(seven.cpu_mhz), set(seven.cpu_mhz)) == (12, {2201})
    assert (nano.gpu_percent, nano.gpu_mhz) == (0, ())
    assert (tx2.gpu_mhz, nx.gpu_mhz, orin.gpu_mhz) == ((114,), (510,), (0, 0))
    assert (seven.gpu_percent, seven.gpu_mhz) == (12, (1300, 1300))
    assert (orin.ram_used_mb, orin.ram_total_mb) == (4321, 62801)


def test_temperatures_leave_out_sensors_without_power() -> None:
    orin, seven = parse_tegrastats(AGX_ORIN), parse_tegrastats(ORIN_JETPACK_7)
    assert orin and seven
    assert orin.celsius["tj"] == 44.343 and "GPU" not in orin.celsius and "CV0" not in orin.celsius
    assert seven.celsius == {"cpu": 52.968, "soc2": 48.406, "soc0": 49.531, "gpu": 47.625}


def test_nvidias_documented_form_has_one_clock_for_all_cores() -> None:
    """CPU [X%,Y%, , ]@Z, DRIVE OS documentation, "Reported Statistics"."""
    found = parse_tegrastats("RAM 1/2MB (lfb 1x4MB) CPU [10%,20%]@1500 GR3D_FREQ @[1000,1000,1000] APE 150")
    assert found
    assert found.cpu_mhz == (1500,)
    assert (found.gpu_percent, found.gpu_mhz) == (None, (1000, 1000, 1000))  # the GPU as Thor shows it


@pytest.mark.parametrize("line", ["", "tegrastats: command not found", NANO[:40], "RAM many/3964MB CPU [x]"])
def test_what_is_no_line_of_statistics(line: str) -> None:
    assert parse_tegrastats(line) is None
