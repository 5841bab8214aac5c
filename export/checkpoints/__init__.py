"""Where weights come from: every kind of source is read into one ``Checkpoint``."""

from clipedge.export.checkpoints.checkpoint import Checkpoint, ModelSource
from clipedge.export.checkpoints.loading import DEMO_CHECKPOINT, load_checkpoint, named_source

__all__ = ["DEMO_CHECKPOINT", "Checkpoint", "ModelSource", "load_checkpoint", "named_source"]
