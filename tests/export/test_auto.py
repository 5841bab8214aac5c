"""--precision auto: what is built is measured here, and the fastest that passes its proof stays."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import clipedge
from clipedge.bundle import open_bundle
from clipedge.calibration import scenes
from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export import export, mixed, pipeline
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.choice import Candidate, Choice, choice_lines, fastest, in_turns
from clipedge.machine.processor import family
from clipedge.model import variant_name

HERE = family(platform.machine()) or ""
ELSEWHERE = "arm" if HERE == "x86" else "x86"


def test_the_fastest_in_every_round_is_taken() -> None:
    times = {"fp32": (4.0, 5.0, 4.5), "int8.x86": (1.5, 4.9, 1.4)}
    assert fastest(times) == ("int8.x86", "it was the fastest in every round")


def test_a_tie_keeps_the_more_exact_one() -> None:
    times = {"fp32": (4.0, 5.0, 4.5), "int8.x86": (1.5, 5.0, 1.4)}
    chosen, reason = fastest(times)
    assert chosen == "fp32"
    assert reason == "int8.x86 was not faster in every round, and less exact"
    both = {"fp32": (4.0, 5.0), "fp16": (4.0, 4.9), "int8.x86": (4.1, 1.0)}
    assert fastest(both) == ("fp32", "fp16 and int8.x86 were not faster in every round, and less exact")


def test_a_later_candidate_has_to_beat_the_one_that_is_ahead() -> None:
    times = {"fp32": (4.0, 4.0), "fp16": (2.0, 2.0), "int8.x86": (1.9, 2.1)}
    assert fastest(times)[0] == "fp16"
    assert fastest({**times, "int8.x86": (1.9, 1.9)})[0] == "int8.x86"
    assert fastest({"fp32": ()}) == ("fp32", "it is the only one that passed its proof")


def test_candidates_take_turns() -> None:
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    found = in_turns(measure, ["a", "b"], 3)
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": (1.0, 4.0, 5.0), "b": (2.0, 3.0, 6.0)}
    assert in_turns(measure, ["alone"], 3) == {"alone": ()}


def test_the_lines_say_why() -> None:
    choice = Choice(
        "fp32",
        "it is the only one that passed its proof",
        (
            Candidate("fp32", "onnxruntime", (4.0, 6.0, 5.0), ()),
            Candidate("int8.x86", "onnxruntime", (), ("image tower: median centred cosine 0.9 < 0.985",)),
        ),
    )
    text = "\n".join(choice_lines(choice))
    assert "auto: fp32, since it is the only one that passed its proof" in text
    assert "5.00 ms a picture in onnxruntime, 3 rounds from 4.00 to 6.00" in text
    assert "int8.x86   below the gate: image tower: median" in text


@pytest.mark.skipif(not HERE, reason="there is no target for this processor")
def test_auto_leaves_one_proven_variant_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipedge.export.fastest.ROUNDS", 2)
    scenes.write_folder(tmp_path / "photos", "calibration", 90, width=80, height=64, by_label=True)
    model = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "my-clip", ignore=shutil.ignore_patterns("*.py"))
    words = ["export", model, "--precision", "auto", "--target", HERE, "--calibration-data", tmp_path / "photos"]
    code = main([*map(str, words), "--no-text", "--output", str(tmp_path / "bundle"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and document["passed"]
    choice = document["choice"]
    assert [item["variant"] for item in choice["candidates"]] == ["fp32", f"int8.{HERE}"]
    assert [len(item["round_ms"]) for item in choice["candidates"]] == [2, 2]
    times = {item["variant"]: item["round_ms"] for item in choice["candidates"]}
    assert choice["chosen"] == fastest(times)[0]

    (variant,) = open_bundle(tmp_path / "bundle").manifest.variants
    assert variant_name(variant) == choice["chosen"]
    assert [path.name for path in (tmp_path / "bundle").glob("*.onnx")] == [variant.files[0].path]
    assert clipedge.load(tmp_path / "bundle").image_variant == choice["chosen"]
    assert choice["reason"] in (tmp_path / "bundle" / "report.html").read_text(encoding="utf-8")
    assert choice["reason"] in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("precision", "target", "message"),
    [
        (["auto", "int8"], HERE, "tries every precision itself"),
        ("auto", ELSEWHERE, "measures on this device"),
        ("auto", ["x86", "arm"], "measures on this device"),
        ("fast", HERE, "unknown precision 'fast'"),
    ],
)
def test_what_auto_cannot_do_is_refused(precision: object, target: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        export(None, tmp_path / "bundle", precision=precision, target=target)  # type: ignore[arg-type]
    assert not (tmp_path / "bundle").exists()


@pytest.mark.skipif(not HERE, reason="there is no target for this processor")
def test_a_variant_below_the_gate_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that float32 passes and INT8 cannot, with no layer to be left in float."""
    monkeypatch.setattr(
        pipeline, "GATE", replace(pipeline.GATE, median_centred_cosine=0.999995, p1_centred_cosine=0.99999)
    )
    monkeypatch.setattr(mixed, "MAX_FLOAT_SHARE", 0.0)
    scenes.write_folder(tmp_path / "photos", "calibration", 90, width=80, height=64)
    model = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "my-clip", ignore=shutil.ignore_patterns("*.py"))
    report = export(
        model, tmp_path / "bundle", precision="auto", target=HERE, calibration_data=tmp_path / "photos", text=False
    )
    assert report.passed and report.choice is not None
    assert (report.choice.chosen, report.choice.reason) == ("fp32", "it is the only one that passed its proof")
    fp32, int8 = report.choice.candidates
    assert not fp32.failures and int8.failures and not int8.round_ms
    assert [path.name for path in (tmp_path / "bundle").glob("*.onnx")] == ["image.fp32.onnx"]
