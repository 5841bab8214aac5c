"""What libclipedge adds to ONNX Runtime's own session run on the same input, in percent.

    python benchmarks/bindings_overhead.py [--rounds 9] [--calls 400] [--bundle DIR]

bindings_overhead.cpp calls both in turn, on one thread each, with a picture of the tower's own size: what is measured
is the checking of the call, the copy of the pixels, and the handling of tensors. A round is the first decile of the
calls of each, which other processes on the machine disturb least; the table has the medians of the rounds, and the
smallest and the largest overhead of a round. Both have to give the same numbers, bit for bit. The library is built with
`make bindings`. Without --bundle the demonstration model is exported. Writes results/bindings_overhead.md and .json
beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from layout import REPOSITORY, RESULTS
from machine import describe_machine

from clipedge.bundle import open_bundle

BUILD = REPOSITORY / "build" / "bindings"
HEADERS = REPOSITORY / "build" / "onnxruntime-headers"
LIMIT = 3.0  # percent


@dataclass(frozen=True)
class Row:
    """Microseconds of a call; ``overhead`` in percent: the median of the rounds, the smallest, the largest."""

    variant: str
    session: float
    clipedge: float
    overhead: tuple[float, float, float]


def compile_program(output: Path) -> None:
    """The C++ side, against the library in ``BUILD``. Raises CalledProcessError."""
    source = Path(__file__).with_suffix(".cpp")
    headers = [f"-I{REPOSITORY / 'bindings' / 'c' / 'include'}", f"-I{HEADERS}", "-I/usr/include/onnxruntime"]
    libraries = [f"-L{BUILD}", "-lclipedge", "-l:libonnxruntime.so.1", f"-Wl,-rpath,{BUILD}"]
    subprocess.run(["g++", "-std=c++17", "-O2", *headers, source, "-o", output, *libraries], check=True)


def measure(program: Path, bundle: Path, rounds: int, calls: int) -> Row:
    """Run the C++ side on a bundle's image tower. Raises CalledProcessError where the two give other numbers."""
    manifest = open_bundle(bundle).manifest
    variant = next(one for one in manifest.variants if one.tower == "image")
    size = manifest.preprocessing.width
    command = [program, bundle, bundle / variant.files[0].path, size, manifest.embedding_dim, rounds, calls]
    lines = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout.splitlines()
    pairs = [tuple(map(float, line.split())) for line in lines]
    overheads = sorted(100 * (ours / session - 1) for session, ours in pairs)
    session, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    overhead = (statistics.median(overheads), overheads[0], overheads[-1])
    return Row(variant.precision, session, ours, overhead)


def markdown(rows: list[Row], machine: dict[str, object], rounds: int, calls: int) -> str:
    """The page."""
    return "\n".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores; {machine['date']}; one thread, batch 1, first decile of "
            f"{calls} calls each in a round, medians of {rounds} rounds.",
            "",
            f"| image tower | session run (us) | libclipedge (us) | overhead (%) | rounds | at most {LIMIT:.0f} % |",
            "|---|---:|---:|---:|---:|---|",
            *(
                f"| {row.variant} | {row.session:.1f} | {row.clipedge:.1f} | {row.overhead[0]:.2f} | "
                f"{row.overhead[1]:.2f} to {row.overhead[2]:.2f} | "
                f"{'met' if row.overhead[0] <= LIMIT else '**not met**'} |"
                for row in rows
            ),
            "",
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=400, help="of each, in a round")
    parser.add_argument("--bundle", type=Path, action="append", help="a bundle; repeat it for several")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundles = arguments.bundle or [Path(scratch) / "int8", Path(scratch) / "fp32"]
        if arguments.bundle is None:
            from clipedge.export import export

            for bundle in bundles:
                export(None, bundle, precision=bundle.name)  # type: ignore[arg-type]
        program = Path(scratch) / "bindings_overhead"
        compile_program(program)
        rows = [measure(program, bundle, arguments.rounds, arguments.calls) for bundle in bundles]
    machine = describe_machine()
    document = {
        "machine": machine,
        "rounds": arguments.rounds,
        "calls": arguments.calls,
        "rows": [asdict(row) for row in rows],
    }
    page = markdown(rows, machine, arguments.rounds, arguments.calls)
    (RESULTS / "bindings_overhead.md").write_text(page, encoding="utf-8")
    (RESULTS / "bindings_overhead.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
