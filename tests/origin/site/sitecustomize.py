"""Lets the Python of ``.venv-origin`` run ClipEdge with open_clip, where this folder is in PYTHONPATH.

ClipEdge is installed for editing in the environment below, whose ``.pth`` files are not read for this one. And
torchvision, which open_clip imports, registers operators that a CPU build of torch does not have; ``worker.py`` gets
past that for itself, but an export starts further processes.
"""

import site
import sys
from pathlib import Path
from typing import Any

import torch

for folder in list(sys.path):
    if any(Path(folder).glob("__editable__.clipedge-*.pth")):
        site.addsitedir(folder)

register = torch.library.register_fake


def forgiving(op: Any, *arguments: Any, **options: Any) -> Any:
    if isinstance(op, str) and op.startswith("torchvision::"):
        return arguments[0] if arguments and callable(arguments[0]) else lambda function: function
    return register(op, *arguments, **options)


torch.library.register_fake = forgiving
