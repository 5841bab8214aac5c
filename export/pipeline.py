"""export(): the whole job, from a checkpoint to a proven bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from clipedge.backends import Engine, open_engine
from clipedge.bundle import MANIFEST_NAME, replacing_folder
from clipedge.calibration.sensitivity import LayerCost
from clipedge.errors import GateError, UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.convert import Conversion, convert
from clipedge.export.graph import write_image_graph, write_text_graph
from clipedge.export.html import report_html
from clipedge.export.material import Material, gather_material
from clipedge.export.package import TOKENIZER_NAME, carry_banks, make_manifest, write_goldens, write_model_card
from clipedge.export.proof import (
    SidesByInput,
    latencies,
    run_both,
    source_encoder,
    tower_report,
    variant_proof,
)
from clipedge.export.report import Report
from clipedge.export.source_texts import SourceTexts
from clipedge.export.streams import PixelStream, token_stream
from clipedge.export.towers import build_image_tower
from clipedge.export.verify import Parity, ZeroShot, compare_answers, compare_embeddings, gate_failures
from clipedge.manifest import Manifest, Precision, Target
from clipedge.model import variant_name
from clipedge.prompts import build_bank

__all__ = ["PRECISIONS", "TARGETS", "export"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
TARGETS: tuple[Target, ...] = ("x86", "arm")
COST_INPUTS = 16  # inputs on which the layers' costs are compared when an export fails
COSTLY_LAYERS = 5
MIN_PROOF = 2  # a mean has to be subtracted, and something has to be left


@dataclass(frozen=True, eq=False)
class ExportedTower:
    """A tower on both sides: the source in torch, the exported graph in its engine, and what both gave."""

    source: torch.nn.Module
    conversion: Conversion
    engine: Engine
    sides: SidesByInput
    parity: Parity


def export(
    model: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    precision: Precision = "int8",
    target: Target = "x86",
    calibration_data: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    text: bool = True,
) -> Report:
    """Export ``model`` to a bundle at ``output`` and prove that it gives the same answers.

    ``model``: a Hugging Face CLIP folder, or None for the demonstration checkpoint. ``calibration_data``: a folder, a
    list or a webdataset tar of pictures, as ``read_pictures`` takes them (two thirds calibrate, one third proves;
    classes give the accuracy), or "scenes".
    ``labels`` in ``templates`` become the prompt bank ``default``. ``text=False`` leaves the text tower out.

    An export that fails leaves nothing behind: what was at ``output`` stays. Raises GateError (which holds the
    report) if the exported model stays below the gate, CheckpointError or UsageError for input that cannot be used.
    """
    _check_choice("precision", precision, PRECISIONS)
    _check_choice("target", target, TARGETS)
    with replacing_folder(output) as folder:
        checkpoint = load_checkpoint(DEMO_CHECKPOINT if model is None else model)
        material = gather_material(checkpoint, precision, calibration_data, labels, templates)
        calibration = PixelStream(material.calibration, checkpoint.preprocessing, "calibrating the image tower")
        proof = PixelStream(material.proof, checkpoint.preprocessing, "proving the image tower")
        texts = SourceTexts(checkpoint)
        towers = {"image": _export_image_tower(checkpoint, folder, precision, target, calibration, proof)}
        if len(proof.indices) < MIN_PROOF:
            raise UsageError(f"only {len(proof.indices)} of the proof pictures can be read: {proof.unreadable[0]}")
        if text:
            towers["text"] = _export_text_tower(texts, material, folder, precision, target)
            (folder / TOKENIZER_NAME).write_bytes(checkpoint.tokenizer_json)
        manifest = _write_manifest(folder, checkpoint, towers, calibration)
        zero_shot = _zero_shot(folder, manifest, material, proof, texts, towers)
        carry_banks(Path(output), folder, manifest.space_id)
        report = _report(folder, checkpoint, manifest, towers, zero_shot, calibration, proof)
        if not report.passed:
            raise GateError("; ".join(report.failures), report)
        # Names of files come with whatever bytes they have.
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8", errors="backslashreplace")
        (folder / "report.html").write_text(report_html(report), encoding="utf-8", errors="backslashreplace")
        write_model_card(folder, Path(output).name, manifest, report)
    return report


def _check_choice(what: str, found: str, choices: Sequence[str]) -> None:
    if found not in choices:
        raise UsageError(f"unknown {what} {found!r}; there are: {', '.join(choices)}")


def _export_image_tower(
    checkpoint: Checkpoint,
    folder: Path,
    precision: Precision,
    target: Target,
    calibration: PixelStream,
    proof: PixelStream,
) -> ExportedTower:
    source = build_image_tower(checkpoint)
    pixel_mean = [255 * mean for mean in checkpoint.preprocessing.mean]
    conversion = convert(
        lambda path: write_image_graph(source, path), folder, "image", precision, target, calibration, pixel_mean
    )
    return _run_tower(source, conversion, proof)


def _export_text_tower(
    texts: SourceTexts, material: Material, folder: Path, precision: Precision, target: Target
) -> ExportedTower:
    calibration = token_stream(material.calibration_texts, texts.tokenizer, "calibrating the text tower")
    conversion = convert(
        lambda path: write_text_graph(texts.tower, path), folder, "text", precision, target, calibration
    )
    return _run_tower(
        texts.tower, conversion, token_stream(material.proof_texts, texts.tokenizer, "proving the text tower")
    )


def _run_tower(source: torch.nn.Module, conversion: Conversion, proof: Iterable[npt.NDArray[Any]]) -> ExportedTower:
    engine = open_engine(conversion.path, conversion.variant)
    sides = run_both(source_encoder(source), engine, proof)
    return ExportedTower(source, conversion, engine, sides, compare_embeddings(sides.source, sides.exported))


def _write_manifest(
    folder: Path, checkpoint: Checkpoint, towers: dict[str, ExportedTower], calibration: PixelStream
) -> Manifest:
    write_goldens(folder, {name: tower.sides for name, tower in towers.items()})
    variants = tuple(
        dataclasses.replace(tower.conversion.variant, proof=variant_proof(tower.engine, tower.sides, tower.parity))
        for tower in towers.values()
    )
    manifest = make_manifest(folder, checkpoint, variants, calibration.sha256)
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _zero_shot(
    folder: Path,
    manifest: Manifest,
    material: Material,
    proof: PixelStream,
    texts: SourceTexts,
    towers: dict[str, ExportedTower],
) -> ZeroShot | None:
    """Classify the proof pictures with both models, each with its own text tower; save the source's prompt bank."""
    if not material.labels:
        return None
    source_bank = build_bank(texts.encode, manifest, material.labels, material.templates)
    source_bank.save(folder / "prompts" / "default.safetensors")
    exported_bank = source_bank
    if "text" in towers:
        encoder = towers["text"].engine
        exported_bank = build_bank(
            lambda prompts: texts.encode_with(encoder, prompts), manifest, material.labels, material.templates
        )
    sides = towers["image"].sides
    return compare_answers(
        (sides.source @ source_bank.label_embeds.T).argmax(axis=1),
        (sides.exported @ exported_bank.label_embeds.T).argmax(axis=1),
        None if material.truth is None else material.truth[proof.indices],
        material.labels,
    )


