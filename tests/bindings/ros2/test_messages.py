"""Messages as they travel: serialised to CDR by the rosbags package, read back, and converted."""

from __future__ import annotations

import array
import sys
import xml.etree.ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.errors import ImageError, UsageError
from clipedge.images.frames import Frame, to_rgb

rosbags = pytest.importorskip("rosbags.typesys", reason="needs the rosbags package")

PACKAGE = Path(__file__).parents[3] / "bindings" / "ros2"
sys.path.insert(0, str(PACKAGE))

from clipedge_ros.messages import ENCODINGS, class_map, frame_of, hypotheses, seconds  # noqa: E402

STORE = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)
STORE.register(rosbags.get_types_from_msg("string class_id\nfloat64 score\n", "vision_msgs/msg/ObjectHypothesis"))
STORE.register(rosbags.get_types_from_msg("uint16 class_id\nstring class_name\n", "vision_msgs/msg/VisionClass"))
STORE.register(
    rosbags.get_types_from_msg(
        "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n", "vision_msgs/msg/Classification"
    )
)
STORE.register(
    rosbags.get_types_from_msg(
        "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n", "vision_msgs/msg/LabelInfo"
    )
)
TYPES = STORE.types
Time, Header, Image = (
    TYPES[name] for name in ("builtin_interfaces/msg/Time", "std_msgs/msg/Header", "sensor_msgs/msg/Image")
)
HEADER = Header(stamp=Time(sec=1_763_840_000, nanosec=123_456_789), frame_id="camera_optical")
BYTES = {"gray8": 1, "yuyv": 2, "uyvy": 2, "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "nv12": 1}


def travelled(message: Any) -> Any:
    """What a subscriber gets of a message."""
    kind = message.__msgtype__
    return STORE.deserialize_cdr(STORE.serialize_cdr(message, kind), kind)


def image(encoding: str, width: int, height: int, padding: int, rng: np.random.Generator, /, **changes: Any) -> Any:
    """An image of random bytes, its rows with rubbish behind them."""
    format = ENCODINGS.get(encoding, "gray8")
    step = width * BYTES[format] + padding
    rows = height * 3 // 2 if format == "nv12" else height
    data = rng.integers(0, 256, rows * step, np.uint8)
    fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": step, "data": data}
    return Image(header=HEADER, **{**fields, **changes})


def expected_rgb(message: Any) -> npt.NDArray[np.uint8]:
    """The picture by way of from_array, which knows nothing of steps."""
    format = ENCODINGS[message.encoding]
    rows = np.asarray(message.data).reshape(-1, message.step)[:, : message.width * BYTES[format]]
    if format not in ("gray8", "nv12"):
        rows = rows.reshape(len(rows), message.width, BYTES[format])
    return to_rgb(Frame.from_array(np.ascontiguousarray(rows), format))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_an_image_that_travelled_is_a_frame_over_its_own_memory(encoding: str, padding: int, is_bigendian: int) -> None:
    sent = image(encoding, 26, 18, padding, np.random.default_rng(padding), is_bigendian=is_bigendian)
    message = travelled(sent)
    frame = frame_of(message)
    np.testing.assert_array_equal(to_rgb(frame), expected_rgb(sent))
    assert all(np.shares_memory(np.asarray(plane), message.data) for plane in frame.planes)
    assert (frame.width, frame.height) == (26, 18)
    assert frame.timestamp == pytest.approx(1_763_840_000.123456789, abs=2.5e-7)


def test_the_encodings_are_what_their_names_say() -> None:
    """One pixel of each by hand, red where there is colour; yuv422 and yuv422_yuy2 are old names."""
    red = {
        "rgb8": [255, 0, 0],
        "bgr8": [0, 0, 255],
        "8UC3": [0, 0, 255],
        "rgba8": [255, 0, 0, 9],
        "bgra8": [0, 0, 255, 9],
        "8UC4": [0, 0, 255, 9],
        "uyvy": [90, 81, 240, 81],
        "yuv422": [90, 81, 240, 81],
        "yuyv": [81, 90, 81, 240],
        "yuv422_yuy2": [81, 90, 81, 240],
        "nv12": [81, 81, 81, 81, 90, 240],
    }
    for encoding, data in red.items():
        width = 2 if ENCODINGS[encoding] in ("uyvy", "yuyv", "nv12") else 1
        height = 2 if encoding == "nv12" else 1
        message = image(encoding, width, height, 0, np.random.default_rng(0), data=np.array(data, np.uint8))
        pixels = to_rgb(frame_of(travelled(message))).astype(int)
        assert np.abs(pixels - [254, 0, 0]).max() <= 1, encoding
    for encoding in ("mono8", "8UC1"):
        message = image(encoding, 1, 1, 0, np.random.default_rng(0), data=np.array([77], np.uint8))
        assert to_rgb(frame_of(travelled(message))).tolist() == [[[77, 77, 77]]]
    assert {*red, "mono8", "8UC1"} == set(ENCODINGS)


@pytest.mark.parametrize("as_bytes", [bytes, bytearray, lambda data: array.array("B", data.tobytes())])
def test_data_may_be_any_buffer(as_bytes: Any) -> None:
    """rclpy delivers array.array."""
    message = travelled(image("nv12", 8, 6, 2, np.random.default_rng(1)))
    expected = expected_rgb(message)
    found = SimpleNamespace(**{name: getattr(message, name) for name in message.__dataclass_fields__})
    found.data = as_bytes(message.data)
    np.testing.assert_array_equal(to_rgb(frame_of(found)), expected)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "32FC1", "bayer_rggb8", "nv21", "nv24", "rgb16", "jpeg", ""])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(ImageError, match=f"found '{encoding}'; convert it"):
        frame_of(travelled(image(encoding, 4, 4, 0, np.random.default_rng(0))))


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 20},  # shorter than a row
        {"step": 40},  # more than there are bytes
        {"height": 7},
        {"width": 0, "step": 0},
        {"height": 2**32 - 1},
        {"data": np.empty(0, np.uint8)},
    ],
)
@pytest.mark.parametrize("encoding", ["bgr8", "nv12"])
def test_data_that_do_not_hold_the_picture_are_refused(encoding: str, changes: dict[str, Any]) -> None:
    width = 24 if encoding == "nv12" else 8
    with pytest.raises(ImageError):
        frame_of(travelled(image(encoding, width, 6, 0, np.random.default_rng(0), **changes)))


