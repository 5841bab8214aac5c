"""Embeddings by the library that a model comes from (open_clip, timm), computed in that library's own environment.

``python worker.py JOB`` is run by the Python of the environment ``.venv-origin`` (``make .venv-origin/.installed``),
never by the tests' own: torchvision, which open_clip needs, breaks transformers beside this torch. JOB is a folder with
``job.json``: {"model": open_clip's name, "changes": of its configuration, "preprocess": of its preprocessing,
"texts": [...] or "input_ids": [[...]], and flags, see below} and the pictures ``*.png``. Written into it: the model as
an OpenCLIP folder (configuration, seeded random weights, CLIP's tokenizer), and ``origin.safetensors`` with
``image_embeds``, ``text_embeds``, ``logits`` and ``input_ids``. With "openai" the model is also written as OpenAI
publishes its own, ``openai.pt`` and ``openai_state.pt``, and the answers are those of the former. With "apple" a
MobileCLIP is also written as Apple publishes it, ``apple.pt``, as which open_clip has read it before it answers, and
with "reparameterized" its branches are summed by timm in ``reparameterized.pt``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from apple import apple_state


def import_open_clip() -> Any:
    """open_clip beside a CPU build of torch: torchvision registers operators that this torch does not have."""
    register = torch.library.register_fake

    def forgiving(op: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return arguments[0] if arguments and callable(arguments[0]) else lambda function: function
        return register(op, *arguments, **options)

    torch.library.register_fake = forgiving
    import open_clip

    return open_clip


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``changes``, object by object."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


def randomise(model: torch.nn.Module) -> None:
    """Fresh models have zeros and ones (biases, BatchNorm statistics, layer scales) that would hide errors."""
    generator = torch.Generator().manual_seed(1)

    def noise(tensor: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim <= 1 and not name.startswith("logit"):
                parameter.add_(noise(parameter, 0.1))
            elif "layer_scale" in name:
                parameter.add_(noise(parameter, 0.5))
            elif name.startswith("visual.trunk.") and parameter.ndim == 4:  # timm's make all pictures look alike
                parameter.copy_(noise(parameter, parameter[0].numel() ** -0.5))


def normalise_activations(model: Any, pictures: torch.Tensor) -> None:
    """Give every BatchNorm the statistics of these pictures, as training would; with those of a fresh model, and with
    the gains of zero that some start with, all pictures look alike. Gains of one at the ends of all residual branches
    would be no better: they amplify rounding errors from block to block."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
            if norm.weight.mean() < 0.5:
                norm.weight.add_(0.3)
        if norms:
            model.encode_image(pictures)
    model.eval()


def write_tokenizer(open_clip: Any, folder: Path) -> None:
    """CLIP's vocabulary in the files that Hugging Face folders have, with the names that they use, and in OpenAI's."""
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): index for token, index in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = [" ".join(pair) for pair in tokenizer.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    shutil.copy(open_clip.tokenizer.default_bpe(), folder)


def through_openai_files(open_clip: Any, model: Any, folder: Path) -> Any:
    """Write a TorchScript archive, half of it fp16, and a state dict of it; the model that open_clip reads of it."""
    open_clip.model.convert_weights_to_lp(model)
    halves = {name for name, value in model.state_dict().items() if value.dtype == torch.float16}
    model.float()
    size, length, vocabulary = model.visual.image_size, model.context_length, model.vocab_size
    mask = model.attn_mask
    del model.context_length, model.vocab_size, model.attn_mask
    model.attn_mask = mask  # a constant of OpenAI's archives, no tensor
    size = size if isinstance(size, int) else size[0]
    for name, value in (("input_resolution", size), ("context_length", length), ("vocab_size", vocabulary)):
        model.register_buffer(name, torch.tensor(value))
    inputs = torch.zeros(1, 3, size, size), torch.zeros(1, length, dtype=torch.int64)
    archive = torch.jit.trace(model, inputs, check_trace=False)  # nobody runs it
    for name, parameter in archive.named_parameters():
        if name in halves:
            parameter.data = parameter.data.half()
    archive.save(str(folder / "openai.pt"))
    torch.save(dict(archive.state_dict()), folder / "openai_state.pt")
    return open_clip.openai.load_openai_model(str(folder / "openai.pt"), precision="fp32", device="cpu").eval()


def through_apple_file(open_clip: Any, model: Any, folder: Path) -> None:
    """Write a MobileCLIP with Apple's names, and make open_clip read it back into the model."""
    trunk = model.visual.trunk
    torch.nn.init.zeros_(trunk.head.bias if isinstance(trunk.head, torch.nn.Linear) else trunk.head.fc.bias)
    torch.save(apple_state(model.state_dict()), folder / "apple.pt")
    for parameter in model.parameters():  # what is not read back shows
        torch.nn.init.zeros_(parameter)
    state = torch.load(folder / "apple.pt", weights_only=True)
    model.load_state_dict(open_clip.convert.convert_state_dict(model, state))


def main(folder: Path) -> None:
    from PIL import Image
    from safetensors.torch import save_file

    open_clip = import_open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    job = json.loads((folder / "job.json").read_text())
    config = merged(open_clip.get_model_config(job["model"]), job.get("changes", {}))
    visual = config["vision_cfg"]
    preprocess = merged({"size": visual.get("image_size", 224)}, job.get("preprocess", {}))
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=2))

    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False).eval()
    randomise(model)
    transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    pictures = torch.stack([transform(Image.open(path)) for path in sorted(folder.glob("*.png"))])
    normalise_activations(model, pictures)
    if job.get("apple"):
        through_apple_file(open_clip, model, folder)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    write_tokenizer(open_clip, folder)
    if job.get("openai"):
        model = through_openai_files(open_clip, model, folder)
    if job.get("reparameterized"):
        from timm.utils import reparameterize_model

        torch.save(reparameterize_model(model).state_dict(), folder / "reparameterized.pt")

    if "input_ids" in job:
        input_ids = torch.tensor(job["input_ids"])
    else:
        input_ids = open_clip.tokenizer.SimpleTokenizer(context_length=model.context_length)(job["texts"])
    with torch.inference_mode():
        image = torch.cat([model.encode_image(picture[None], normalize=True) for picture in pictures])
        text = model.encode_text(input_ids, normalize=True)
        logits = model.logit_scale.exp() * image @ text.T
        bias = getattr(model, "logit_bias", None)
        if bias is not None:
            logits = logits + bias
    found = {"image_embeds": image.float(), "text_embeds": text.float(), "logits": logits.float()}
    found |= {"input_ids": input_ids}
    save_file({name: value.contiguous() for name, value in found.items()}, folder / "origin.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
