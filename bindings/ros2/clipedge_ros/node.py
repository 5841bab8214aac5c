"""The node: images in, classifications and labels out.

    ros2 run clipedge_ros classifier --ros-args -p bundle:=/opt/aisle-int8 -p bank:=aisle -r image:=/camera/image_raw

Subscribes to ``image`` (sensor_msgs/Image) and publishes, for each frame that the model answered or that showed nothing
new, ``~/classification`` (vision_msgs/Classification): smoothed probabilities, with the header of the image. A frame
that came while the model was busy has none. ``~/label_info`` (vision_msgs/LabelInfo) has the labels' names and is
latched: transient local.

Parameters: ``bundle``, a folder; ``bank``, the name or the file of a prompt bank ("" for the bundle's only one);
``threshold``, the probability below which a label is left out.

This file was checked against the published interfaces of rclpy and vision_msgs, and **has not been run**: where
ClipEdge is built there is no ROS. What it does with messages is in ``messages.py``, and that is tested.
"""

from __future__ import annotations

import threading
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass

import clipedge
from clipedge.camera.presence import Presence
from clipedge_ros.messages import class_map, frame_of, hypotheses

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ClassifierNode(Node):
    """Call ``close`` before ``destroy_node``: the model's thread publishes."""

    def __init__(self) -> None:
        super().__init__("clipedge")
        self._threshold = float(self.declare_parameter("threshold", 0.1).value)
        classifier = self._classifier()
        self._headers: dict[float, Header] = {}  # of images that the model has not answered
        self._lock = threading.Lock()
        self._classifications = self.create_publisher(Classification, "~/classification", 10)
        self._labels = self.create_publisher(LabelInfo, "~/label_info", LATCHED)
        self._labels.publish(self._label_info(classifier.labels))
        self._stream = clipedge.Stream(classifier, on_event=self._log, on_answer=self._publish)
        self.create_subscription(Image, "image", self._take, qos_profile_sensor_data)

    def close(self) -> None:
        self._stream.close()

    def _classifier(self) -> clipedge.Classifier:
        bundle = self.declare_parameter("bundle", "").value
        bank = self.declare_parameter("bank", "").value
        if not bundle:
            raise clipedge.UsageError("the parameter bundle is missing: --ros-args -p bundle:=/path/to/bundle")
        clip = clipedge.load(bundle, spinning=False)
        names = clip.bundle.bank_names()
        if not bank and len(names) != 1:
            raise clipedge.UsageError(f"give -p bank:=NAME; the bundle has these: {', '.join(names) or 'none'}")
        saved = clipedge.PromptBank.load(bank) if Path(bank).is_file() else clip.saved_bank(bank or names[0])
        return clip.classifier(saved)

    def _label_info(self, labels: tuple[str, ...]) -> LabelInfo:
        classes = [VisionClass(class_id=number, class_name=name) for number, name in class_map(labels)]
        header = Header(stamp=self.get_clock().now().to_msg())
        return LabelInfo(header=header, class_map=classes, threshold=self._threshold)

    def _take(self, image: Image) -> None:
        frame = frame_of(image)
        with self._lock:
            self._headers[frame.timestamp] = image.header
        self._stream.push(frame, copy=False)  # every message has memory of its own

    def _publish(self, presence: Presence) -> None:
        with self._lock:
            header = self._headers[presence.timestamp]
            # The ones before it are of frames that came too late to be answered.
            self._headers = {time: kept for time, kept in self._headers.items() if time > presence.timestamp}
        results = [
            ObjectHypothesis(class_id=number, score=score)
            for number, score in hypotheses(presence.smoothed.tolist(), self._threshold)
        ]
        self._classifications.publish(Classification(header=header, results=results))

    def _log(self, event: clipedge.Event) -> None:
        self.get_logger().info(f"{event.label} {event.kind} ({event.probability:.3f})")


def main() -> None:
    """The executable ``classifier``."""
    rclpy.init()
    node = ClassifierNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
