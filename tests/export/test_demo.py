"""The demonstration checkpoint as it ships, and the code that trains it."""

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures  # noqa: E402
from clipedge.export import demo  # noqa: E402
from clipedge.export.demo import train as training  # noqa: E402
from clipedge.export.demo.muon import orthogonalise  # noqa: E402
from clipedge.export.demo.tokenizer import train_tokenizer  # noqa: E402

CHECKPOINT = Path(demo.__file__).parent
STRINGS = [
    "",
    "a photo of a red circle.",
    "  Two\t\n spaces",
    "Ünïcode é 日本語 🎉",
    "it's <|endoftext|> 12345",
    "\x00\x7f",
]


def accuracy(checkpoint: Path, split: str, count: int, *, held_out_only: bool = False) -> float:
    """Zero-shot top-1 as transformers alone computes it."""
    model = transformers.CLIPModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(checkpoint)
    pictures, labels = labelled_pictures(split, count, size=96, held_out_only=held_out_only)
    prompts = [TEMPLATES[0].format(name) for name in CLASS_NAMES]
    with torch.no_grad():
        logits = model(
            **tokenizer(prompts, padding=True, return_tensors="pt"),
            **processor(list(pictures), return_tensors="pt"),
        ).logits_per_image
    return float((logits.argmax(dim=1).numpy() == labels).mean())


def test_it_is_small_and_half_precision() -> None:
    weights = CHECKPOINT / "model.safetensors"
    assert weights.stat().st_size <= 10_000_000
    with safe_open(weights, "np") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}


def test_it_knows_its_scenes() -> None:
    # The model card's 98.9 and 96.2 %, less what so few scenes may differ by.
    assert accuracy(CHECKPOINT, "test", 300) >= 0.96
    assert accuracy(CHECKPOINT, "test", 200, held_out_only=True) >= 0.91


def test_configuration_states_the_real_end_token() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    vocab = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert config["text_config"]["eos_token_id"] == vocab["<|endoftext|>"] == len(vocab) - 1
    assert config["text_config"]["vocab_size"] == len(vocab)


def test_tokenizer_reads_alike_in_both_libraries() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    plain = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    reference = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    for text in [*STRINGS, *map(chr, range(256))]:
        assert plain.encode(text).ids == reference(text)["input_ids"], repr(text)


def test_every_byte_has_a_token() -> None:
    tokenizer = train_tokenizer(["a red circle"], 600)
    end = tokenizer.token_to_id("<|endoftext|>")
    for text in [chr(point) for point in range(33, 0x2000, 7)]:
        assert end not in tokenizer.encode(text, add_special_tokens=False).ids, repr(text)


def test_loss_prefers_pairs_and_ignores_equal_captions() -> None:
    embeddings = torch.eye(3)
    scale = torch.tensor(3.0)
    different = torch.tensor([[1, 9], [2, 9], [3, 9]])
    right = training.contrastive_loss(embeddings, embeddings, scale, different)
    wrong = training.contrastive_loss(embeddings, embeddings[[1, 2, 0]], scale, different)
    assert right < 0.01 < 5 < wrong
    twins = torch.tensor([[1, 9], [1, 9], [3, 9]])
    confused = training.contrastive_loss(embeddings[[0, 0, 2]], embeddings[[0, 0, 2]], scale, twins)
    assert confused < 0.01


def test_muon_makes_updates_nearly_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in [(48, 16), (16, 48), (32, 32)]:
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5 and values.max() < 1.3, shape


@pytest.mark.usefixtures("one_thread")
def test_training_learns_and_writes_a_checkpoint_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.py").write_text("# not the checkpoint's")
    recipe = training.Recipe(steps=40, batch_size=32, scenes=200, warmup=5, report_every=20, validation_scenes=20)
    training.train(recipe, tmp_path)
    losses = [float(value) for value in re.findall(r"loss (\S+)", capsys.readouterr().out)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "kept.py",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert 0 <= accuracy(tmp_path, "validation", 20) <= 1


def test_embeddings_equal_the_models_own_forward() -> None:
    model = training.build_model(train_tokenizer(["a red circle"], 600)).eval()
    pictures, _ = labelled_pictures("validation", 3)
    pixels = training.normalise(pictures)
    ids = torch.tensor([[512, 5, 6, model.config.text_config.eos_token_id]] * 3)
    with torch.no_grad():
        reference = model(pixel_values=pixels, input_ids=ids)
        torch.testing.assert_close(training.embed_images(model, pixels), reference.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(training.embed_texts(model, ids), reference.text_embeds, atol=1e-5, rtol=0)


def test_training_sees_pixels_as_the_preprocessing_gives_them() -> None:
    pictures, _ = labelled_pictures("validation", 3)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(CHECKPOINT)
    expected = processor(list(pictures), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(training.normalise(pictures), expected, atol=1e-5, rtol=0)
