"""The element in pipelines: what it answers, what it attaches, and that nothing waits for it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from building import run
from playing import ELEMENT, Answer, Player, Video, parse_answer, properties

SECOND = 1_000_000_000


def check_answers(answers: list[Answer] | tuple[Answer, ...], video: Video) -> None:
    """Each names what the Python runtime sees in its frame; the first and the last frame have one."""
    assert [answer.labels[0] for answer in answers] == [video.labels[answer.timestamp // SECOND] for answer in answers]
    times = [answer.timestamp for answer in answers]
    assert times == sorted(set(times)) and times[0] == 0 and times[-1] == (len(video.labels) - 1) * SECOND


def launch(player: Player, pipeline: str) -> subprocess.CompletedProcess[str]:
    command = ["gst-launch-1.0", "-m", *shlex.split(pipeline)]
    return subprocess.run(command, env=player.environment(), capture_output=True, text=True, check=False)


def answers_of(done: subprocess.CompletedProcess[str]) -> list[Answer]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [parse_answer(line) for line in done.stdout.splitlines() if "(element): clipedge," in line]


def test_gst_launch_posts_what_was_drawn(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    """Slowed down, as a camera would be; nevertheless no frame but the first and the last is sure to be answered."""
    slowly = "identity sleep-time=20000"
    answers = answers_of(
        launch(player, f'{video.pngs()} ! {slowly} ! clipedge bundle="{demo_bundle_fp32}" interval=0 ! fakesink')
    )
    check_answers(answers, video)
    assert all(len(answer.labels) == 3 for answer in answers)
    assert sum(video.drawn[answer.timestamp // SECOND] == answer.labels[0] for answer in answers) >= 0.8 * len(answers)


def test_every_frame_of_raw_video(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    """And each carries the answer to the one before it, which is the newest when it passes."""
    pipeline = f'{video.bytes()} ! clipedge bundle="{demo_bundle_fp32}" interval=0 top-k=1 ! fakesink name=sink'
    heard = player.played(pipeline, "--step")
    check_answers(heard.answers, video)
    assert len(heard.answers) == len(video.labels)
    times = [number * SECOND for number in range(len(video.labels))]
    assert [frame.timestamp for frame in heard.frames] == times
    assert [frame.answered for frame in heard.frames] == [None, *times[:-1]]


def test_metadata_survives_scaling_and_conversion(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    clip = f'clipedge bundle="{demo_bundle_fp32}" interval=0'
    smaller = "videoconvert ! videoscale ! video/x-raw,format=I420,width=32,height=32"
    heard = player.played(f"{video.bytes()} ! {clip} ! {smaller} ! fakesink name=sink", "--step")
    assert [frame.answered for frame in heard.frames[1:]] == [frame.timestamp for frame in heard.frames[:-1]]


def test_a_slow_model_stalls_nothing(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    """The first call of the model returns when the whole video has passed; then the newest frame is answered, and then
    the stream ends."""
    frames = len(video.labels)
    heard = player.played(
        f'{video.bytes()} ! clipedge bundle="{demo_bundle_fp32}" interval=0 ! fakesink name=sink', "--slow", str(frames)
    )
    assert len(heard.frames) == frames
    assert not any(line.startswith("answer") for line in heard.lines[:frames])
    assert heard.calls == len(heard.answers) == 2
    assert heard.answers[-1].timestamp == (frames - 1) * SECOND
    assert not any(frame.held for frame in heard.frames)  # so that no pool runs dry
    assert not heard.complaints


def test_the_interval_is_kept(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    clip = f'clipedge bundle="{demo_bundle_fp32}" interval={4 * SECOND}'
    heard = player.played(f"{video.bytes()} ! {clip} ! fakesink name=sink sync=false")
    assert {answer.timestamp % (4 * SECOND) for answer in heard.answers} == {0}
    assert heard.answers[-1].timestamp == 20 * SECOND and len(heard.frames) == 24


def test_top_k_and_threshold(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    def played(**values: object) -> tuple[Answer, ...]:
        clip = properties({"bundle": demo_bundle_fp32, "interval": 0} | values)
        return player.played(f"{video.bytes()} ! clipedge {clip} ! fakesink name=sink", "--step").answers

    every = played(top_k=1000)
    assert all(len(answer.labels) == 120 and sum(answer.scores) == pytest.approx(1, abs=1e-4) for answer in every)
    assert all(list(answer.scores) == sorted(answer.scores, reverse=True) for answer in every)
    some = played(top_k=1000, threshold=0.2)
    for one, whole in zip(some, every, strict=True):
        kept = sum(score >= 0.2 for score in whole.scores)
        assert one.labels == whole.labels[:kept] and one.scores == pytest.approx(whole.scores[:kept])
    none = played(threshold=1.0)
    assert len(none) == len(every) and not any(answer.labels for answer in none)


def test_a_seek_does_not_wait_and_forgets(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    """While the model is busy with the first frame; its answer, which comes after the seek, is not told."""
    heard = player.played(
        f'{video.bytes()} ! clipedge bundle="{demo_bundle_fp32}" interval=0 ! fakesink name=sink', "--seek"
    )
    sought = heard.lines.index("sought")
    assert not any(line.startswith("answer") for line in heard.lines[:sought])
    times = [answer.timestamp for answer in heard.answers]
    assert times and min(times) >= 5 * SECOND and times[-1] == 23 * SECOND
    assert all(frame.answered is None or frame.answered >= 5 * SECOND for frame in heard.frames)


def test_stopping_joins_the_thread(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    """While the model is busy, and the end of the stream waits for it."""
    pipeline = f'{video.bytes()} ! clipedge bundle="{demo_bundle_fp32}" interval=0 ! fakesink name=sink'
    heard = player.played(pipeline, "--stop")
    assert 1 <= heard.calls <= 2  # the first, and another one if this machine was slow to stop


def test_it_can_be_played_again(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    heard = player.played(f'{video.bytes()} ! clipedge bundle="{demo_bundle_fp32}" ! fakesink name=sink', "--twice")
    times = [answer.timestamp for answer in heard.answers]
    assert len(heard.frames) == 48 and times.count(0) == times.count(23 * SECOND) == 2


def test_two_elements_in_a_pipeline(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    clip = f'clipedge bundle="{demo_bundle_fp32}" interval=0'
    heard = player.played(f"{video.bytes()} ! {clip} ! {clip} ! fakesink name=sink")
    assert sum(answer.timestamp == 23 * SECOND for answer in heard.answers) == 2


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "no bundle is named: set the property bundle"),
        ({"bundle": "/"}, "/ is not a bundle: it has no"),
        ({"bundle": "DEMO", "bank": "absent"}, "absent"),
        ({"bundle": "DEMO", "bank": "./absent"}, "absent"),
        ({"bundle": "DEMO", "variant": "int8.arm"}, "int8.arm"),
        ({"bundle": "DEMO", "provider": "tensorrt"}, "this build has no TensorRT"),
    ],
    ids=["no bundle", "not a bundle", "no such bank", "no such file", "no such variant", "not in this build"],
)
def test_gst_launch_says_what_libclipedge_says(
    player: Player, demo_bundle_fp32: Path, values: dict[str, str], text: str
) -> None:
    values = {name: value.replace("DEMO", str(demo_bundle_fp32)) for name, value in values.items()}
    done = launch(player, f"videotestsrc ! clipedge {properties(values)} ! fakesink")
    assert done.returncode != 0
    assert re.search(f"ERROR: from element .*clipedge0: .*{re.escape(text)}", done.stderr), done.stderr


def test_a_model_that_fails_ends_the_pipeline(player: Player, video: Video, demo_bundle_fp32: Path) -> None:
    """Slowed down: frames that come faster than the model begins are passed over, and its second call may not come."""
    source = f'{video.bytes()} ! identity sleep-time=50000 ! clipedge bundle="{demo_bundle_fp32}" interval=0'
    heard, done = player.play(f"{source} ! fakesink name=sink", "--fail")
    assert done.returncode == 1 and heard.calls == 2 and len(heard.answers) == 1
    assert heard.complaints[0].startswith("error probabilities holds 0, expected 1 times 120")


def test_a_bank_at_a_path(player: Player, video: Video, demo_bundle_fp32: Path, tmp_path: Path) -> None:
    bank = tmp_path / "my bank"
    bank.write_bytes((demo_bundle_fp32 / "prompts" / "default.safetensors").read_bytes())
    clip = properties({"bundle": demo_bundle_fp32, "bank": bank, "interval": 0})
    check_answers(player.played(f"{video.bytes()} ! clipedge {clip} ! fakesink name=sink", "--step").answers, video)


def test_gst_inspect_documents_the_properties(player: Player) -> None:
    page = run(["gst-inspect-1.0", "clipedge"], env=player.environment())
    names = ["bundle", "bank", "variant", "provider", "device", "threads", "sleeping", "top-k", "threshold", "interval"]
    for name in names:
        assert re.search(rf"^  {name} +: [A-Z]", page, re.MULTILINE), page
    for word in ("cpu", "cuda", "tensorrt", "NV12", "I420", "YUY2", "UYVY", "GRAY8", "BGRx", "Filter/Analyzer/Video"):
        assert word in page
    assert re.search(r"License +Apache 2.0", page)


def test_the_readmes_lines_are_pipelines(player: Player, video: Video, demo_bundle_fp32: Path, tmp_path: Path) -> None:
    """The one for a file is played, from a Motion JPEG."""
    readme = (ELEMENT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^gst-launch-1\.0 -m (.*)$", readme, re.MULTILINE)
    for_file = next(line for line in lines if line.startswith("filesrc"))
    assert any(line.startswith("v4l2src") for line in lines)

    movie = tmp_path / "shop.avi"
    encoded = f'{video.pngs()} ! videoconvert ! jpegenc ! avimux ! filesink location="{movie}"'
    assert launch(player, encoded).returncode == 0
    played = for_file.replace("shop.mp4", str(movie)).replace("aisle-int8", str(demo_bundle_fp32))
    answers = answers_of(launch(player, played.replace("bank=aisle", "").replace("sync=true", "sync=false")))
    assert answers[0].timestamp == 0 and answers[-1].timestamp == 23 * SECOND


def test_it_is_installed_where_gstreamer_finds_it(player: Player, prefix: Path, tmp_path: Path) -> None:
    """Beside libclipedge, and without a path to it."""
    run(["cp", "-a", f"{prefix}/.", tmp_path / "prefix"])
    run(["cmake", "--install", player.plugin, "--prefix", tmp_path / "prefix"])
    plugins = next((tmp_path / "prefix").rglob("gstreamer-1.0"))
    environment = os.environ | {"GST_PLUGIN_PATH": str(plugins), "GST_REGISTRY": str(tmp_path / "registry")}
    assert str(plugins) in run(["gst-inspect-1.0", "clipedge"], env=environment)
    linked = run(["ldd", next(plugins.glob("libgstclipedge.so"))])
    assert str(plugins.parent / "libclipedge.so") in linked.replace("gstreamer-1.0/../", ""), linked


def test_the_plugin_exports_what_gstreamer_needs(player: Player) -> None:
    lines = run(["nm", "--dynamic", "--defined-only", player.plugin / "libgstclipedge.so"]).splitlines()
    symbols = {line.split()[2] for line in lines}
    assert {"gst_plugin_clipedge_register", "gst_plugin_clipedge_get_desc"} <= symbols
    assert not [symbol for symbol in symbols if symbol.startswith("_ZN8clipedge")]
