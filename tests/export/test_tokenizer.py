"""Token ids against transformers' CLIPTokenizer, which reads the same folder on its own."""

import json
import random
import shutil
import sys
import unicodedata
import warnings

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.tokenizer import load_tokenizer_json, read_pad_token
from clipedge.text import Tokenizer, TruncatedTextWarning, bake_tokenizer

CONTEXT_LENGTH = 24

SENTENCES = [
    "a photo of a red circle above a blue square, and it's on a noisy background",
    "Das Mädchen füttert die Möwen; the café isn't open, we'll go where they've been",
    "кот сидит на столе и смотрит в окно",
    "赤い円と青い四角の写真 写真 写真",
    "1234 5678 90 percent of the numbers don't matter!!! ... (really?)",
    "👍🏽 👩‍👩‍👧 🇩🇪 emoji emoji",
]

FRAGMENTS = [
    *["a", "photo", "of", "the", "red", "Cat", "DOG", "it's", "don't", "WE'LL", "they've", "I'm", "'Re", "'S"],
    *["café", "cafe\u0301", "Å", "A\u030a", "\ufb01", "İ", "ß", "ẞ", "Σίσυφος", "\u01c5", "q\u0307\u0323", "\u0301"],
    *["привет", "שלום", "مرحبا", "नमस्ते", "ไทย", "漢字", "かな", "한글", "\u1112\u1161\u11ab", "\U0001d518"],
    *["😀", "👍🏽", "👩\u200d👩\u200d👧", "🇩🇪", "❤\ufe0f", "☃", "©", "№", "½", "Ⅷ", "٣", "२", "3", "42", "1,000.5"],
    *["\0", "\x07", "\x1b[31m", "\x7f", "\x85", "\u00ad", "\u200b", "\u202e", "\ufeff", "\ufffd", "\ue000"],
    *[" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2028", "\u3000", "\x1c", "\u180e"],
    *["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<|endoftext|", "|>", "</w>", "a</w>"],
    *["!", "!!!", "...", "-", "_", "#tag", "@me", "&amp;", "'", "''s", '"', "\\", "{}", "http://x.y/z?q=1"],
]


def random_strings(count):
    rng = random.Random(7)
    codes = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]
    for number in range(count):
        pieces = []
        for _ in range(rng.choice([0, 1, 2, 5, 12, 40])):
            pieces.append(rng.choice(FRAGMENTS) if rng.random() < 0.8 else chr(rng.choice(codes)))
            pieces.append(rng.choice(["", " ", " ", "  "]))
        text = "".join(pieces)
        yield unicodedata.normalize("NFD", text) if number % 5 == 0 else text


def flagged(content, normalized):
    return {
        "content": content,
        "lstrip": False,
        "normalized": normalized,
        "rstrip": False,
        "single_word": False,
    }


