"""``python -m clipedge.bench BUNDLE [VARIANT [BACKEND]]``: latency of a bundle's towers as JSON.

From a process of its own: the thread pools of two engines in one process disturb each other.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from clipedge.bench.latency import tower_latencies

if __name__ == "__main__":
    print(json.dumps({tower: asdict(latency) for tower, latency in tower_latencies(*sys.argv[1:]).items()}))
