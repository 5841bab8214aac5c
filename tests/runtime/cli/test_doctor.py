"""clipedge doctor on this very machine."""

from __future__ import annotations

import json
import platform

import numpy as np
import pytest

import clipedge
from clipedge.backends import BACKENDS
from clipedge.cli import main


def test_doctor_finds_this_machine_and_its_engines(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    found = json.loads(out)
    assert found["works"] is True and found["clipedge"] == clipedge.__version__
    assert found["machine"]["processor"]["architecture"] == platform.machine()
    assert found["packages"]["numpy"] == np.__version__
    states = {item["engine"]: item["state"] for item in found["engines"]}
    assert all(states[name] == "works" for name in ("onnxruntime", "openvino")) and set(states) >= set(BACKENDS)

    assert main(["doctor"]) == 0
    shown = capfd.readouterr().out
    assert found["machine"]["processor"]["name"] in shown
    for item in found["engines"]:
        assert f"{item['engine']}{' ' + item['version'] if item['version'] else ''}" in shown
    for item in found["advice"]:
        assert item["what"] in shown and (item["command"] or "") in shown
