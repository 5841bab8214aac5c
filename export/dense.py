"""``--dense``: a further graph of each variant, which gives a picture's patches in the space of its texts.

It is a file of its own, since engines compute outputs that nobody asked for. In INT8 it has the image tower's
calibration: its layers are the image tower's, and read the same values. Only in the last block two stay in float: keys
and values, which the image tower does not compute (``simplify.absorb_keys_and_values``), and the output projection,
which reads each patch's share instead of their sum (a quarter of a block's multiply-adds).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clipedge.calibration.calibrate import Calibration
from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import ImageConfig, VitConfig
from clipedge.export.convert import write_variant
from clipedge.export.graphs import write_dense_graph
from clipedge.export.half import half_failures, prove_half_tower
from clipedge.export.layout import Layout
from clipedge.export.ranges import Calibrations
from clipedge.export.towers import DenseTower, ImageTower, dense_tower
from clipedge.export.variants import PreparedTower, ProvenVariant, prepare, prove_tower
from clipedge.export.verify import Gate, gate_failures

__all__ = ["check_dense", "prepare_dense", "prove_dense"]

GOLDENS = 1  # pictures with their patches' embeddings: those of ViT-L/14 at 336 pixels take 1.8 MB
PROOF_PATCHES = 4096  # the proof compares each with every other


def check_dense(checkpoint: Checkpoint, layout: Layout) -> None:
    """Raises UsageError for a model that has no patches to show, and for a layout that has no place for them."""
    if layout != "bundle":
        raise UsageError(f"--dense makes a file that the layout {layout} has no name for; leave one of the two out")
    if (reason := _obstacle(checkpoint.image)) is not None:
        raise UsageError(
            f"--dense is there for vision transformers that pool a class token, and {checkpoint.name} {reason}; "
            "export it without"
        )


def _obstacle(config: ImageConfig) -> str | None:
    if not isinstance(config, VitConfig):
        return f"is none ({type(config).__name__.removesuffix('Config')})"
    if config.pool != "class" or not config.class_token:
        return f'pools by attention ("{config.pool}")'
    if config.image_size % config.patch_size:
        return f"has patches of {config.patch_size} pixels, which do not cover its {config.image_size}"
    return None


def prepare_dense(image: PreparedTower, folder: Path) -> PreparedTower:
    """The patches of the prepared image tower, to be proven on as many of its golden pictures as is reasonable."""
    tower = image.source.module
    assert isinstance(tower, ImageTower)
    count = max(PROOF_PATCHES // (tower.config.tokens - 1), GOLDENS)
    source = replace(
        image.source,
        name="dense",
        module=dense_tower(tower),
        write_graph=lambda path: write_dense_graph(tower, path),
        proof=[image.golden_inputs[i : i + 1] for i in range(min(count, len(image.golden_inputs)))],
    )
    prepared = prepare(source, folder)
    return replace(prepared, golden_inputs=prepared.golden_inputs[:GOLDENS])


def prove_dense(
    found: ProvenVariant,
    image: PreparedTower,
    dense: PreparedTower,
    folder: Path,
    calibrations: Calibrations,
    gate: Gate,
) -> ProvenVariant:
    """The variant with the patches' graph, written into ``folder`` and proven; layers that the proof of the image tower
    left in float stay so."""
    variant = found.towers["image"].variant
    if variant.precision == "fp16":
        half, operations = prove_half_tower(dense, folder, "any", calibrations)
        failures = gate_failures({"dense": half.parity}, None, gate) + half_failures({"dense": half}, gate)
        return replace(
            found,
            towers=found.towers | {"dense": half},
            failures=(*found.failures, *failures),
            kept=(*found.kept, *operations),
        )
    calibration: Calibration | None = None
    kept: frozenset[str] = frozenset()
    if variant.precision == "int8":
        calibration = calibrations.of(image.source, image.graph, variant.target)
        in_float = (layer.layer for layer in found.layers if layer.tower == "image" and layer.in_float)
        kept = frozenset(in_float) | _own_layers(dense)
    written = write_variant(dense.source, dense.graph, folder, variant.precision, variant.target, calibration, kept)
    proven = prove_tower(dense, written, folder)
    failures = gate_failures({"dense": proven.parity}, None, gate)
    return replace(found, towers=found.towers | {"dense": proven}, failures=(*found.failures, *failures))


def _own_layers(dense: PreparedTower) -> frozenset[str]:
    """The layers that the image tower does not have, or not with these inputs."""
    tower = dense.source.module
    assert isinstance(tower, DenseTower)
    return frozenset(f"blocks.{len(tower.blocks)}.attn.{part}" for part in ("key_value", "out"))
