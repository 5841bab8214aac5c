"""Adapters trained with peft, merged by peft, in the environment ``.venv-origin`` (see ``worker.py``).

``python adapter_worker.py JOB``: JOB is a folder with ``job.json``, {family: {adapter: the arguments of LoraConfig}},
and for each family ("clip", "siglip") ``FAMILY.safetensors`` with ``pixel_values`` and ``input_ids``. Written for each
family: the base model as a folder, the adapters as folders, and beside each ``ADAPTER.safetensors`` with the
``image_embeds`` and ``text_embeds`` of transformers' model that peft merged the adapter into.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from worker import import_open_clip

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
VISION = {**SIZES, "hidden_size": 32, "image_size": 24, "patch_size": 8}
TEXT = {**SIZES, "hidden_size": 32, "max_position_embeddings": 12, "vocab_size": 60}


def base_model(transformers: Any, family: str) -> Any:
    if family == "siglip":
        text = {**TEXT, "projection_size": 32}
        return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=VISION))
    text = {**TEXT, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 0}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=20))


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Everything that is trained, B too, which starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.startswith("logit"):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def write_base(transformers: Any, family: str, folder: Path) -> None:
    model = base_model(transformers, family)
    randomise(model, 0)
    model.save_pretrained(folder)
    settings: dict[str, Any] = {"size": {"height": 24, "width": 24}, "do_center_crop": False}
    settings["image_processor_type"] = "SiglipImageProcessor" if family == "siglip" else "CLIPImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def main(job: Path) -> None:
    import_open_clip()  # not for itself: with torchvision made harmless, transformers and peft can be imported
    import peft
    import transformers

    for family, adapters in json.loads((job / "job.json").read_text()).items():
        inputs, base = load_file(job / f"{family}.safetensors"), job / family
        write_base(transformers, family, base)
        for seed, (name, arguments) in enumerate(adapters.items(), start=1):
            model = type(base_model(transformers, family)).from_pretrained(base)
            adapted = peft.get_peft_model(model, peft.LoraConfig(**arguments))
            randomise(adapted, seed)
            adapted.save_pretrained(job / name)
            with torch.inference_mode():
                answers = adapted.merge_and_unload().eval()(**inputs)
            embeds = {key: answers[key].contiguous() for key in ("image_embeds", "text_embeds")}
            save_file(embeds, job / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
