"""clipedge bench as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from clipedge.bench.inputs import SOURCES
from clipedge.bench.scenarios import SCENARIOS
from clipedge.cli import main

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["bench", *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


def test_all_scenarios_from_all_sources_as_json_and_as_a_page(cli: Cli, demo_bundle: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (320, 240), "green").save(tmp_path / "<green>.jpg")
    page = tmp_path / "bench.html"
    options = ("--seconds", "0.1", "--backend", "onnxruntime", "--threads", "1", "--image", tmp_path / "<green>.jpg")
    code, out, err = cli(demo_bundle, *options, "--report", page, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["bundle"] == demo_bundle.name and document["variant"] == "int8.x86"
    assert document["engine"]["backend"] == "onnxruntime" and document["threads"] == 1
    assert document["picture"].startswith("<green>.jpg, 320 x 240")
    assert document["peak_memory_mb"] is None or document["peak_memory_mb"] > 20
    found = {(item["source"], item["scenario"]): item for item in document["measurements"]}
    assert set(found) == {(source, scenario) for source in SOURCES for scenario in SCENARIOS}
    for (_, scenario), item in found.items():
        assert item["samples_per_query"] == SCENARIOS[scenario]
        assert item["throughput"] == pytest.approx(item["queries"] * SCENARIOS[scenario] / item["seconds"])
        assert {part["percent"] for part in item["percentiles"]} | set(map(int, item["needed"])) == {50, 90, 99}
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg ") == 2 * len(SCENARIOS)
    assert "&lt;green&gt;" in text and "<green>" not in text


def test_a_table_says_what_was_measured_and_what_more_takes(cli: Cli, demo_bundle: Path) -> None:
    options = ("--seconds", "0.05", "--from", "tensor", "--scenario", "multi-stream,offline")
    code, out, err = cli(demo_bundle, *options)
    assert (code, err) == (0, "")
    assert "tensor, multi-stream" in out and "tensor, offline" in out and "single-stream" not in out
    assert "p99 takes 662 queries, found " in out
    assert "peak memory" in out


def test_two_results_are_compared(cli: Cli, demo_bundle: Path, demo_bundle_fp32: Path, tmp_path: Path) -> None:
    for name, bundle in (("a", demo_bundle), ("b", demo_bundle_fp32)):
        options = ("--seconds", "0.1", "--from", "tensor", "--scenario", "single-stream", "--json")
        code, out, _ = cli(bundle, *options)
        assert code == 0
        (tmp_path / f"{name}.json").write_text(out)
    code, out, err = cli("--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert (code, err) == (0, "")
    assert "warning: variant differs: int8.x86 and fp32" in out
    assert "model differs" not in out and "processor differs" not in out
    code, out, _ = cli("--compare", tmp_path / "a.json", tmp_path / "b.json", "--json")
    document = json.loads(out)
    for item in document["ratios"]:
        assert item["ratio"] == pytest.approx(item["second"] / item["first"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a bundle to measure, or --compare"),
        (["{bundle}", "--compare", "a", "b"], "give one of the two"),
        (["{bundle}", "--scenario", "server"], "'server': expected single-stream, multi-stream, offline"),
        (["{bundle}", "--from", "tensor,video"], "'video': expected tensor, frame, jpeg"),
        (["{bundle}", "--seconds", "0"], "--seconds is 0"),
        (["{bundle}", "--seconds", "nan"], "--seconds is nan"),
        (["{bundle}", "--report", "bench.png"], "has to end in .html"),
        (["{bundle}", "--image", "none.jpg"], "none.jpg"),
        (["{bundle}/none"], "none"),
        (["--compare", "none.json", "none.json"], "none.json cannot be read"),
    ],
)
def test_a_wrong_call_is_one_line(cli: Cli, demo_bundle: Path, arguments: list[str], message: str) -> None:
    code, out, err = cli(*[argument.replace("{bundle}", str(demo_bundle)) for argument in arguments])
    assert code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert message in line
