"""The element over many frames, under GStreamer's tracer, valgrind and sanitizers; its worker under ThreadSanitizer."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from building import SOURCES, run
from playing import ELEMENT, HERE, Player, build_plugin, compile_player

FRAMES = int(os.environ.get("CLIPEDGE_GSTREAMER_FRAMES", "100"))  # under valgrind; `make gstreamer-leaks` takes 10,000
HAS_CLANG = shutil.which("clang++") is not None


def pipeline(bundle: Path, frames: int) -> str:
    source = f"videotestsrc num-buffers={frames} pattern=ball ! video/x-raw,format=NV12,width=64,height=48"
    return f'{source} ! clipedge bundle="{bundle}" interval=0 threads=1 ! fakesink name=sink'


def test_no_object_outlives_ten_thousand_frames(player: Player, demo_bundle_fp32: Path) -> None:
    """By GStreamer's own tracer, of buffers, events, messages, caps and objects."""
    tracer = {"GST_TRACERS": "leaks", "GST_DEBUG": "GST_TRACER:7", "GST_DEBUG_NO_COLOR": "1"}
    heard, done = player.play(pipeline(demo_bundle_fp32, 10_000), "--twice", **tracer)
    assert done.returncode == 0 and len(heard.frames) == 20_000 and heard.calls == len(heard.answers) >= 4
    assert "object-alive, type-name=(string)%s" in done.stderr  # the tracer is there, and says how it tells
    assert not re.search(r"object-alive, type-name=\(string\)[^%]", done.stderr), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_finds_nothing(player: Player, demo_bundle_fp32: Path, tmp_path: Path) -> None:
    log = tmp_path / "valgrind"
    command = ["valgrind", "--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]
    options = [f"--log-file={log}", f"--suppressions={HERE / 'valgrind.supp'}", "--error-exitcode=9"]
    heard, done = player.play(
        pipeline(demo_bundle_fp32, FRAMES), under=[*command, *options], G_SLICE="always-malloc", G_DEBUG="gc-friendly"
    )
    report = log.read_text(encoding="utf-8")
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}\n{report}"
    assert len(heard.frames) == FRAMES and heard.calls == len(heard.answers) >= 2
    assert re.search(r"ERROR SUMMARY: 0 errors", report), report


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CLANG, reason="clang is not installed")
def test_addresses_and_undefined_behaviour(
    prefix: Path, player: Player, demo_bundle_fp32: Path, tmp_path: Path
) -> None:
    """Over 10,000 frames, twice, with no leak. Built by clang: what gcc does not warn of, clang may, and warnings are
    errors."""
    sanitizers = "address,undefined"
    plugin = build_plugin(
        "gstreamer-address", prefix, f"-DCLIPEDGE_SANITIZE={sanitizers}", "-DCMAKE_CXX_COMPILER=clang++"
    )
    program = compile_player(tmp_path / "play", prefix, "clang++", [f"-fsanitize={sanitizers}"])
    watched = Player(program, plugin, tmp_path / "registry")
    # The process that GStreamer looks at plugins in would be one without the sanitizer. What looking costs GLib is not
    # freed, so it is done by itself.
    options = {"GST_REGISTRY_FORK": "no", "UBSAN_OPTIONS": "halt_on_error=1"}
    watched.played("fakesrc num-buffers=1 ! fakesink name=sink", ASAN_OPTIONS="detect_leaks=0", **options)
    for option, frames in (("--step", 20), ("--twice", 10_000), ("--stop", 500)):
        heard = watched.played(pipeline(demo_bundle_fp32, frames), option, **options)
        assert heard.calls and not heard.complaints


def test_races(tmp_path: Path) -> None:
    flags = ["-std=c++17", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=thread", "-pthread"]
    include = [f"-I{ELEMENT / 'src'}", f"-I{SOURCES / 'include'}"]
    program = tmp_path / "worker_cases"
    run(["g++", *flags, *include, HERE / "worker_cases.cpp", ELEMENT / "src" / "worker.cpp", "-o", program])
    assert run([program], env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}) == "ok\n"
