"""What a step sees."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from clipedge.calibration.data import Pictures, open_item, read_pictures
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.finetuning import Recipe
from clipedge.export.finetuning.batches import draw_batch
from clipedge.export.finetuning.material import gather
from clipedge.export.training.augment import augmented, draw_view
from clipedge.export.training.recipe import batch_rows
from clipedge.text import Tokenizer

RECIPE = Recipe(batch_size=12)


def test_pictures_of_a_class_share_a_text_and_pictures_keep_theirs(
    model: Checkpoint, classes: Path, tokenizer: Tokenizer
) -> None:
    material = gather(read_pictures(classes), None, ["a {}.", "the {}.", "{}"], tokenizer)
    wordings = set()
    for step in range(1, 9):
        batch = draw_batch(material, model.preprocessing, RECIPE, step)
        rows, _ = batch_rows(step, 40, RECIPE)
        assert batch.pixels.shape == (1, 12, 64, 64, 3) and batch.tokens.shape[0] == 1
        assert batch.tokens.shape[1] == len(set(material.groups[rows]))
        for place, row in zip(batch.places.tolist(), rows, strict=True):
            own = [tuple(material.tokens[text]) for text in material.texts[material.groups[row]]]
            found = tuple(batch.tokens[0, place].tolist())
            assert found in own
            wordings.add((material.groups[row], own.index(found)))
        same = material.groups[rows][:, None] == material.groups[rows][None]
        assert np.array_equal(batch.same.numpy(), same & ~np.eye(12, dtype=bool))
    assert len(wordings) == 12  # four classes in three wordings


def test_views_are_new_in_every_pass_and_those_of_the_parameters(
    model: Checkpoint, classes: Path, tokenizer: Tokenizer
) -> None:
    material = gather(read_pictures(classes), None, None, tokenizer)
    recipe = dataclasses.replace(RECIPE, image_image=1.0)
    seen = {}
    for step in (1, 2, 3, 4):  # three batches of twelve are a pass
        batch = draw_batch(material, model.preprocessing, recipe, step)
        assert batch.pixels.shape[0] == 2
        rows, passed = batch_rows(step, 40, recipe)
        for place, row in enumerate(rows.tolist()):
            for view in range(2):
                seen[row, 2 * passed + view] = batch.pixels[view, place].numpy()
    assert {view for _, view in seen} == {0, 1, 2, 3}
    for (row, view), pixels in list(seen.items())[::7]:
        picture, parameters = open_item(material.pictures.items[row]), draw_view(recipe.augmentation, row, view)
        assert np.array_equal(pixels, augmented(picture, parameters, model.preprocessing))


def test_two_wordings_differ_and_equal_captions_are_no_negatives(model: Checkpoint, tokenizer: Tokenizer) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    captions = [("a", "b"), ("c", "d"), ("b", "e"), ("f", "g")]
    material = gather(Pictures("here", [picture] * 4, captions=captions), None, None, tokenizer)
    recipe = Recipe(batch_size=4, text_text=0.5)
    for step in range(1, 6):
        batch = draw_batch(material, model.preprocessing, recipe, step)
        rows, _ = batch_rows(step, 4, recipe)
        assert batch.tokens.shape == (2, 4, 32)
        assert not (batch.tokens[0] == batch.tokens[1]).all(dim=1).any()
        first, third = (rows.tolist().index(row) for row in (0, 2))  # both may be called "b"
        expected = torch.zeros(4, 4, dtype=torch.bool)
        expected[first, third] = expected[third, first] = True
        assert torch.equal(batch.same, expected)


def test_a_batch_depends_on_seed_and_step_alone(model: Checkpoint, pairs: Path, tokenizer: Tokenizer) -> None:
    material = gather(read_pictures(pairs), None, None, tokenizer)
    first, again = (draw_batch(material, model.preprocessing, RECIPE, 5) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels) and torch.equal(first.tokens, again.tokens)
    other = draw_batch(material, model.preprocessing, dataclasses.replace(RECIPE, seed=1), 5)
    assert not torch.equal(first.pixels, other.pixels)
