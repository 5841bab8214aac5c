"""What lies in a bundle beside the graphs: tokenizer, golden inputs, manifest, prompt banks, report, model card."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

import clipedge
from clipedge.bundle import MANIFEST_NAME, file_entry, open_bundle
from clipedge.errors import ClipEdgeError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.licenses import find_license
from clipedge.export.proof import variant_proof
from clipedge.export.report import Report, report_lines
from clipedge.export.variants import PreparedTower, ProvenVariant
from clipedge.manifest import SCHEMA_VERSION, Manifest, Provenance, Variant
from clipedge.prompts.bank import PromptBank
from clipedge.selftest import GOLDEN_NAME, TENSORS

__all__ = ["TOKENIZER_NAME", "carry_banks", "make_manifest", "write_goldens", "write_manifest", "write_model_card"]

TOKENIZER_NAME = "tokenizer.json"


def write_goldens(folder: Path, towers: Mapping[str, PreparedTower]) -> None:
    """Save the golden inputs of each tower with the source model's embeddings."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, tower in towers.items():
        inputs_name, embeds_name = TENSORS[name]
        tensors.setdefault(inputs_name, np.ascontiguousarray(tower.golden_inputs))  # patches: of the first pictures
        tensors[embeds_name] = np.ascontiguousarray(tower.embeds[: len(tower.golden_inputs)])
    # Not save_file, which makes files that only their owner can read.
    (folder / GOLDEN_NAME).write_bytes(save(tensors))


def make_manifest(
    folder: Path, checkpoint: Checkpoint, variants: tuple[Variant, ...], calibration_sha256: str | None
) -> Manifest:
    """The manifest of the files that now lie in ``folder``."""
    has_text = any(variant.tower == "text" for variant in variants)
    names = [GOLDEN_NAME, *([TOKENIZER_NAME] if has_text else [])]
    tools = {name: version(name) for name in ("clipedge", "torch", "onnx", "onnxruntime")}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        space_id=checkpoint.space_id,
        variants=variants,
        embedding_dim=checkpoint.embed_dim,
        logit_scale=checkpoint.logit_scale,
        logit_bias=checkpoint.logit_bias,
        activation=checkpoint.activation,
        preprocessing=checkpoint.preprocessing,
        context_length=checkpoint.text.context_length if has_text else None,
        files=tuple(file_entry(folder, name) for name in names),
        provenance=Provenance(
            source_model=checkpoint.pinned_name,
            source_license=checkpoint.license,
            source_sha256=checkpoint.source_sha256,
            calibration_sha256=calibration_sha256,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            tools=tools,
        ),
    )


def write_manifest(
    folder: Path,
    checkpoint: Checkpoint,
    proven: Sequence[ProvenVariant],
    calibration_sha256: str | None,
) -> Manifest:
    """Write the manifest of the files that now lie in ``folder``, with each variant's proof."""
    variants = tuple(
        dataclasses.replace(tower.variant, proof=variant_proof(judged.engine, judged.sides, judged.parity))
        for variant in proven
        for tower in variant.towers.values()
        for judged in [tower.half or tower]  # what half precision gives, no CPU engine shows
    )
    manifest = make_manifest(folder, checkpoint, variants, calibration_sha256)
    if any(variant.quantizer == "modelopt" for variant in proven):
        tools = manifest.provenance.tools | {"nvidia-modelopt": version("nvidia-modelopt")}
        manifest = dataclasses.replace(manifest, provenance=dataclasses.replace(manifest.provenance, tools=tools))
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def carry_banks(old: Path, new: Path, space_id: str) -> None:
    """Copy the prompt banks that a user added to the bundle that is being replaced, if they are of the same space."""
    try:
        bundle = open_bundle(old)
    except ClipEdgeError:
        return  # there was none, or none that can be read
    for name in bundle.bank_names():
        source = bundle.bank_path(name)
        destination = new / "prompts" / source.name
        try:
            same_space = PromptBank.load(source).space_id == space_id
        except ClipEdgeError:
            continue
        if same_space and not destination.exists():
            destination.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, destination)


def write_model_card(folder: Path, name: str, manifest: Manifest, report: Report) -> None:
    """README.md of the bundle called ``name``: what it is, whence, under which licence, how good, how to use it."""
    license = find_license(manifest.provenance.source_license)
    proof = "\n".join(report_lines(report))
    text = f"""# {report.model}, {report.precision} for {report.target}

A ClipEdge bundle (clipedge {clipedge.__version__}).

- Source model: {manifest.provenance.source_model} (SHA-256 of its weights {manifest.provenance.source_sha256[:16]}…)
- Licence: {license.name} ({license}). It is the source model's; this bundle is made from that model and inherits it.
- Embedding: {manifest.embedding_dim} numbers, space {manifest.space_id[:16]}…

```python
import clipedge

clip = clipedge.load({name!r})
clip.classifier(["a cat", "a dog"]).predict(["picture.jpg"])
```

## Proof

```
{proof}
```
"""
    (folder / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")
