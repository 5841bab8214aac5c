"""load(): a bundle becomes a Clip that encodes images and texts."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipedge.backends import BATCH, GPU_BACKENDS, Engine, EngineOptions, open_engine
from clipedge.bundle import Bundle, open_bundle
from clipedge.classify import Classifier
from clipedge.errors import BundleError, SpaceError, UsageError
from clipedge.heatmaps.maps import Heatmap, label_map, seen_region
from clipedge.images.pixels import ImageInput, Images, Mode, as_list, check_mode, open_rgb
from clipedge.images.pixels import preprocess as to_pixels
from clipedge.manifest import Manifest, TowerName, Variant
from clipedge.prompts.bank import PromptBank, build_bank
from clipedge.selftest import GOLDEN_NAME, golden_embeddings, self_test
from clipedge.text import DEFAULT_TEMPLATES, Tokenizer

__all__ = ["Clip", "load"]

TENSORRT_HINT = ". Those for tensorrt are for NVIDIA GPUs; named, they also run here, slower, to check their answers"


def load(
    folder: str | os.PathLike[str],
    *,
    backend: str | None = None,
    variant: str | None = None,
    threads: int | None = None,
    spinning: bool = True,
    preprocess: Mode = "exact",
) -> Clip:
    """Open a bundle and test its image engine on a golden input.

    ``backend``: an engine's name, or None for the best that is installed (of those on the CPU; ``"tensorrt"``,
    ``"onnxruntime-tensorrt"`` and ``"onnxruntime-cuda"`` want to be named). ``variant``: such as ``"int8.x86"``, or
    None for the one that suits the processor or the GPU that is to run it. ``threads``: CPU threads, None for one per
    core.
    ``spinning=False``: the engine's threads sleep between calls instead of waiting busily, which saves power at a
    camera's pace and delays small models by milliseconds. (OpenVINO's threads always sleep.)
    ``preprocess="fast"`` decodes and resizes large pictures several times faster, nearly as the model was trained;
    ``"exact"`` bit for bit so (see ``images.py``).

    Raises UsageError (wrong path or name), BundleError (incomplete or altered bundle), MissingDependencyError (no
    engine installed), BackendError (the engine refuses the graph or gives wrong numbers).
    """
    check_mode(preprocess)
    clip = Clip(open_bundle(folder), backend, variant, EngineOptions(threads, spinning), preprocess)
    # The image tower is what a bundle is for: open it now, so that what is broken shows before the first frame.
    _ = clip.image_engine
    return clip


@dataclass(frozen=True)
class Clip:
    """A loaded bundle. The text tower opens at its first use: a device with prompt banks never needs it."""

    bundle: Bundle
    backend: str | None = None
    variant: str | None = None
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    preprocess: Mode = "exact"

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @cached_property
    def image_engine(self) -> Engine:
        return self._open("image")

    @cached_property
    def text_engine(self) -> Engine:
        return self._open("text")

    @cached_property
    def dense_engine(self) -> Engine:
        return self._open("dense")

    def engine(self, tower: TowerName) -> Engine:
        """The engine of a tower by its name, opened and tested at its first use."""
        if tower == "image":
            return self.image_engine
        return self.text_engine if tower == "text" else self.dense_engine

    @property
    def image_variant(self) -> str:
        """The image tower that runs: ``int8.x86``, ``fp32``."""
        return variant_name(self.chosen("image"))

    def chosen(self, tower: TowerName) -> Variant:
        """The variant of a tower that runs. Raises as ``choose_variant``."""
        return choose_variant(self.bundle, tower, self.variant, self.backend)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        context_length = self.manifest.context_length
        if context_length is None:
            raise UsageError(f"{self.bundle.folder} has no text tower; use a prompt bank, or export without --no-text")
        return Tokenizer.from_file(self.bundle.checked_file("tokenizer.json"), context_length)

    def encode_image(self, images: Images) -> npt.NDArray[np.float32]:
        """Embed one image or a sequence of them: (N, D) float32, L2-normalised.

        An image is a path, encoded bytes, a PIL image, a uint8 HWC **RGB** array (OpenCV's arrays are BGR: wrap
        them in ``clipedge.Frame.from_bgr``), or a ``clipedge.Frame``. Raises ImageError for what is none of these
        or cannot be read.
        """
        pieces = self._encoded(self.image_engine, images)
        return np.concatenate(pieces) if pieces else self._no_embeddings()

    def encode_patches(self, images: Images) -> npt.NDArray[np.float32]:
        """Embed the patches of one image or a sequence of them: (N, rows, columns, D) float32, L2-normalised.

        Patches lie in the same space as texts: ``heatmap`` compares them with a label. Images are those of
        ``encode_image``; the patches divide what the model's crop keeps of them. Raises BundleError if the bundle has
        no dense output.
        """
        pieces = self._encoded(self.dense_engine, images)
        sizes = self.chosen("dense").outputs[0].shape[1:]
        none = np.empty((0, *(size for size in sizes if isinstance(size, int))), np.float32)
        return np.concatenate([none, *pieces])

    def heatmap(self, image: ImageInput, label: str, bank: PromptBank) -> Heatmap:
        """How much each place of an image looks like ``label``, one of the bank's labels, rather than like the others.

        Raises BundleError if the bundle has no dense output, SpaceError for a bank of another model, UsageError for a
        label that the bank has not.
        """
        self._check_bank(bank)
        picture = open_rgb(image)
        grid = label_map(self.encode_patches([picture])[0], bank, label)
        return Heatmap(label, grid, picture.size, seen_region(picture.size, self.manifest.preprocessing))

    def encode_text(self, texts: str | Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed one text or a sequence of them: (N, D) float32, L2-normalised.

        A text longer than the context is cut with a warning. Raises UsageError if the bundle has no text tower.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = self.tokenizer(texts)
        pieces = [self.text_engine(tokens[i : i + BATCH]) for i in range(0, len(tokens), BATCH)]
        return np.concatenate(pieces) if pieces else self._no_embeddings()

    def prompt_bank(
        self,
        labels: Sequence[str],
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        *,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        negatives: Sequence[str] = (),
    ) -> PromptBank:
        """Embed labels in templates once; ``save`` the result to classify without the text tower.

        ``synonyms`` maps a label to the texts that stand for it in place of its name; ``negatives`` are texts for what
        is none of the labels. ``clipedge.prompts.templates`` has sets of templates. Raises UsageError for texts
        that cannot be used (see ``prompts.bank.build_bank``) and if the bundle has no text tower.
        """
        return build_bank(self.encode_text, self.manifest, labels, templates, synonyms=synonyms, negatives=negatives)

    def saved_bank(self, name: str) -> PromptBank:
        """The prompt bank ``prompts/NAME.safetensors`` of this bundle."""
        names = self.bundle.bank_names()
        if name not in names:
            raise UsageError(
                f"{self.bundle.folder} has no prompt bank {name!r}; there are: {', '.join(names) or 'none'}"
            )
        return PromptBank.load(self.bundle.bank_path(name))

    def classifier(
        self, labels: Sequence[str] | PromptBank, templates: Sequence[str] = DEFAULT_TEMPLATES
    ) -> Classifier:
        """A zero-shot classifier from labels (embedded now) or from a prompt bank (no text tower needed).

        Warns when a bank's decision rule was fitted with another variant of the image tower than the one that runs.
        Raises SpaceError for a bank that belongs to another model.
        """
        if isinstance(labels, str):
            raise UsageError(f'labels are a list of texts, found the text {labels!r}; write ["{labels}"]')
        bank = labels if isinstance(labels, PromptBank) else self.prompt_bank(labels, templates)
        self._check_bank(bank)
        if bank.rule is not None and bank.rule.variant != self.image_variant:
            warnings.warn(
                f"the bank's decision rule was fitted with the image tower {bank.rule.variant!r}, and this is "
                f"{self.image_variant!r}: its thresholds may be a little off; fit it again with this one",
                stacklevel=2,
            )
        return Classifier(self.encode_image, bank, self.mean_image)

    def _check_bank(self, bank: PromptBank) -> None:
        """Raises SpaceError for a bank of another model, BundleError for one with embeddings of another width."""
        if bank.space_id != self.manifest.space_id:
            raise SpaceError(
                f"the prompt bank was made for another model (space {bank.space_id[:12]}…) than this bundle's "
                f"{self.manifest.provenance.source_model} (space {self.manifest.space_id[:12]}…): "
                "make the bank with a bundle of this model"
            )
        width = bank.label_embeds.shape[1]
        if width != self.manifest.embedding_dim:
            raise BundleError(
                f"the prompt bank's embeddings have {width} numbers, this bundle's have {self.manifest.embedding_dim}: "
                "the bank was altered; make it again"
            )

    def mean_image(self) -> npt.NDArray[np.float32]:
        """The mean embedding (D,) of the golden pictures: where this model's images lie, whatever they show."""
        return np.asarray(golden_embeddings(self.bundle.checked_file(GOLDEN_NAME), "image").mean(axis=0))

    def _open(self, tower: TowerName) -> Engine:
        variant = self.chosen(tower)
        path = self.bundle.checked_variant(variant)
        engine = open_engine(path, variant, self.backend, self.engine_options)
        self_test(engine, self.bundle.checked_file(GOLDEN_NAME), variant)
        return engine

    def _encoded(self, engine: Engine, images: Images) -> list[npt.NDArray[np.float32]]:
        """What an engine makes of the images, batch by batch."""
        pictures = as_list(images)
        settings, threads = self.manifest.preprocessing, self.engine_options.threads
        return [
            engine(to_pixels(pictures[i : i + BATCH], settings, self.preprocess, threads))
            for i in range(0, len(pictures), BATCH)
        ]

    def _no_embeddings(self) -> npt.NDArray[np.float32]:
        return np.empty((0, self.manifest.embedding_dim), np.float32)


