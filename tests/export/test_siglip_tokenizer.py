"""SigLIP's token ids: against transformers' tokenizers, and against its text rules written down once more."""

from __future__ import annotations

import json
import re
import shutil
import string
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.huggingface.siglip_tokenizer import (
    read_openclip_siglip_tokenizer,
    read_siglip_tokenizer,
)
from clipedge.text import Tokenizer, TruncatedTextWarning

LENGTH, VOCABULARY = 16, 500
ReadTokenizer = Callable[[Path, int, int], bytes]

TEXTS = [
    *["", " ", "...", "a", "a photo of a cat", "A Photo, of  a CAT!", " red  circles\tabove\nblue squares ", "12345.6"],
    *["it's a_b-c {d} [e] \\ `f` ~g^", "caf\u00e9 M\u00e4dchen", "\u0130stanbul STRASSE", "\u732b\u306e\u5199\u771f"],
    *["<EOS>", "\U0001f642 emoji", "\u00a0no\u2028break\x1c.\x85", "a photo of a cat " * 9],
]  # fmt: skip


def assert_ids(folder: Path, expected: list[list[int]], read: ReadTokenizer = read_siglip_tokenizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        found = Tokenizer.from_file(read(folder, LENGTH, VOCABULARY), LENGTH)(TEXTS)
    for text, ids, wanted in zip(TEXTS, found, expected, strict=True):
        np.testing.assert_array_equal(ids, wanted, err_msg=ascii(text))
    assert len({tuple(ids) for ids in expected}) > len(TEXTS) / 2


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "tokenizer_config.json"
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


@pytest.fixture
def gemma_folder(gemma: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "gemma"
    shutil.copytree(gemma, folder)
    (folder / "config.json").write_text('{"model_type": "siglip"}')
    return folder


@pytest.fixture
def unigram_folder(tmp_path: Path) -> Path:
    """A tokenizer.json of SigLIP's kind, as transformers converts spiece.model, but for sentencepiece's own rules."""
    trained = Backend(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [AddedToken(token, lstrip=True, rstrip=True) for token in ("<pad>", "</s>", "<unk>")]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(["a photo of a cat on its mat", "red circles above blue squares 12345"], trainer)
    end = ("</s>", trained.token_to_id("</s>"))
    trained.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [end])
    trained.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>"}')
    return tmp_path


@pytest.mark.parametrize(
    "tokenizer_class", ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer", "TokenizersBackend"]
)
@pytest.mark.parametrize("side", ["right", None])
def test_siglip_2_has_transformers_ids(gemma_folder: Path, tokenizer_class: str, side: str | None) -> None:
    edit_config(gemma_folder, tokenizer_class=tokenizer_class, padding_side=side)
    reference = AutoTokenizer.from_pretrained(gemma_folder)
    expected = reference(TEXTS, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]
    assert_ids(gemma_folder, expected)


def unigram_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    ids = [backend.encode(text).ids for text in texts]
    end = backend.token_to_id("</s>")
    return [[*one[: LENGTH - 1], end] if len(one) > LENGTH else one + [end] * (LENGTH - len(one)) for one in ids]


@pytest.mark.parametrize("lower", [True, False])
def test_siglip_has_its_text_rules(unigram_folder: Path, lower: bool) -> None:
    edit_config(unigram_folder, do_lower_case=lower)
    clean = [text.translate(str.maketrans("", "", string.punctuation)) for text in TEXTS]
    clean = [re.sub(r"\s+", " ", text.lower() if lower else text).strip() for text in clean]
    assert_ids(unigram_folder, unigram_ids(unigram_folder, clean))


def test_a_tokenizer_can_be_named_itself(gemma_folder: Path) -> None:
    named, found = gemma_folder / "tokenizer.json", gemma_folder
    assert read_siglip_tokenizer(named, LENGTH, VOCABULARY) == read_siglip_tokenizer(found, LENGTH, VOCABULARY)


def test_openclip_cleans_texts_its_own_way(unigram_folder: Path) -> None:
    clean = [text.replace("_", " ").translate(str.maketrans("", "", string.punctuation)).lower() for text in TEXTS]
    clean = [" ".join(text.split()) for text in clean]
    assert_ids(unigram_folder, unigram_ids(unigram_folder, clean), read_openclip_siglip_tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer_class": "BertTokenizer"}, "tokenizer_class is 'BertTokenizer'; expected SiglipTokenizer, "),
        ({"padding_side": "both"}, "padding_side is 'both'; expected 'left' or 'right'"),
        ({"pad_token": "<fill>"}, "pads texts with '<fill>', which its tokenizer.json does not contain"),
    ],
)
def test_a_configuration_that_is_not_supported_is_refused(
    unigram_folder: Path, change: dict[str, str], message: str
) -> None:
    edit_config(unigram_folder, **change)
    with pytest.raises(CheckpointError, match=message):
        read_siglip_tokenizer(unigram_folder, LENGTH, VOCABULARY)


def test_ids_beyond_the_embedding_table_are_refused(unigram_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="the model's embedding table 20 rows; they belong to different models"):
        read_siglip_tokenizer(unigram_folder, LENGTH, 20)


def test_a_tokenizer_in_sentencepieces_format_alone_is_refused(unigram_folder: Path) -> None:
    (unigram_folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json; copy it"):
        read_siglip_tokenizer(unigram_folder, LENGTH, VOCABULARY)
    (unigram_folder / "spiece.model").touch()
    with pytest.raises(CheckpointError, match=r"as spiece\.model only, expected tokenizer\.json too"):
        read_siglip_tokenizer(unigram_folder, LENGTH, VOCABULARY)
