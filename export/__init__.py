"""From a checkpoint to a proven bundle. Runs on the workstation (needs the extra ``clipedge[export]``).

from clipedge.export import export

export("path/to/clip", "clip-int8", precision="int8", calibration_data="photos/")
"""

from __future__ import annotations

from typing import Any

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: only who exports pays for it, not who imports a module beside the pipeline.
    if name == "export":
        from clipedge.export.pipeline import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
