"""The tokenizer on a vocabulary small enough to work ids out by hand, and templates.

Ids against transformers: tests/export/test_tokenizer.py.
"""

import sys
import warnings

import numpy as np
import pytest
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from clipedge.errors import BundleError, CheckpointError, MissingDependencyError, UsageError
from clipedge.text import DEFAULT_TEMPLATES, Tokenizer, TruncatedTextWarning, bake_tokenizer, fill_template

START, END, PAD = 0, 1, 2
VOCAB = {"<s>": START, "<e>": END, "<p>": PAD, "red": 3, "cat": 4, "on": 5, "é": 6, "?": 7}


def tokenizer_json(post_processor=True):
    backend = Backend(models.WordLevel(VOCAB, unk_token="?"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "<e>", "<p>")])
    if post_processor:
        backend.post_processor = processors.RobertaProcessing(("<e>", END), ("<s>", START))
    return backend.to_str().encode()


@pytest.fixture
def baked():
    return bake_tokenizer(tokenizer_json(), 6, "<p>")


@pytest.fixture
def tokenizer(baked):
    return Tokenizer.from_file(baked, 6)


def test_ids_and_padding(tokenizer):
    ids = tokenizer(["Red cat", "", "cat <e> cat"])
    assert ids.dtype == np.int64
    assert ids.tolist() == [[0, 3, 4, 1, 2, 2], [0, 1, 2, 2, 2, 2], [0, 4, 1, 4, 1, 2]]


def test_no_texts(tokenizer):
    assert tokenizer([]).shape == (0, 6)


def test_a_tokenizer_is_read_from_a_path(tmp_path, baked):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(baked)
    assert Tokenizer.from_file(path, 6)(["cat"]).tolist() == [[0, 4, 1, 2, 2, 2]]
    assert Tokenizer.from_file(str(path), 6)(["cat"]).tolist() == [[0, 4, 1, 2, 2, 2]]


def test_an_over_long_text_keeps_its_end_token_and_the_warning_quotes_what_was_lost(tokenizer):
    # The lost part is quoted as it was written: capitals, spaces, and an accent that NFC had joined.
    with pytest.warns(TruncatedTextWarning) as caught:
        ids = tokenizer(["cat", "red  cat on CAT  e\u0301 On  RED "])
    assert ids.tolist() == [[0, 4, 1, 2, 2, 2], [0, 3, 4, 5, 4, 1]]
    assert len(caught) == 1
    lost = "e\u0301 On  RED"
    assert str(caught[0].message).endswith(f"cut off: {lost!r}")
    assert "6 tokens" in str(caught[0].message)


def test_a_text_that_just_fits_warns_of_nothing(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer(["red cat on red"]).tolist() == [[0, 3, 4, 5, 3, 1]]


def test_a_long_loss_is_quoted_in_part(tokenizer):
    with pytest.warns(TruncatedTextWarning, match=r"cut off: '(cat ){20}\.\.\.'$"):
        tokenizer(["cat " * 500])


def test_the_warning_points_at_the_caller(tokenizer):
    with pytest.warns(TruncatedTextWarning) as caught:
        tokenizer(["cat " * 9])
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("red cat", r"a list of texts, found one text; write \['red cat'\]"),
        (["red", b"cat"], r"texts\[1\] to be a string, found bytes"),
        ([None], r"texts\[0\] to be a string, found NoneType"),
        (["\ud83d"], r"texts\[0\] contains half of a surrogate pair"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(tokenizer, texts, message):
    with pytest.raises(UsageError, match=message):
        tokenizer(texts)


def test_a_tokenizer_of_another_length_is_refused(baked):
    with pytest.raises(BundleError, match="cuts and pads to 7 tokens, found 6 and 6"):
        Tokenizer.from_file(baked, 7)


@pytest.mark.parametrize(("disable", "found"), [("no_truncation", "None and 6"), ("no_padding", "6 and None")])
def test_a_tokenizer_that_does_not_cut_or_pad_is_refused(baked, disable, found):
    backend = Backend.from_str(baked.decode())
    getattr(backend, disable)()
    with pytest.raises(BundleError, match=f"found {found}"):
        Tokenizer.from_file(backend.to_str().encode(), 6)


@pytest.mark.parametrize("damaged", [b"", b"{", b"{}", b"\xff\xfe", b"[]", b'{"version": "1.0", "model": {}}'])
def test_a_damaged_tokenizer_is_refused(damaged):
    with pytest.raises(BundleError, match=r"tokenizer\.json is damaged \(.*\); export the bundle again"):
        Tokenizer.from_file(damaged, 6)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        bake_tokenizer(damaged, 6, "<p>")


def test_a_missing_tokenizer_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match=r"tokenizer\.json: the tokenizer cannot be read \(No such file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", 6)


def test_without_the_tokenizers_library_the_error_names_the_extra(baked, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "clipedge\[text\]"'):
        Tokenizer.from_file(baked, 6)


def test_baking_replaces_earlier_settings(baked):
    again = bake_tokenizer(baked, 4, "<e>")
    assert Tokenizer.from_file(again, 4)(["cat"]).tolist() == [[0, 4, 1, 1]]


def test_baking_a_tokenizer_without_its_tokens_is_refused():
    with pytest.raises(CheckpointError, match=r"pads texts with '<pad>', which its tokenizer.json does not contain"):
        bake_tokenizer(tokenizer_json(), 6, "<pad>")
    with pytest.raises(CheckpointError, match=r"adds a start and an end token to a text, found \[\]"):
        bake_tokenizer(tokenizer_json(post_processor=False), 6, "<p>")


@pytest.mark.parametrize(
    ("template", "label", "prompt"),
    [
        (DEFAULT_TEMPLATES[0], "cat", "a photo of a cat."),
        ("{}", "", ""),
        ("a {photo} of {{}", "cat", "a {photo} of {cat"),
        ("{0} {x!r:>{}", "cat", "{0} {x!r:>cat"),
        ("a {}.", "set {}", "a set {}."),
        ("a {}.", "{0.__class__} \\1 %s $x", "a {0.__class__} \\1 %s $x."),
    ],
)
def test_a_template_takes_the_label_as_it_is(template, label, prompt):
    assert fill_template(template, label) == prompt


@pytest.mark.parametrize(("template", "count"), [("a photo", 0), ("a photo of a {label}", 0), ("{} and {}", 2)])
def test_a_template_with_another_number_of_places_is_refused(template, count):
    with pytest.raises(UsageError, match=f"exactly once, for the label; .* contains it {count} times"):
        fill_template(template, "cat")


def test_template_and_label_are_strings():
    with pytest.raises(UsageError, match="a label to be a string, found int: 3"):
        fill_template("a {}", 3)
    with pytest.raises(UsageError, match="a template to be a string, found NoneType"):
        fill_template(None, "cat")
