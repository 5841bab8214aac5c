"""Sources: a folder in any environment; a video file and a network stream as OpenCV really delivers them."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from clipedge.camera.sources import open_source
from clipedge.errors import ClipEdgeError, ImageError, UsageError
from clipedge.images.frames import to_rgb

cv2 = pytest.importorskip("cv2", reason="needs the extra camera")

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))  # RGB
FPS = 8.0


def refuse(error: ImageError) -> None:
    raise error


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, five frames each."""
    path = tmp_path_factory.mktemp("video") / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (64, 48))
    assert writer.isOpened()
    for colour in COLOURS:
        for _ in range(5):
            writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def check(frames: list[tuple[float, npt.NDArray[np.uint8]]]) -> None:
    assert len(frames) == 15
    for index, (_, rgb) in enumerate(frames):
        assert rgb.shape == (48, 64, 3)
        assert np.abs(rgb.reshape(-1, 3).mean(axis=0) - COLOURS[index // 5]).max() < 6  # red is red


def test_a_folder_is_read_in_order_and_broken_pictures_are_told(tmp_path: Path) -> None:
    for index, colour in enumerate(COLOURS):
        PIL.Image.new("RGB", (30 + index, 20), colour).save(tmp_path / f"{index}.png")
    (tmp_path / "1b.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    told: list[ImageError] = []
    source = open_source(str(tmp_path), 2.0, told.append)
    frames = list(source.frames)
    assert not source.live
    assert [time for time, _ in frames] == [0.0, 0.5, 1.5]
    assert [(frame.width, tuple(to_rgb(frame)[0, 0])) for _, frame in frames] == [
        (30 + index, colour) for index, colour in enumerate(COLOURS)
    ]
    assert [str(tmp_path / "1b.png") in str(error) for error in told] == [True]


def test_a_video_file_has_its_frames_their_times_and_their_colours(video: Path) -> None:
    source = open_source(str(video), 1.0, refuse)
    assert not source.live
    frames = [(time, to_rgb(frame)) for time, frame in source.frames]
    check(frames)
    assert [time for time, _ in frames] == pytest.approx([index / FPS for index in range(15)], abs=1e-3)


@pytest.fixture
def server(video: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_network_stream_is_live_and_its_end_is_an_error(server: str) -> None:
    source = open_source(f"http://user:secret@{server}/colours.avi", 1.0, refuse)
    assert source.live
    frames = []
    with pytest.raises(ClipEdgeError, match="delivers no more frames") as caught:
        for time, frame in source.frames:
            frames.append((time, to_rgb(frame)))
    check(frames)
    times = [time for time, _ in frames]
    assert times[0] == 0
    assert sorted(times) == times
    assert "secret" not in str(caught.value)
    assert server in str(caught.value)
    with pytest.raises(UsageError, match="OpenCV cannot open") as refused:
        open_source(f"http://user:secret@{server}/nothing.avi", 1.0, refuse)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.mp4", "there is no video file or folder of pictures at nowhere.mp4"),
        ("{folder}/picture.png", "is one picture"),
        ("{folder}/text.mp4", "OpenCV cannot open"),
        ("{folder}/empty", "holds no pictures"),
        ("97", "OpenCV cannot open camera 97"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why(tmp_path: Path, name: str, message: str) -> None:
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        open_source(name.format(folder=tmp_path), 1.0, refuse)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_has_to_be_above_zero(fps: float) -> None:
    with pytest.raises(UsageError, match="expected a rate of pictures a second above 0"):
        open_source("0", fps, refuse)


def test_without_opencv_a_folder_is_read_and_a_video_names_the_extra(video: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    code = f"""
import sys
sys.modules["cv2"] = None
from clipedge.camera.sources import open_source
print(len(list(open_source({str(tmp_path)!r}, 1.0, print).frames)))
open_source({str(video)!r}, 1.0, print)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.stdout == "1\n"
    assert 'install it with pip install "clipedge[camera]"' in outcome.stderr.splitlines()[-1]
