"""A SigLIP of demonstration size: transformers' SiglipModel, trained with the pairwise sigmoid loss.

Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343 (algorithm 1: loss and initial scale
and bias). Image tower: 64 pixels, patches of 8, width 128, 4 blocks, attention pooling. Text tower: width 64, 2 blocks,
no mask, pooled at the last of 32 tokens.

The blocks of the image tower begin as those of the demonstration checkpoint, its pooling and the text tower at random:
a vision transformer takes long to find out what a shape is. (A smaller one, all of it random, had 12 % top-1 after 700
steps of 64 pairs.)
"""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from train_small import CONTEXT_LENGTH, IMAGE_SIZE, Trainee, same_texts
from transformers import CLIPModel, SiglipConfig, SiglipModel

from clipedge.calibration.scenes import labelled_pictures
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.demo.files import IMAGE_MEAN, IMAGE_STD
from clipedge.export.demo.train import normalise

WIDTH = 128
PAD, END, UNKNOWN = SPECIAL = ("<pad>", "</s>", "<unk>")  # SigLIP's; a text is padded with END all the same
INITIAL_SCALE, INITIAL_BIAS = math.log(10), -10.0
_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""  # Python's string.punctuation
_SPACE = "\u2581"  # SentencePiece's, in front of a word
_UNLIKELY = -20.0  # a letter's log-probability: below that of any word
_BICUBIC = 3


def small_siglip(captions: Iterable[str]) -> Trainee:
    """A new model with random weights from torch's generator, and a tokenizer that is learned from captions."""
    tokenizer = train_tokenizer(captions)
    model = SiglipModel(_config(tokenizer)).train()
    _begin_as_demonstration(model)
    torch.nn.init.constant_(model.logit_scale, INITIAL_SCALE)
    torch.nn.init.constant_(model.logit_bias, INITIAL_BIAS)

    def embed_images(pictures: NDArray[np.uint8]) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
        return F.normalize(model.vision_model(pixel_values=pixels).pooler_output, dim=-1)

    def embed_texts(token_ids: torch.Tensor) -> torch.Tensor:
        return F.normalize(model.text_model(input_ids=token_ids).pooler_output, dim=-1)

    return Trainee(
        model=model,
        tokenizer=tokenizer,
        embed_images=embed_images,
        embed_texts=embed_texts,
        loss=lambda images, texts, token_ids: sigmoid_loss(
            images, texts, model.logit_scale, model.logit_bias, token_ids
        ),
        save=lambda folder: _save(model, tokenizer, folder),
    )


@torch.no_grad()
def _begin_as_demonstration(model: SiglipModel) -> None:
    """Blocks, patches and positions from the demonstration checkpoint.

    Its norm behind the embedding, which a SigLIP does not have, becomes the linear function nearest to it: divided by
    the tokens' mean deviation instead of each token's own.
    """
    source = CLIPModel.from_pretrained(DEMO_CHECKPOINT, dtype=torch.float32).vision_model
    tower = model.vision_model
    tower.encoder.load_state_dict(source.encoder.state_dict())
    tower.post_layernorm.load_state_dict(source.post_layernorm.state_dict())
    patch, position = source.embeddings.patch_embedding.weight, source.embeddings.position_embedding.weight[1:]
    pictures, _ = labelled_pictures("train", 64, size=IMAGE_SIZE)
    deviation = source.embeddings(normalise(pictures))[:, 1:].std(dim=-1, unbiased=False).mean()
    gain = source.pre_layrnorm.weight / deviation
    # Pixels are scaled to [-1, 1] here, and had the mean and deviation of CLIP's pictures there.
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    bias = (patch * (0.5 - mean) / std).sum(dim=(1, 2, 3))
    embeddings = tower.embeddings
    embeddings.patch_embedding.weight.copy_(gain[:, None, None, None] * (patch - patch.mean(dim=0)) / (2 * std))
    embeddings.patch_embedding.bias.copy_(gain * (bias - bias.mean()) + source.pre_layrnorm.bias)
    embeddings.position_embedding.weight.copy_(gain * (position - position.mean(dim=1, keepdim=True)))


def sigmoid_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    token_ids: torch.Tensor,
) -> torch.Tensor:
    """SigLIP's loss: each of the N x N pairs is a question of its own, whether picture and text belong together.

    images, texts: L2-normalised float32 (N, D), row i of both a pair. token_ids: int64 (N, L), the texts; another
    picture's caption that is one's own word for word is no question.
    """
    logits = logit_scale.exp() * images @ texts.T + logit_bias
    signs = 2 * torch.eye(len(images)) - 1
    return -F.logsigmoid(signs * logits).masked_fill(same_texts(token_ids), 0).sum() / len(images)


def train_tokenizer(captions: Iterable[str]) -> Tokenizer:
    """SentencePiece's unigram model with SigLIP's conventions: lower case, no punctuation, END behind every text.

    A piece for every word of the captions, as likely as it is frequent, and letters and digits for any other word.
    """
    rules = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(_PUNCTUATION), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    counts = Counter(word for caption in captions for word in rules.normalize_str(caption).split())
    words = [(_SPACE + word, math.log(count / counts.total())) for word, count in counts.most_common()]
    letters = [(letter, _UNLIKELY) for letter in (_SPACE, *string.ascii_lowercase, *string.digits)]
    pieces = dict([(token, 0.0) for token in SPECIAL] + letters + words)
    tokenizer = Tokenizer(models.Unigram(list(pieces.items()), unk_id=SPECIAL.index(UNKNOWN)))
    tokenizer.normalizer = rules
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL))
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(pad_id=end, pad_token=END, length=CONTEXT_LENGTH)
    return tokenizer


def _config(tokenizer: Tokenizer) -> SiglipConfig:
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "projection_size": WIDTH,  # the space's dimension is the image tower's width: pooling has no projection
        "pad_token_id": tokenizer.token_to_id(END),
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(END),
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
    }
    return SiglipConfig(text_config=text, vision_config=vision)


def _save(model: SiglipModel, tokenizer: Tokenizer, folder: Path) -> None:
    """An ordinary Hugging Face SigLIP folder, weights in float32."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "SiglipTokenizer",
            "model_max_length": CONTEXT_LENGTH,
            "do_lower_case": True,
            "eos_token": END,
            "pad_token": END,
            "unk_token": UNKNOWN,
        },
    )
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True,
            "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            "resample": _BICUBIC,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    )


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
