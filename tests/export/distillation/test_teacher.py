"""The teacher looks once: shards that survive a kill, bound to what they were made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipedge.calibration.data import Pictures, open_item, read_pictures
from clipedge.errors import ImageError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.distillation import teacher as module
from clipedge.export.distillation.shards import open_cache
from clipedge.export.distillation.teacher import Lessons, ask_teacher, teacher_facts
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.augment import Augmentation, augmented, draw_view
from clipedge.export.training.data import pictures_sha256

AUGMENTATION = Augmentation(seed=3)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_PICTURES", 5)
    monkeypatch.setattr(module, "SHARD_TEXTS", 9)


def ask(teacher: Checkpoint, pictures: Pictures, folder: Path, captions: bool = True, **changes: Any) -> Lessons:
    augmentation = dataclasses.replace(AUGMENTATION, **changes)
    cache = open_cache(folder, teacher_facts(teacher, pictures_sha256(pictures), augmentation, 2))
    return ask_teacher(teacher, pictures, augmentation, 2, cache, captions)


def few(pairs: Path, count: int = 12) -> Pictures:
    pictures = read_pictures(pairs)
    assert pictures.captions is not None
    return dataclasses.replace(pictures, items=pictures.items[:count], captions=pictures.captions[:count])


def test_lessons_are_what_the_teacher_says_of_exactly_these_views(
    teacher: Checkpoint, pairs: Path, tmp_path: Path
) -> None:
    pictures = few(pairs)
    lessons = ask(teacher, pictures, tmp_path)
    assert lessons.rows.tolist() == list(range(12)) and not lessons.unreadable
    tower = build_image_tower(teacher)
    for row, view in ((0, 0), (6, 1), (11, 0)):
        np.testing.assert_array_equal(lessons.views[row, view], draw_view(AUGMENTATION, row, view))
        pixels = augmented(open_item(pictures.items[row]), lessons.views[row, view], teacher.preprocessing)
        with torch.inference_mode():
            own = tower(torch.from_numpy(pixels[None])).numpy()[0]
        np.testing.assert_allclose(lessons.images[row, view], own, atol=5e-4)
    assert lessons.captions is not None and lessons.texts is not None and pictures.captions is not None
    source = SourceTexts(teacher)
    for row in (0, 7):
        own = source.encode(pictures.captions[row])
        np.testing.assert_allclose(lessons.texts[lessons.captions[row]], own, atol=5e-4)
    distinct = {text for texts in pictures.captions for text in texts}
    assert len(lessons.texts) == len(distinct)


def test_what_is_there_is_not_computed_again(
    teacher: Checkpoint, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = few(pairs)
    first = ask(teacher, pictures, tmp_path)
    (tmp_path / "pictures-00001.safetensors").unlink()  # as if killed before it was there
    looked: list[int] = []
    real = module._picture_shard

    def counted(*arguments: Any) -> Any:
        looked.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(module, "_picture_shard", counted)
    second = ask(teacher, pictures, tmp_path)
    assert looked == [5]
    for field in ("rows", "views", "images", "texts"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_unreadable_pictures_are_named_counted_and_left_out(
    teacher: Checkpoint, folder_of: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = folder_of(7)
    damaged = sorted(folder.iterdir())[:6]
    for path in damaged[:5]:  # a whole shard of them
        path.write_bytes(b"no picture")
    damaged[5].write_bytes(damaged[5].read_bytes()[:60])
    pictures = read_pictures(folder)
    with pytest.warns(UserWarning, match=r"6 of 7 pictures cannot be read.*00000.*and 3 more"):
        lessons = ask(teacher, pictures, tmp_path / "cache", captions=False)
    assert lessons.rows.tolist() == [6] and lessons.images.shape == (1, 2, 128)
    assert [path.name in line for path, line in zip(damaged, lessons.unreadable, strict=True)] == [True] * 6
    with pytest.warns(UserWarning, match="6 of 7"):  # the names are kept with the shards
        assert ask(teacher, pictures, tmp_path / "cache", captions=False).unreadable == lessons.unreadable
    sorted(folder.iterdir())[6].write_bytes(b"")
    with pytest.raises(ImageError, match="none of the 7 pictures"):
        ask(teacher, read_pictures(folder), tmp_path / "other", captions=False)


def test_a_cache_of_another_teacher_data_or_seed_is_refused(teacher: Checkpoint, pairs: Path, tmp_path: Path) -> None:
    pictures = few(pairs, 3)
    ask(teacher, pictures, tmp_path)
    other = dataclasses.replace(teacher, space_id="0" * 64)
    with pytest.raises(UsageError, match=r"made for another run: expected space_id 0000.*name another folder"):
        ask(other, pictures, tmp_path)
    with pytest.raises(UsageError, match="expected data_sha256"):
        ask(teacher, few(pairs, 4), tmp_path)
    with pytest.raises(UsageError, match=r"expected augmentation\.seed 4, found 3"):
        ask(teacher, pictures, tmp_path, seed=4)


def test_damaged_and_foreign_shards_are_refused(teacher: Checkpoint, pairs: Path, tmp_path: Path) -> None:
    pictures = few(pairs, 3)
    ask(teacher, pictures, tmp_path / "a")
    ask(teacher, pictures, tmp_path / "b", seed=9)
    shard = tmp_path / "a" / "pictures-00000.safetensors"
    sound = shard.read_bytes()
    shard.write_bytes((tmp_path / "b" / shard.name).read_bytes())
    with pytest.raises(UsageError, match="belongs to another teacher"):
        ask(teacher, pictures, tmp_path / "a")
    for damage in (sound[:-7], b"", b"\xff" * 40, sound[:200] + b"!!" + sound[202:]):
        shard.write_bytes(damage)
        with pytest.raises(UsageError, match=r"damaged|belongs|other tensors"):
            ask(teacher, pictures, tmp_path / "a")
    shard.write_bytes((tmp_path / "a" / "texts-00000.safetensors").read_bytes())
    with pytest.raises(UsageError, match="other tensors than expected"):
        ask(teacher, pictures, tmp_path / "a")
    for text in ("", "[]", "{", json.dumps({"space_id": "x"})):
        (tmp_path / "a" / "facts.json").write_text(text)
        with pytest.raises(UsageError, match=r"damaged|another run"):
            ask(teacher, pictures, tmp_path / "a")