def test_classifications_and_labels_survive_the_journey() -> None:
    labels = ("forklift", "person", "spill ö")
    results = hypotheses([0.2, 0.7, 0.05], least=0.1)
    assert results == [("1", 0.7), ("0", 0.2)]
    hypothesis, vision_class = (TYPES[f"vision_msgs/msg/{name}"] for name in ("ObjectHypothesis", "VisionClass"))
    message = TYPES["vision_msgs/msg/Classification"](HEADER, [hypothesis(*result) for result in results])
    found = travelled(message)
    info = travelled(TYPES["vision_msgs/msg/LabelInfo"](HEADER, [vision_class(*one) for one in class_map(labels)], 0.5))
    names = {str(one.class_id): one.class_name for one in info.class_map}
    assert [(names[one.class_id], one.score) for one in found.results] == [("person", 0.7), ("forklift", 0.2)]
    assert seconds(found.header.stamp) == seconds(HEADER.stamp)
    with pytest.raises(UsageError, match="at most 65535 labels"):
        class_map(["x"] * 65536)


def test_the_package_is_one() -> None:
    """What colcon reads: the same name and version everywhere, and the entry point is there."""
    manifest = xml.etree.ElementTree.parse(PACKAGE / "package.xml").getroot()
    name, version = manifest.findtext("name"), manifest.findtext("version")
    setup = (PACKAGE / "setup.py").read_text(encoding="utf-8")
    assert f'name="{name}"' in setup
    assert f'version="{version}"' in setup
    assert (PACKAGE / "resource" / str(name)).is_file()
    node = (PACKAGE / str(name) / "node.py").read_text(encoding="utf-8")
    assert "def main()" in node
    needed = {element.text for element in manifest.findall("exec_depend")}
    imported = {line.split()[1].split(".")[0] for line in node.splitlines() if line.startswith(("import ", "from "))}
    assert {"rclpy", "sensor_msgs", "std_msgs", "vision_msgs"} == needed
    assert needed <= imported
