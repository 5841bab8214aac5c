"""Make what ClipEdge and its peers have in common, and ClipEdge's bundles: pictures, checkpoints, label embeddings.

    python benchmarks/prepare.py ViT-B/32 [ViT-B/16 ...]

Everything comes from seeds, nothing is downloaded. What is there already is kept; bundles are named for the code that
made them, so that a change of the exporter makes new ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
from layout import BUILD, HELD_OUT, LABELS, PATCH_SIZES, PICTURES, REPOSITORY, model_folder
from PIL import Image

from clipedge.calibration.scenes import labelled_scene, render
from clipedge.manifest import Precision

CAMERA_SIZE = (1280, 720)
# Sensor noise and quality at which a rendered scene's JPEG gets the size of a photograph's: about 200 kB.
CAMERA_NOISE, CAMERA_QUALITY = 6.0, 90
# Every quantizer gets the same folder. The peers use all of it; ClipEdge calibrates with two thirds of it and proves
# its export on the rest.
CALIBRATION = 96
CALIBRATION_SIZE = 256
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def make_pictures() -> None:
    """Calibration pictures (PNG) and held-out ones as a camera would save them (JPEG, 1280 x 720)."""
    if (PICTURES / "complete").exists():
        return
    for name in ("calibration", "held-out"):
        (PICTURES / name).mkdir(parents=True, exist_ok=True)
    for index in range(CALIBRATION):
        scene, _ = labelled_scene("calibration", index)
        picture = Image.fromarray(render(scene, CALIBRATION_SIZE, CALIBRATION_SIZE).picture)
        picture.save(PICTURES / "calibration" / f"{index:03}.png")
    noise = np.random.default_rng(0)
    for index in range(HELD_OUT):
        scene, _ = labelled_scene("test", index)
        clean = render(scene, *CAMERA_SIZE).picture
        noisy = (clean + noise.normal(0, CAMERA_NOISE, clean.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(PICTURES / "held-out" / f"{index:02}.jpg", quality=CAMERA_QUALITY)
    (PICTURES / "complete").touch()


def make_checkpoint(folder: Path, patch_size: int) -> None:
    """Save a CLIP with ViT-B's shape and seeded random weights as transformers does; and ``labels.npy``.

    ``labels.npy`` is what a text tower would have given: (LABELS, D) float32, L2-normalised.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(vision_config={"patch_size": patch_size})  # the defaults are ViT-B/32's
    with torch.device("meta"):
        model = CLIPModel(config)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(patch_size)
    for name, weight in model.state_dict().items():
        weight.copy_(random_weight(name, torch.randn(weight.shape, generator=generator)))
    model.save_pretrained(folder)
    size = config.vision_config.image_size
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    labels = np.random.default_rng(0).normal(size=(LABELS, config.projection_dim)).astype(np.float32)
    np.save(folder / "labels.npy", labels / np.linalg.norm(labels, axis=1, keepdims=True))


def random_weight(name: str, noise: torch.Tensor) -> torch.Tensor:  # noqa: F821
    """Scale normal noise so that activations keep their size through the layers and no weight is neutral.

    With transformers' own initialisation all pictures would get nearly the same embedding, and no error would show.
    """
    if name == "logit_scale":
        return noise.fill_(math.log(60.0))
    if name.endswith("bias"):
        return 0.1 * noise
    if "norm" in name:
        return 1 + 0.3 * noise
    if noise.ndim > 1 and "position" not in name and "token" not in name:
        return noise / math.sqrt(noise[0].numel())
    return noise


def exporter_digest() -> str:
    """A hash of ClipEdge's own code: another exporter, other bundles."""
    digest = hashlib.sha256()
    for package in ("clipedge", "calibration", "export"):
        for source in sorted((REPOSITORY / package).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def make_bundles(folder: Path) -> None:
    """ClipEdge's bundles in both precisions at ``folder/clipedge/PRECISION``, with the labels as a prompt bank."""
    from clipedge import PromptBank
    from clipedge.bundle import open_bundle
    from clipedge.export import export

    made_by = folder / "clipedge" / "made-by"
    if made_by.exists() and made_by.read_text() == exporter_digest():
        return
    shutil.rmtree(folder / "clipedge", ignore_errors=True)
    for precision in PRECISIONS:
        bundle = folder / "clipedge" / precision
        print(f"exporting {bundle.relative_to(BUILD)}", file=sys.stderr, flush=True)
        export(
            folder / "checkpoint",
            bundle,
            precision=precision,
            calibration_data=PICTURES / "calibration" if precision == "int8" else None,
            text=False,
        )
        manifest = open_bundle(bundle).manifest
        PromptBank(
            label_embeds=np.load(folder / "checkpoint" / "labels.npy"),
            labels=tuple(map(str, range(LABELS))),
            templates=("{}",),
            logit_scale=manifest.logit_scale,
            logit_bias=manifest.logit_bias,
            activation=manifest.activation,
            space_id=manifest.space_id,
        ).save(bundle / "prompts" / "labels.safetensors")
    made_by.write_text(exporter_digest())


def main(shapes: list[str]) -> None:
    """Make everything for ``shapes``."""
    make_pictures()
    for shape in shapes:
        folder = model_folder(shape)
        if not (folder / "checkpoint" / "labels.npy").exists():
            make_checkpoint(folder / "checkpoint", PATCH_SIZES[shape])
        make_bundles(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
