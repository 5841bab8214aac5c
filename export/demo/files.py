"""The files of the demonstration checkpoint: an ordinary Hugging Face CLIP folder."""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from pathlib import Path

from tokenizers import Tokenizer
from transformers import CLIPModel

from clipedge.export.demo.tokenizer import END, START

__all__ = ["IMAGE_MEAN", "IMAGE_STD", "write_checkpoint"]

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3


def write_checkpoint(model: CLIPModel, tokenizer: Tokenizer, output: Path) -> None:
    """Writes weights (fp16), configuration, tokenizer and preprocessing to a folder that may hold other files.

    All files are written beside their places first and then renamed over them, so none is ever half there.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".partial-") as name:
        partial = Path(name)
        deepcopy(model).half().save_pretrained(partial)
        tokenizer.save(str(partial / "tokenizer.json"))
        context = model.config.text_config.max_position_embeddings
        _write_json(partial / "tokenizer_config.json", _tokenizer_config(context))
        _write_json(partial / "preprocessor_config.json", _preprocessing(model.config.vision_config.image_size))
        for path in partial.iterdir():
            path.chmod(0o644)  # the library that writes the weights lets only their owner read them
            path.replace(output / path.name)


def _tokenizer_config(context: int) -> dict[str, object]:
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "do_lower_case": True,
    }


def _preprocessing(size: int) -> dict[str, object]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
