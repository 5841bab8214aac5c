"""ClipEdge: CLIP on devices.

    import clipedge
    clip = clipedge.load("clip-int8")                  # a bundle: what `clipedge export` writes
    clip.encode_image(images)                          # (N, D) float32, L2-normalised
    clip.classifier(["cat", "dog"]).predict(images)
    index = clipedge.Index.open("photos.index", clip.manifest.space_id)     # what `clipedge index` writes
    index.search(clip.encode_text("a red car"), k=10)
    with clipedge.Stream(clip.classifier(bank), on_event=print) as stream:  # a camera's frames, at any rate
        stream.push(frame, time.monotonic())

This package is what runs on the device. ``clipedge.export`` and ``clipedge.calibration`` are for the workstation and
are never imported from here.
"""

from clipedge.camera.presence import Event, EventRule
from clipedge.camera.stream import Stream
from clipedge.classify import Classifier
from clipedge.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    ClipEdgeError,
    GateError,
    ImageError,
    IndexBusyError,
    MissingDependencyError,
    SpaceError,
    UsageError,
)
from clipedge.images.frames import Frame
from clipedge.model import Clip, load
from clipedge.prompts.bank import PromptBank
from clipedge.retrieval.index import Index

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BundleError",
    "CheckpointError",
    "Classifier",
    "Clip",
    "ClipEdgeError",
    "Event",
    "EventRule",
    "Frame",
    "GateError",
    "ImageError",
    "Index",
    "IndexBusyError",
    "MissingDependencyError",
    "PromptBank",
    "SpaceError",
    "Stream",
    "UsageError",
    "load",
]