def _report(
    folder: Path,
    checkpoint: Checkpoint,
    manifest: Manifest,
    towers: dict[str, ExportedTower],
    zero_shot: ZeroShot | None,
    calibration: PixelStream,
    proof: PixelStream,
) -> Report:
    image = towers["image"]
    before = latencies("clipedge.export.source_latency", str(checkpoint.folder), *towers)
    after = latencies("clipedge.bench", str(folder), variant_name(image.conversion.variant))
    reports = {
        name: tower_report(tower.source, tower.conversion.path, tower.parity, before[name], after[name])
        for name, tower in towers.items()
    }
    failures = gate_failures({name: report.parity for name, report in reports.items()}, zero_shot)
    return Report(
        model=manifest.provenance.source_model,
        precision=image.conversion.variant.precision,
        target=image.conversion.variant.target,
        engine=f"{image.engine.name} {image.engine.version}",
        calibration=calibration.description if calibration.indices else None,
        proof=proof.description,
        unreadable=(*calibration.unreadable, *proof.unreadable),
        towers=reports,
        zero_shot=zero_shot,
        failures=tuple(failures),
        costly_layers=tuple(_costly_layers(towers)) if failures else (),
        provenance=manifest.provenance,
    )


def _costly_layers(towers: dict[str, ExportedTower]) -> list[LayerCost]:
    """The layers to look at first when an INT8 export stays below the gate."""
    costs = [
        cost
        for tower in towers.values()
        if tower.conversion.costs is not None
        for cost in tower.conversion.costs(tower.sides.golden_inputs[:COST_INPUTS])
    ]
    return sorted(costs, key=lambda item: -item.cost)[:COSTLY_LAYERS]
