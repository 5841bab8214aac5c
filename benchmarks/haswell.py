"""Does INT8 give the same answers on a processor without VNNI? Asked of emulated ones, with QEMU's user mode.

    python benchmarks/haswell.py [--bundle DIR] [--scenes 48]

Before VNNI, x86 adds pairs of u8 x s8 products in 16 bits, which saturate; engines that do not mind give wrong answers
there and right ones on the developer's machine. Each backend encodes the same scenes on this processor, on an emulated
Haswell (AVX2) and on an emulated Nehalem (SSE4.2), with the demonstration bundle in INT8; what comes out is compared
with the float32 checkpoint in torch. "Saturates" is the control: whether the largest products come out wrong in that
processor's default kernels. QEMU 7.2 or newer is needed (apt-get install qemu-user); it has no AVX-512 and no VNNI, so
processors with VNNI cannot be asked this way. Writes results/haswell.md and .json beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from machine import describe_machine
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from publish import publish

import clipedge
from clipedge.calibration.scenes import labelled_pictures
from clipedge.export.verify import GATE
from clipedge.selftest import centred_cosines

QEMU = "qemu-x86_64"
HERE = "this processor"
PROCESSORS = (HERE, "Haswell", "Nehalem")
BACKENDS = ("onnxruntime", "openvino")
INSTALL = f"{QEMU} is not installed; it emulates the processors: apt-get install qemu-user (version 7.2 or newer)"
LATER_SETS = re.compile(r"\b(avx512\w*|avx_vnni\w*|amx_\w*)")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """A backend on a processor against float32: how near its embeddings are, how often its best label is the same.

    ``largest_difference`` is to the same backend's embeddings on this machine's own processor.
    """

    processor: str
    backend: str
    arithmetic: str
    has_vnni: bool
    saturates: bool
    scenes: int
    median_centred_cosine: float
    p1_centred_cosine: float
    same_label: int
    largest_difference: float
    seconds: float

    @property
    def within_gate(self) -> bool:
        """The gate of an export."""
        return (
            self.median_centred_cosine >= GATE.median_centred_cosine
            and self.p1_centred_cosine >= GATE.p1_centred_cosine
        )


def write_product(path: Path, size: int = 64) -> None:
    """A graph that multiplies bytes by the largest int8 weights."""
    weight = numpy_helper.from_array(np.full((size, size), 127, np.int8), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["bytes", "weight"], ["product"])],
        "product",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, size])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [1, size])],
        [weight],
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 19)]), path)


def write_cpuinfo(root: Path) -> Path:
    """This machine's /proc/cpuinfo without what the emulated processors lack; QEMU's guests see the host's otherwise.

    Only what decides is taken out: VNNI, and the sets that come with it.
    """
    path = root / "proc" / "cpuinfo"
    path.parent.mkdir(parents=True)
    path.write_text(LATER_SETS.sub("", Path("/proc/cpuinfo").read_text(encoding="utf-8")), encoding="utf-8")
    return root


def run_worker(processor: str, bundle: Path, backend: str, folder: Path) -> tuple[dict[str, Any], Floats]:
    """What the worker tells, and embeddings (N, D). Raises RuntimeError if it fails."""
    # QEMU looks for each file below the folder that -L names first.
    emulator = [] if processor == HERE else [QEMU, "-L", str(folder / "root"), "-cpu", processor]
    script = Path(__file__).with_name("haswell_worker.py")
    command = [*emulator, sys.executable, str(script), str(bundle), backend, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # QEMU warns of every feature that it cannot emulate, once for each thread.
        lines = [line for line in done.stderr.splitlines() if "TCG doesn't support" not in line]
        raise RuntimeError(f"{backend} on {processor} ends with {done.returncode}: {(lines or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1]), np.load(folder / "embeds.npy")


def source_embeds(pixels: NDArray[np.uint8]) -> Floats:
    """The demonstration checkpoint's own, float32 in torch."""
    from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
    from clipedge.export.proof import source_encoder
    from clipedge.export.towers import build_image_tower

    return np.asarray(source_encoder(build_image_tower(load_checkpoint(DEMO_CHECKPOINT)))(pixels))


