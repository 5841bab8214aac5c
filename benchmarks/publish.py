"""What the benchmarks share: the demonstration bundle that they measure, and how their results are written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layout import RESULTS

__all__ = ["demonstration_bundle", "publish", "target_lines"]


@contextmanager
def demonstration_bundle(given: Path | None, dense: bool = False) -> Iterator[Path]:
    """The bundle ``given`` or, without one, the demonstration model exported in int8 and fp32 for this while."""
    if given is not None:
        yield given
        return
    from clipedge.export import export

    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "demo"
        export(None, bundle, precision=("int8", "fp32"), target="x86", dense=dense)
        yield bundle


def target_lines(targets: Iterable[Mapping[str, Any]]) -> list[str]:
    """A table of what was asked (``text``), what was ``found``, and whether that ``met`` it."""
    verdicts = {True: "met", False: "**not met**"}
    rows = [f"| {target['text']} | {target['found']} | {verdicts[target['met']]} |" for target in targets]
    return ["| target | found | |", "|---|---|---|", *rows]


def publish(name: str, document: Mapping[str, Any], page: str) -> None:
    """Write ``results/NAME.json`` and ``results/NAME.md``, and print the latter."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page, end="")
