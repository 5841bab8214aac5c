"""clipedge inspect BUNDLE | MODEL | CALIBRATION_CACHE"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from clipedge.backends import engine_facts
from clipedge.bundle import MANIFEST_NAME
from clipedge.cli import print_json
from clipedge.cli.options import add_engine_options, add_model_options, open_clip
from clipedge.errors import MissingDependencyError
from clipedge.model import Clip, variant_name
from clipedge.selftest import GOLDEN_NAME, golden_cosines

MODEL_CONFIGS = ("config.json", "open_clip_config.json", "adapter_config.json")
CACHE_KEY = "clipedge_calibration"  # that clipedge.calibration.cache puts into the file's metadata
WEIGHTS_ENDINGS = (".pt", ".pth", ".bin", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle",
        help="a bundle; or a model as export takes it: folder, file, or owner/name on a hub; or the file of "
        "export --calibration-cache",
    )
    add_model_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if _is_model(arguments.bundle):
        return _show_model(arguments)
    if Path(arguments.bundle).is_file():
        return _show_cache(arguments.bundle, arguments.json)
    clip = open_clip(arguments, arguments.bundle)
    _check_files(clip)
    tested = _test_towers(clip)
    if arguments.json:
        banks = clip.bundle.bank_names()
        print_json({**dataclasses.asdict(clip.manifest), "prompt_banks": banks, "tested_here": tested})
    else:
        print("\n".join(_lines(clip, tested)))
    return 0


def _is_model(name: str) -> bool:
    path = Path(name)
    if path.is_dir():
        return not (path / MANIFEST_NAME).is_file() and any((path / config).is_file() for config in MODEL_CONFIGS)
    if path.is_file():
        return path.suffix in WEIGHTS_ENDINGS and not _is_cache(path)
    return not path.exists() and name.count("/") == 1 and not name.startswith((".", "/"))  # owner/name on a hub


def _is_cache(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            return CACHE_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _show_model(arguments: argparse.Namespace) -> int:
    try:
        from clipedge.export.checkpoints import ModelSource, load_checkpoint
        from clipedge.export.describe import description_lines, model_facts
    except ImportError as error:
        raise MissingDependencyError(
            f"{arguments.bundle} is a model; reading it needs the workstation packages ({error.name} is missing): "
            'pip install "clipedge[export]"'
        ) from None
    source = ModelSource(arguments.bundle, arguments.arch, arguments.tokenizer, arguments.revision)
    facts = model_facts(load_checkpoint(source))
    if arguments.json:
        print_json(facts.to_dict())
    else:
        print("\n".join(description_lines(facts)))
    return 0


def _show_cache(path: str, as_json: bool) -> int:
    try:
        from clipedge.calibration.cache import cache_facts, cache_lines, load_cache
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a file; reading a calibration cache needs the workstation packages ({error.name} is missing): "
            'pip install "clipedge[export]". For a bundle name its folder'
        ) from None
    cache = load_cache(path)
    if as_json:
        print_json(cache_facts(cache))
    else:
        print("\n".join(cache_lines(cache)))
    return 0


def _check_files(clip: Clip) -> None:
    """Raise BundleError unless every file is whole, also those that this machine does not use."""
    for variant in clip.manifest.variants:
        clip.bundle.checked_variant(variant)
    for entry in clip.manifest.files:
        clip.bundle.checked(entry)
    for name in clip.bundle.bank_names():
        clip.saved_bank(name)


def _test_towers(clip: Clip) -> dict[str, dict[str, Any]]:
    """Run every golden input of each tower here; the lowest centred cosine with the source model."""
    tested: dict[str, dict[str, Any]] = {}
    for tower in sorted({variant.tower for variant in clip.manifest.variants}):
        engine = clip.engine(tower)
        cosines = golden_cosines(engine, clip.bundle.checked_file(GOLDEN_NAME), tower)
        tested[tower] = {
            "variant": variant_name(clip.chosen(tower)),
            **engine_facts(engine),
            **dataclasses.asdict(clip.engine_options),
            "goldens": len(cosines),
            "lowest_centred_cosine": float(cosines.min()),
        }
    return tested


def _lines(clip: Clip, tested: dict[str, dict[str, Any]]) -> list[str]:
    manifest, source = clip.manifest, clip.manifest.provenance
    pixels = manifest.preprocessing
    lines = [
        f"{clip.bundle.folder}",
        f"  source model      {source.source_model}, licence {source.source_license or 'unknown'}, "
        f"exported {source.created}",
        f"  embedding         {manifest.embedding_dim} numbers, space {manifest.space_id[:16]}…",
        f"  probabilities     {manifest.activation}, scale {manifest.logit_scale:.2f}, bias {manifest.logit_bias:.2f}",
        f"  picture           {pixels.width} x {pixels.height}, {pixels.resize}, {pixels.interpolation}",
        f"  prompt banks      {', '.join(clip.bundle.bank_names()) or 'none'}",
    ]
    for variant in manifest.variants:
        size = sum((clip.bundle.folder / entry.path).stat().st_size for entry in variant.files) / 1e6
        proof = variant.proof
        lines.append(f"  {variant.tower:5} {variant_name(variant):10}  {size:9.2f} MB, opset {variant.opset}")
        if proof:
            lines.append(
                f"    at export: median centred cosine {proof.median_centred_cosine:.5f}, "
                f"1st percentile {proof.p1_centred_cosine:.5f} ({proof.samples} inputs, {proof.engine})"
            )
    for tower, result in tested.items():
        threads = f"{result['threads']} threads" if result["threads"] else "one thread per core"
        waiting = "" if result["spinning"] else ", sleeping between calls"
        device = f"{result['device']}, {threads}{waiting}" if result["device"] == "cpu" else result["device"]
        lines += [
            f"  here: {tower} {result['variant']} on {result['backend']} {result['version']} ({device}), "
            f"computed in {result['arithmetic']}",
            f"    lowest centred cosine of {result['goldens']} goldens {result['lowest_centred_cosine']:.5f}",
        ]
    return lines