def measure(
    bundle: Path, scenes: int, processors: Sequence[str] = PROCESSORS, backends: Sequence[str] = BACKENDS
) -> list[Answers]:
    """A row for each processor and backend. ``bundle`` is one of the demonstration checkpoint in INT8."""
    manifest = clipedge.load(bundle).manifest
    bank = clipedge.load(bundle).saved_bank("default")
    pixels, _ = labelled_pictures("test", scenes, size=manifest.preprocessing.height)
    expected = source_embeds(pixels)
    centre = expected.mean(axis=0)
    rows, native = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "pixels.npy", pixels)
        write_product(folder / "product.onnx")
        write_cpuinfo(folder / "root")
        for processor in processors:
            for backend in backends:
                print(f"{backend} on {processor}", file=sys.stderr, flush=True)
                facts, found = run_worker(processor, bundle, backend, folder)
                native.setdefault(backend, found)
                labels = [(embeds @ bank.label_embeds.T).argmax(axis=1) for embeds in (expected, found)]
                cosines = centred_cosines(expected, found, centre)
                rows.append(
                    Answers(
                        processor=processor,
                        backend=backend,
                        arithmetic=facts["arithmetic"],
                        has_vnni=facts["has_vnni"],
                        saturates=facts["saturates"],
                        scenes=scenes,
                        median_centred_cosine=float(np.median(cosines)),
                        p1_centred_cosine=float(np.percentile(cosines, 1)),
                        same_label=int((labels[0] == labels[1]).sum()),
                        largest_difference=float(np.abs(found - native[backend]).max()),
                        seconds=facts["load_seconds"] + facts["embed_seconds"],
                    )
                )
    return rows


def markdown(rows: Sequence[Answers], machine: Mapping[str, Any]) -> str:
    """The table, and whether all is within the gate."""
    lines = [
        "# INT8 on processors without VNNI",
        "",
        f"The demonstration bundle in INT8 on {rows[0].scenes} scenes against the float32 checkpoint. This processor: "
        f"{machine['cpu']},",
        f"VNNI: {'yes' if machine['vnni'] else 'no'}. The others are emulated by QEMU, which has no AVX-512; "
        f"{machine['date']}.",
        "",
        "| processor | backend | arithmetic | u8 x s8 saturates | median centred cosine | 1st percentile | same label "
        "| largest difference to this processor | within the gate |",
        "|---|---|---|---|---:|---:|---:|---:|---|",
        *(
            f"| {row.processor} | {row.backend} | {row.arithmetic} | {_yes(row.saturates)} "
            f"| {row.median_centred_cosine:.4f} | {row.p1_centred_cosine:.4f} | {row.same_label} of {row.scenes} "
            f"| {row.largest_difference:.1e} | {_yes(row.within_gate)} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> int:
    """The command line. Exit code 1 if answers are outside the gate, 2 if there is no emulator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the demonstration model in INT8 (default: exported now)")
    parser.add_argument("--scenes", type=int, default=48, help="how many (default 48)")
    args = parser.parse_args()
    if shutil.which(QEMU) is None:
        print(INSTALL, file=sys.stderr)
        return 2
    backends = [name for name in BACKENDS if find_spec(name)]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = args.bundle
        if bundle is None:
            from clipedge.export import export

            bundle = Path(scratch) / "bundle"
            export(None, bundle, precision="int8", target="x86")
        rows = measure(bundle, args.scenes, backends=backends)
    machine = describe_machine()
    page = markdown(rows, machine)
    document = {"machine": machine, "rows": [asdict(row) | {"within_gate": row.within_gate} for row in rows]}
    publish("haswell", document, page)
    return 0 if all(row.within_gate for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