def variant_name(variant: Variant) -> str:
    """``PRECISION[.TARGET]``, as in the file's name: ``int8.x86``, ``fp32``."""
    return variant.precision if variant.target == "any" else f"{variant.precision}.{variant.target}"


def choose_variant(bundle: Bundle, tower: TowerName, name: str | None, backend: str | None = None) -> Variant:
    """The variant called ``name``, or the best one made for what ``backend`` runs on, else for any device.

    On a CPU that is int8, and float16 comes last, which is widened there; on a GPU float16 goes before int8, which is
    often no faster, and FP8 comes last, which not every GPU has. Raises UsageError if there is none such, BundleError
    if the bundle lacks the tower.
    """
    variants = [variant for variant in bundle.manifest.variants if variant.tower == tower]
    if not variants and tower == "dense":
        raise BundleError(
            f"{bundle.folder} has no dense output, which heatmaps are made of; export it again with "
            "`clipedge export --dense`"
        )
    if not variants:
        raise BundleError(f"{bundle.folder} has no {tower} tower; export it again with one, or use a prompt bank")
    here = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}.get(platform.machine().lower())
    device, order = f"this processor ({platform.machine()})", ("int8", "fp32", "fp16", "fp8")
    if backend in GPU_BACKENDS:
        here, device, order = "tensorrt", f"the backend {backend}", ("fp16", "int8", "fp32", "fp8")
    fitting = sorted(
        (variant for variant in variants if variant.target in (here, "any")),
        key=lambda variant: (order.index(variant.precision), variant.target == "any"),
    )
    if name is not None:
        fitting = [variant for variant in variants if variant_name(variant) == name]
    if not fitting:
        raise UsageError(
            f"{bundle.folder} has no {tower} tower {name or f'for {device}'}; "
            f"there are: {', '.join(map(variant_name, variants))}; "
            + ("name one of them" if name else f"export with --target {here}, or name one with --variant")
            + (TENSORRT_HINT if any(variant.target == "tensorrt" for variant in variants) else "")
        )
    return fitting[0]
