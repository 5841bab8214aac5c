"""export(): the whole job, from a checkpoint to a proven bundle."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from clipedge.bundle import replacing_folder
from clipedge.errors import GateError, UsageError
from clipedge.export.checkpoints import Checkpoint, load_checkpoint, named_source
from clipedge.export.checkpoints.licenses import find_license
from clipedge.export.choice import Choice
from clipedge.export.dense import check_dense, prepare_dense, prove_dense
from clipedge.export.fastest import AUTO, auto_precisions, check_auto, choose_fastest, drop_files
from clipedge.export.finishing import check_finish
from clipedge.export.half import prove_half
from clipedge.export.layout import Layout, check_layout, to_huggingface
from clipedge.export.material import Material, gather_material
from clipedge.export.package import (
    TOKENIZER_NAME,
    carry_banks,
    make_manifest,
    write_goldens,
    write_manifest,
    write_model_card,
)
from clipedge.export.ranges import Calibrations, check_int8_attention
from clipedge.export.report import Report
from clipedge.export.rival import Quantizer, check_quantizer, prove_modelopt, prove_rival
from clipedge.export.source_texts import SourceTexts
from clipedge.export.sources import image_source, text_source
from clipedge.export.streams import PixelStream
from clipedge.export.summary import summarize, write_reports
from clipedge.export.variants import Answers, PreparedTower, ProvenVariant, prepare, prove_variant
from clipedge.export.verify import GATE
from clipedge.manifest import Precision, Target
from clipedge.prompts.bank import build_bank

__all__ = ["PRECISIONS", "TARGETS", "export"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "fp8")
TARGETS: tuple[Target, ...] = ("x86", "arm", "tensorrt")
Wanted: TypeAlias = Precision | Literal["auto"]
MIN_PROOF = 2  # a mean has to be subtracted, and something has to be left


def export(
    model: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    precision: Wanted | Sequence[Wanted] = "int8",
    target: Target | Sequence[Target] = "x86",
    calibration_data: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    text: bool = True,
    arch: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    max_drop: float | None = None,
    calibration_cache: str | os.PathLike[str] | None = None,
    layout: Layout = "bundle",
    dense: bool = False,
    quantizer: Quantizer = "clipedge",
    int8_attention: bool = False,
    finish: int = 0,
) -> Report:
    """Export ``model`` to a bundle at ``output`` and prove that it gives the same answers.

    ``model``: a folder in Hugging Face's or OpenCLIP's layout, a file of weights (``arch``: of which architecture;
    ``tokenizer``: where its tokenizer is), "owner/name" on a hub (``revision``: a branch, tag or commit there), or None
    for the demonstration checkpoint. ``precision`` and ``target`` may be several: the bundle then holds a variant for
    each, and the report those of the further ones in ``also``. ``precision`` "auto" tries each, and keeps the fastest
    on this device that passes its proof (``clipedge.export.fastest``).
    ``calibration_data``: a folder, a list or a webdataset tar of pictures, as ``read_pictures`` takes them (two thirds
    calibrate, one third proves; classes give the accuracy), or "scenes". ``labels`` in ``templates`` become the prompt
    bank ``default``. ``text=False`` leaves the text tower out.

    FP16 leaves in float32 what half precision cannot hold on the calibration pictures, and is proven in real half
    precision, too. INT8 leaves a layer in float only if the proof fails without. ``max_drop``: how many points of
    zero-shot accuracy the export may cost, in place of the gate's one; it takes labelled pictures.
    ``calibration_cache``: a file that keeps the calibration; if it exists and has what is needed, INT8 looks at no
    calibration picture. ``layout``
    "huggingface" writes a folder in the hub's conventions instead of a bundle (``clipedge.export.layout``).
    ``dense``: each variant also gets a graph of the pictures' patches, which heatmaps are made of
    (``clipedge.export.dense``). ``quantizer`` "modelopt" has NVIDIA's Model Optimizer quantize for TensorRT, and shows
    our own quantizer's proof beside its one; FP8 it alone makes (``clipedge.export.rival``). ``int8_attention``: for
    TensorRT the products of attention are in INT8, too, which fewer models bear; whether that is faster only the GPU
    tells. ``finish``: INT8 is trained for so many steps to give the float towers' embeddings
    (``clipedge.export.finishing``).

    An export that fails leaves nothing behind: what was at ``output`` stays. Raises GateError (which holds the
    report) if the exported model stays below the gate, BackendError if a graph breaks TensorRT's rules (``target``
    "tensorrt"), CheckpointError or UsageError for input that cannot be used.
    """
    wanted = _wanted_variants(precision, target)
    check_layout(layout, wanted)
    check_quantizer(quantizer, wanted, dense)
    if int8_attention:
        check_int8_attention(wanted)
    if finish:
        check_finish(finish, wanted, quantizer, int8_attention)
    with replacing_folder(output) as folder:
        checkpoint = load_checkpoint(named_source(model, arch, tokenizer, revision))
        _warn_of_restrictions(checkpoint)
        if dense:
            check_dense(checkpoint, layout)
        calibrated = next((kind for kind, _ in wanted if kind in ("int8", "fp8")), "fp32")
        material = gather_material(checkpoint, calibrated, calibration_data, labels, templates)
        _check_drop(max_drop, material, len(material.proof))
        gate = GATE if max_drop is None else dataclasses.replace(GATE, max_drop_points=max_drop)
        pictures = PixelStream(material.calibration, checkpoint.preprocessing, "calibrating the image tower")
        calibrations = Calibrations(checkpoint.space_id, pictures, calibration_cache, int8_attention, finish)
        proof = PixelStream(material.proof, checkpoint.preprocessing, "proving the image tower")
        texts = SourceTexts(checkpoint)
        sources = [image_source(checkpoint, pictures, proof), *([text_source(texts, material)] if text else [])]
        towers: dict[str, PreparedTower] = {source.name: prepare(source, folder) for source in sources}
        patches = {"dense": prepare_dense(towers["image"], folder)} if dense else {}
        if len(proof.indices) < MIN_PROOF:
            raise UsageError(f"only {len(proof.indices)} of the proof pictures can be read: {proof.unreadable[0]}")
        _check_drop(max_drop, material, len(proof.indices))
        if text:
            (folder / TOKENIZER_NAME).write_bytes(checkpoint.tokenizer_json)
        write_goldens(folder, towers | patches)
        answers = _answers(folder, checkpoint, material, proof, texts, towers)
        proven = [
            prove_half(towers, folder, place, calibrations, answers, gate)
            if kind == "fp16"
            else prove_modelopt(kind, towers, folder, calibrations, answers, gate)
            if kind == "fp8"
            else prove_variant(towers, folder, kind, place, calibrations, answers, gate)
            for kind, place in wanted
        ]
        if quantizer == "modelopt":
            proven = [
                prove_rival(found, towers, folder, calibrations, answers, gate) if kind == "int8" else found
                for (kind, _), found in zip(wanted, proven, strict=True)
            ]
        for tower in patches.values():
            proven = [prove_dense(found, towers["image"], tower, folder, calibrations, gate) for found in proven]
        choice = None
        if AUTO in precision and any(not found.failures for found in proven):
            proven, choice = _keep_fastest(folder, checkpoint, proven, calibrations.sha256)
        manifest = write_manifest(folder, checkpoint, proven, calibrations.sha256)
        carry_banks(Path(output), folder, manifest.space_id)
        report = summarize(folder, checkpoint, manifest, towers | patches, proven, calibrations, proof)
        report = dataclasses.replace(report, choice=choice)
        if not report.passed:
            raise GateError("; ".join(report.all_failures), report)
        write_reports(folder, report)
        write_model_card(folder, Path(output).name, manifest, report)
        if layout == "huggingface":
            to_huggingface(folder, Path(output).name, checkpoint, manifest, report)
        calibrations.save()
    return report


def _warn_of_restrictions(checkpoint: Checkpoint) -> None:
    license = find_license(checkpoint.license)
    if license.restricts:
        warnings.warn(
            f"the licence of {checkpoint.name} restricts its use, and that of the bundle: {license}", stacklevel=3
        )


def _keep_fastest(
    folder: Path, checkpoint: Checkpoint, proven: Sequence[ProvenVariant], calibration_sha256: str | None
) -> tuple[list[ProvenVariant], Choice]:
    """The fastest of the variants that passed; the files of the others are deleted."""
    write_manifest(folder, checkpoint, [found for found in proven if not found.failures], calibration_sha256)
    fastest, choice = choose_fastest(folder, proven)
    drop_files(folder, fastest, proven)
    return [fastest], choice


def _wanted_variants(
    precision: Wanted | Sequence[Wanted], target: Target | Sequence[Target]
) -> list[tuple[Precision, Target]]:
    """Each precision for each target; a graph in float serves all, and is held to TensorRT's rules if that is one."""
    names = [precision] if isinstance(precision, str) else list(dict.fromkeys(precision))
    targets = [target] if isinstance(target, str) else list(dict.fromkeys(target))
    if AUTO in names:
        check_auto(names, targets)
    precisions = [kind for name in names for kind in (auto_precisions() if name == "auto" else (name,))]
    for what, found, choices in (("precision", precisions, PRECISIONS), ("target", targets, TARGETS)):
        for name in found or [""]:
            if name not in choices:
                raise UsageError(f"unknown {what} {name!r}; there are: {', '.join(choices)}")
    strictest = "tensorrt" if "tensorrt" in targets else targets[0]
    return [(kind, place) for kind in precisions for place in (targets if kind in ("int8", "fp8") else [strictest])]


