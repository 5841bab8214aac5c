"""Video of every format, with rows that are padded, against the Python runtime on the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from native_pixels import FORMATS
from playing import Player, properties

import clipedge
from clipedge.images.frames import Frame

WIDTH, HEIGHT = 77, 61
NAMES = dict(zip(FORMATS, ["rgb", "bgr", "rgba", "bgra", "gray8", "nv12", "i420", "yuy2", "uyvy"], strict=True))
# For GStreamer: range (1: full, 2: limited), matrix (3: BT.709, 4: BT.601), and transfer and primaries, unknown.
COLORIMETRY = {
    ("bt601", "limited"): "2:4:0:0",
    ("bt601", "full"): "1:4:0:0",
    ("bt709", "limited"): "2:3:0:0",
    ("bt709", "full"): "1:3:0:0",
}
CASES = [
    *((name, "bt601", "limited") for name in FORMATS),
    *(("nv12", *colours) for colours in list(COLORIMETRY)[1:]),
    ("yuyv", "bt709", "full"),
    ("i420", "bt709", "limited"),
]


def rows_of(name: str) -> list[tuple[int, int]]:
    """Rows, and the bytes of each, of the planes."""
    half_width, half_height = (WIDTH + 1) // 2, (HEIGHT + 1) // 2
    return {
        "rgb8": [(HEIGHT, 3 * WIDTH)],
        "bgr8": [(HEIGHT, 3 * WIDTH)],
        "rgba8": [(HEIGHT, 4 * WIDTH)],
        "bgra8": [(HEIGHT, 4 * WIDTH)],
        "gray8": [(HEIGHT, WIDTH)],
        "nv12": [(HEIGHT, WIDTH), (half_height, 2 * half_width)],
        "i420": [(HEIGHT, WIDTH), (half_height, half_width), (half_height, half_width)],
        "yuyv": [(HEIGHT, 4 * half_width)],
        "uyvy": [(HEIGHT, 4 * half_width)],
    }[name]


def drawn(name: str, matrix: str, range_: str) -> Frame:
    """Patches of random bytes, in rows of 13 bytes more than they need, which are noise."""
    rng = np.random.default_rng(FORMATS.index(name))
    planes, strides = [], []
    for rows, row_bytes in rows_of(name):
        plane = rng.integers(0, 256, (rows, row_bytes + 13), np.uint8)
        patches = rng.integers(0, 256, (rows // 12 + 1, row_bytes // 24 + 1, 4), np.uint8)
        plane[:, :row_bytes] = np.tile(patches, 6).reshape(len(patches), -1).repeat(12, axis=0)[:rows, :row_bytes]
        planes.append(plane.reshape(-1))
        strides.append(row_bytes + 13)
    return Frame(tuple(planes), tuple(strides), WIDTH, HEIGHT, name, matrix, range_)  # type: ignore[arg-type]


def source_of(frame: Frame, path: Path) -> str:
    """The frame as the source of a pipeline, its planes with gaps between them."""
    gap, data, offsets = b"\xaa" * 7, b"", []
    for plane in frame.planes:
        data += gap
        offsets.append(len(data))
        data += bytes(plane)
    path.write_bytes(data)
    layout = {
        "format": NAMES[frame.format],
        "width": frame.width,
        "height": frame.height,
        "framerate": "1/1",
        "plane_strides": f"<{','.join(map(str, frame.strides))}>",
        "plane_offsets": f"<{','.join(map(str, offsets))}>",
        "frame_size": len(data),
    }
    caps = f"video/x-raw,colorimetry={COLORIMETRY[frame.color_matrix, frame.color_range]}"
    is_yuv = frame.format in ("nv12", "i420", "yuyv", "uyvy")
    return f'filesrc location="{path}" ! rawvideoparse {properties(layout)}' + (
        f' ! capssetter caps="{caps}"' if is_yuv else ""
    )


@pytest.mark.parametrize(("name", "matrix", "range_"), CASES, ids=map("-".join, CASES))
def test_scores_are_pythons(
    player: Player,
    clip_fp32: clipedge.Clip,
    demo_bundle_fp32: Path,
    tmp_path: Path,
    name: str,
    matrix: str,
    range_: str,
) -> None:
    frame = drawn(name, matrix, range_)
    clip = properties({"bundle": demo_bundle_fp32, "top_k": 120})
    # videoconvert knows GstVideoMeta; for another sink rawvideoparse would lay the rows together first.
    after = "identity name=sink ! videoconvert ! video/x-raw,format=ARGB ! fakesink"
    heard = player.played(f"{source_of(frame, tmp_path / 'raw')} ! clipedge {clip} ! {after}")
    [passed], [answer] = heard.frames, heard.answers
    assert passed.stride == frame.strides[0]
    bank = clip_fp32.saved_bank("default")
    classifier = clip_fp32.classifier(bank)
    expected = dict(zip(bank.labels, classifier.predict_proba([frame])[0], strict=True))
    assert dict(zip(answer.labels, answer.scores, strict=True)) == pytest.approx(expected, abs=1e-4)


def test_the_colours_matter(clip_fp32: clipedge.Clip) -> None:
    """To the cases above: another matrix, range or stride gives other scores than their tolerance lets pass."""
    classifier = clip_fp32.classifier(clip_fp32.saved_bank("default"))
    frames = [drawn("nv12", *colours) for colours in COLORIMETRY]
    tight = Frame(frames[0].planes, (WIDTH, WIDTH + 1), WIDTH, HEIGHT, "nv12")
    found = classifier.predict_proba([*frames, tight])
    apart = np.abs(found[:, None] - found[None]).max(axis=2) + np.eye(len(found))
    assert apart.min() > 1e-3, apart


@pytest.mark.parametrize("colorimetry", ["bt2020", "smpte240m"])
def test_an_unknown_matrix_is_refused(player: Player, demo_bundle_fp32: Path, tmp_path: Path, colorimetry: str) -> None:
    source = source_of(drawn("nv12", "bt601", "limited"), tmp_path / "raw").replace("2:4:0:0", colorimetry)
    heard, done = player.play(f'{source} ! clipedge bundle="{demo_bundle_fp32}" ! fakesink name=sink')
    assert done.returncode == 1
    assert f"error colorimetry is {colorimetry}, expected a matrix of bt601 or bt709" in heard.complaints[0]
