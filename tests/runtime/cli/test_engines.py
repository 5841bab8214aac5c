"""The command line's engine options, and that every result says what computed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipedge.backends import BACKENDS, engine_facts
from clipedge.calibration.scenes import write_folder
from clipedge.cli import main
from clipedge.model import load


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def document_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_results_name_the_engine_that_computed_them(
    demo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    pictures = write_folder(tmp_path, "test", 3, width=80, height=80, by_label=True)
    expected = engine_facts(load(demo_bundle, backend=backend).image_engine)
    assert expected["backend"] == backend
    answers = document_of(capsys, "classify", demo_bundle, *pictures, "--backend", backend)
    assert [answer["engine"] for answer in answers] == [expected] * 3
    assert document_of(capsys, "eval", demo_bundle, tmp_path, "--backend", backend)["engine"] == expected


def test_inspect_shows_engine_threads_and_arithmetic(
    demo_bundle: Path, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    arguments = ("inspect", demo_bundle, "--backend", backend, "--threads", "2", "--no-spinning")
    tested = document_of(capsys, *arguments)["tested_here"]
    for result in tested.values():
        assert {"backend": backend, "device": "cpu", "threads": 2, "spinning": False}.items() <= result.items()
        assert result["arithmetic"].startswith("int8")
    assert main([str(argument) for argument in arguments]) == 0
    shown = capsys.readouterr().out
    facts = tested["image"]
    assert f"on {backend} {facts['version']} (cpu, 2 threads, sleeping between calls)" in shown
    assert f"computed in {facts['arithmetic']}" in shown


def test_without_options_there_is_a_thread_per_core_and_spinning(
    demo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for result in document_of(capsys, "inspect", demo_bundle)["tested_here"].values():
        assert (result["threads"], result["spinning"]) == (None, True)
    assert main(["inspect", str(demo_bundle)]) == 0
    assert "(cpu, one thread per core), computed in" in capsys.readouterr().out
