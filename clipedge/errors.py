"""Every error that ClipEdge raises on purpose.

    ClipEdgeError                   the text says what was expected, what was found, what to do
    ├── UsageError                  the call was wrong: a path, a name, an option, a shape
    │   ├── CheckpointError         the model to export is missing, damaged or of an unknown architecture
    │   ├── ImageError              a picture cannot be read, or is no picture
    │   └── MissingDependencyError  an optional package is needed; the text names the extra to install
    ├── BundleError                 a bundle, prompt bank or index is missing, damaged, altered or too new
    │   └── SpaceError              two things that belong to different models were put together
    ├── IndexBusyError              another process writes to the index
    ├── BackendError                an engine is not there, refuses the graph, or gives wrong numbers
    └── GateError                   the exported model does not give the source model's answers

The command line turns these into one line on stderr and the exit code of the class.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BackendError",
    "BundleError",
    "CheckpointError",
    "ClipEdgeError",
    "GateError",
    "ImageError",
    "IndexBusyError",
    "MissingDependencyError",
    "SpaceError",
    "UsageError",
]


class ClipEdgeError(Exception):
    """Base class. ``exit_code`` is what the command line returns: 1 the job failed, 2 the call was wrong."""

    exit_code = 1


class UsageError(ClipEdgeError, ValueError):
    exit_code = 2


class CheckpointError(UsageError):
    pass


class ImageError(UsageError):
    pass


class MissingDependencyError(UsageError, ImportError):
    pass


class BundleError(ClipEdgeError):
    pass


class SpaceError(BundleError):
    pass


class IndexBusyError(ClipEdgeError):
    pass


class BackendError(ClipEdgeError):
    pass


class GateError(ClipEdgeError):
    """``report`` is the export's whole report (``clipedge.export.report.Report``)."""

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report