def _check_drop(max_drop: float | None, material: Material, pictures: int) -> None:
    """Raises UsageError for a budget that is none, or that ``pictures`` proof pictures cannot measure."""
    if max_drop is None:
        return
    if not max_drop >= 0:
        raise UsageError(f"--max-drop is {max_drop:g} points; it has to be 0 or more")
    labelled = 0 if material.truth is None else pictures
    if labelled < GATE.min_pictures:
        raise UsageError(
            f"--max-drop takes at least {GATE.min_pictures} proof pictures with known labels, found {labelled}: with "
            "fewer, one picture is more than a point. Sort the calibration pictures into one folder for each class"
        )


def _answers(
    folder: Path,
    checkpoint: Checkpoint,
    material: Material,
    proof: PixelStream,
    texts: SourceTexts,
    towers: dict[str, PreparedTower],
) -> Answers | None:
    """The source model's answers for the proof pictures; its prompt bank is saved into the bundle."""
    if not material.labels:
        return None
    # What a bank needs of a manifest is known before there are variants.
    facts = make_manifest(folder, checkpoint, (), None)
    bank = build_bank(texts.encode, facts, material.labels, material.templates)
    bank.save(folder / "prompts" / "default.safetensors")
    truth = None if material.truth is None else material.truth[proof.indices]
    return Answers(
        source=(towers["image"].embeds @ bank.label_embeds.T).argmax(axis=1),
        truth=truth,
        labels=material.labels,
        source_bank=bank,
        exported_bank=lambda encoder: build_bank(
            lambda prompts: texts.encode_with(encoder, prompts), facts, material.labels, material.templates
        ),
    )