@pytest.fixture(scope="module")
def vocabulary():
    """A vocabulary in CLIP's order (bytes, bytes at a word's end, merges, specials), and its merges."""
    trained = Backend(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    units = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=units, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator([text.lower() for text in SENTENCES], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*units, *(unit + "</w>" for unit in units), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, merges


@pytest.fixture
def old_folder(vocabulary, tmp_path):
    """vocab.json, merges.txt and flags, as openai/clip-vit-base-patch32 has them beside its tokenizer.json."""
    vocab, merges = vocabulary
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {
        "bos_token": flagged("<|startoftext|>", True),
        "eos_token": flagged("<|endoftext|>", True),
        "unk_token": flagged("<|endoftext|>", True),
        "pad_token": "<|endoftext|>",
    }
    write_config(folder, special)
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder


@pytest.fixture
def new_folder(old_folder, tmp_path):
    """The same as transformers 5 saves it: one tokenizer.json."""
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(old_folder).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new" / "vocab.json").exists()
    return tmp_path / "new"


def write_config(folder, entries):
    marked = {
        name: {**entry, "__type": "AddedToken"} if isinstance(entry, dict) and "content" in entry else entry
        for name, entry in entries.items()
    }
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **marked}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def assert_ids_equal_transformers(folder, strings=2000):
    from transformers import AutoTokenizer

    texts = ["", " ", "\n\t ", *SENTENCES, *random_strings(strings)]
    reference = AutoTokenizer.from_pretrained(folder)
    assert type(reference).__name__ == "CLIPTokenizer"
    options = {"padding": "max_length", "truncation": True, "max_length": CONTEXT_LENGTH}
    expected = np.array(reference(texts, **options)["input_ids"])
    baked = bake_tokenizer(load_tokenizer_json(folder), CONTEXT_LENGTH, read_pad_token(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        ids = Tokenizer.from_file(baked, CONTEXT_LENGTH)(texts)
    assert ids.dtype == np.int64 and ids.shape == expected.shape
    for text, found, wanted in zip(texts, ids, expected, strict=True):
        assert found.tolist() == wanted.tolist(), ascii(text)


def test_ids_equal_transformers_from_tokenizer_json(new_folder):
    assert_ids_equal_transformers(new_folder)


def test_ids_equal_transformers_from_vocab_and_merges(old_folder):
    assert_ids_equal_transformers(old_folder)


@pytest.mark.parametrize(
    "case", ["no config", "strings", "another pad token", "added tokens listed", "special tokens map only"]
)
def test_ids_equal_transformers_whatever_names_the_special_tokens(old_folder, vocabulary, case):
    from transformers import CLIPTokenizer

    map_file = old_folder / "special_tokens_map.json"
    start, end = vocabulary[0]["<|startoftext|>"], vocabulary[0]["<|endoftext|>"]
    if case == "no config":
        map_file.unlink()
        (old_folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    elif case == "strings":
        map_file.unlink()
        write_config(old_folder, {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"})
    elif case == "another pad token":
        map_file.write_text(json.dumps({"pad_token": "!"}))
    elif case == "added tokens listed":
        decoder = {start: flagged("<|startoftext|>", False), end: flagged("<|endoftext|>", True)}
        names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
        write_config(old_folder, {"added_tokens_decoder": decoder, **names})
    else:
        (old_folder / "tokenizer_config.json").unlink()
        (old_folder / "config.json").write_text('{"model_type": "clip"}')
    assert CLIPTokenizer.from_pretrained(old_folder).pad_token == read_pad_token(old_folder)
    assert_ids_equal_transformers(old_folder, strings=300)


def test_another_pad_token_in_the_config_of_a_new_folder(new_folder, vocabulary):
    path = new_folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "!"}))
    baked = bake_tokenizer(load_tokenizer_json(new_folder), CONTEXT_LENGTH, read_pad_token(new_folder))
    assert Tokenizer.from_file(baked, CONTEXT_LENGTH)(["cat"])[0, -1] == vocabulary[0]["!"]
    assert_ids_equal_transformers(new_folder, strings=300)


def test_tokenizer_json_is_taken_as_it_is(new_folder):
    assert load_tokenizer_json(new_folder) == (new_folder / "tokenizer.json").read_bytes()


def test_the_pad_token_when_nothing_names_one(tmp_path):
    assert read_pad_token(tmp_path) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "merges.txt").unlink(), "no tokenizer.json and no merges.txt"),
        (lambda folder: shutil.rmtree(folder), "no vocab.json and no merges.txt; copy them"),
        (lambda folder: (folder / "vocab.json").write_text("{"), "do not fit together or are damaged"),
        (lambda folder: (folder / "vocab.json").write_text('{"a": 0}'), "do not fit together or are damaged"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("["), r"tokenizer_config.json: not JSON"),
        (lambda folder: (folder / "special_tokens_map.json").write_text("[]"), "expected a JSON object, found list"),
    ],
)
def test_a_damaged_folder_is_refused(old_folder, damage, message):
    damage(old_folder)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer_json(old_folder)


def test_a_vocabulary_without_clips_special_tokens_is_refused(old_folder, vocabulary):
    vocab = {token: number for token, number in vocabulary[0].items() if token != "<|startoftext|>"}
    (old_folder / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(CheckpointError, match=r"lacks <\|startoftext\|>"):
        load_tokenizer_json(old_folder)


def test_a_pad_token_that_is_no_text_is_refused(tmp_path):
    write_config(tmp_path, {"pad_token": 3})
    with pytest.raises(CheckpointError, match="pad_token is not a string but 3"):
        read_pad_token(tmp_path)
