"""The small models of `make bench-families`: they learn, and what is saved is what was trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from small_resnet import small_resnet  # noqa: E402
from small_siglip import sigmoid_loss, small_siglip  # noqa: E402
from train_small import Trainee, encode_texts, train  # noqa: E402

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures  # noqa: E402
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint  # noqa: E402
from clipedge.export.demo.pool import Pool  # noqa: E402
from clipedge.export.demo.train import Recipe, normalise  # noqa: E402
from clipedge.export.source_texts import SourceTexts  # noqa: E402
from clipedge.export.towers import build_image_tower  # noqa: E402

PROMPTS = [template.format(name) for template in TEMPLATES for name in CLASS_NAMES[::7]]
PAIRS = 48


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread: None) -> None:
    """Every test here is on one thread."""


@pytest.fixture(scope="module", params=[small_resnet, small_siglip], ids=["ResNet", "SigLIP"])
def trained(request: pytest.FixtureRequest) -> tuple[Trainee, list[float]]:
    """A model after a few steps on a few pictures, and its loss on them before and after."""
    pictures, labels = labelled_pictures("train", PAIRS)
    captions = [(TEMPLATES[0].format(CLASS_NAMES[label]),) for label in labels]
    torch.manual_seed(0)
    trainee: Trainee = request.param(text for texts in captions for text in texts)
    ids = encode_texts(trainee.tokenizer, [text for (text,) in captions])

    @torch.no_grad()
    def loss() -> float:
        return float(trainee.loss(trainee.embed_images(pictures), trainee.embed_texts(ids), ids))

    losses = [loss()]
    recipe = Recipe(steps=12, batch_size=24, warmup=2, report_every=12, validation_scenes=10)
    train(trainee, Pool(pictures, captions), recipe)
    losses.append(loss())
    trainee.model.eval()
    return trainee, losses


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(trained: tuple[Trainee, list[float]]) -> None:
    before, after = trained[1]
    assert after < 0.9 * before


@pytest.mark.slow
@torch.no_grad()
def test_the_export_reads_what_was_trained(trained: tuple[Trainee, list[float]], tmp_path: Path) -> None:
    trainee, _ = trained
    trainee.save(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    pictures, _ = labelled_pictures("validation", 8)
    images = build_image_tower(checkpoint)(torch.from_numpy(pictures))
    torch.testing.assert_close(images, trainee.embed_images(pictures), atol=1e-5, rtol=0)
    texts = trainee.embed_texts(encode_texts(trainee.tokenizer, PROMPTS)).numpy()
    np.testing.assert_allclose(SourceTexts(checkpoint).encode(PROMPTS), texts, atol=1e-5, rtol=0)
    for name in ("logit_scale", "logit_bias"):
        if (trained_value := getattr(trainee.model, name, None)) is not None:
            value = trained_value.exp() if name == "logit_scale" else trained_value
            assert getattr(checkpoint, name) == pytest.approx(value.item(), rel=1e-6)


def test_sigmoid_loss_asks_every_pair_but_equal_captions() -> None:
    embeddings, ids = torch.eye(3), torch.tensor([[1, 9], [2, 9], [3, 9]])
    scale, bias = torch.tensor(3.0), torch.tensor(-10.0)
    right = sigmoid_loss(embeddings, embeddings, scale, bias, ids)
    logits = torch.tensor(np.exp(3.0) * np.eye(3) - 10)
    # Written out: -log sigmoid(z) of a pair, -log(1 - sigmoid(z)) of two that do not belong together.
    expected = (
        -(torch.sigmoid(logits.diagonal()).log().sum() + (1 - torch.sigmoid(logits[~torch.eye(3).bool()])).log().sum())
        / 3
    )
    torch.testing.assert_close(right, expected.float())
    confused = embeddings[[0, 0, 2]]
    assert sigmoid_loss(confused, confused, scale, bias, ids) > 1
    twins = torch.tensor([[1, 9], [1, 9], [3, 9]])
    assert sigmoid_loss(confused, confused, scale, bias, twins) < 0.01


@torch.no_grad()
def test_a_siglip_begins_with_the_tokens_of_the_demonstration_checkpoint() -> None:
    siglip = small_siglip(["a red circle"]).model.vision_model
    source = transformers.CLIPModel.from_pretrained(DEMO_CHECKPOINT, dtype=torch.float32).vision_model
    pictures, _ = labelled_pictures("validation", 16)
    tokens = siglip.embeddings(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)
    expected = source.pre_layrnorm(source.embeddings(normalise(pictures)))[:, 1:]
    assert torch.nn.functional.cosine_similarity(tokens, expected, dim=-1).median() > 0.95
