"""The shape of a CLIP model, whatever file it was read from.

A field that most models share has their value as its default: the hash that names an embedding space
(``clipedge.export.checkpoints.checkpoint``) leaves such fields out, so it survives the fields that are added for the
next family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Activation",
    "AnyTextConfig",
    "FastVitConfig",
    "ImageConfig",
    "ModelConfig",
    "ResNetConfig",
    "TextConfig",
    "TracedImageConfig",
    "TracedTextConfig",
    "VitConfig",
    "VitModelConfig",
]

# x * sigmoid(1.702 x), OpenAI's; the exact Gaussian error linear unit; and its approximation with a tanh.
Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]

LEGACY_EOS_TOKEN_ID = 2
PAD_ID = 0  # what fills up texts in front of a class token


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer. Sizes in pixels; pictures and patches are square.

    ``norm_pre``: a LayerNorm stands between embedding and blocks. ``class_token``: a learned token stands in front of
    the patches. ``pool``: what becomes the embedding, the class token or what one learned query with ``pool_heads``
    heads finds in all tokens (``clipedge.export.towers.pooling``): "map" is SigLIP's head, "attentional" CoCa's.
    ``conv_stem``: three convolutions, not one, make a token of a patch (``clipedge.export.towers.stem``).
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation
    eps: float
    norm_pre: bool = True
    class_token: bool = True
    pool: Literal["class", "map", "attentional"] = "class"
    pool_heads: int = 8
    conv_stem: bool = False
    projection_bias: bool = False

    @property
    def tokens(self) -> int:
        """Tokens per picture: the patches and, if there is one, the class token."""
        return (self.image_size // self.patch_size) ** 2 + int(self.class_token)


@dataclass(frozen=True)
class ResNetConfig:
    """OpenAI's modified ResNet. ``width`` is that of the stem, ``layers`` the blocks of each of the four stages,
    ``heads`` those of the attention that pools the last stage's maps."""

    image_size: int
    width: int
    layers: tuple[int, int, int, int]
    heads: int

    @property
    def features(self) -> int:
        """Channels behind the last stage: each doubles the width, and a block gives four times its width."""
        return 32 * self.width

    @property
    def tokens(self) -> int:
        """Tokens of the attention pool: the positions of the last stage's maps and their mean."""
        return (self.image_size // 32) ** 2 + 1


@dataclass(frozen=True)
class FastVitConfig:
    """A FastViT: convolutions in stages of falling resolution, with self-attention in the last of them.

    ``widths`` are the channels and ``depths`` the blocks of each stage. The last ``attention_stages`` mix by
    attention, with heads of 32 channels, behind a LayerNorm of ``norm_eps`` where that is given, and their positions
    are encoded by a convolution. The downsampling in front of a stage in ``squeeze_stages`` has a
    squeeze-and-excitation. The stem divides the resolution by four, each stage behind the first by two.
    """

    image_size: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratio: int
    attention_stages: int
    squeeze_stages: tuple[int, ...]
    norm_eps: float | None = None

    @property
    def stride(self) -> int:
        """How many pixels high and wide a position of the last stage's maps is."""
        return 2 << len(self.widths)

    @property
    def tokens(self) -> int:
        """Positions of the last stage's maps, between which it attends."""
        return (self.image_size // self.stride) ** 2


@dataclass(frozen=True)
class TextConfig:
    """A text transformer. ``context_length`` is in tokens.

    ``causal``: a token sees itself and those before it, else all. ``pool``: the token that becomes the embedding, the
    end of the text or the last of the context. ``class_token``: a learned token stands behind the text, as its last,
    and padding is hidden (``clipedge.export.towers.text.hidden_keys``). ``mixers``: in front of the blocks and behind
    them stands one with convolutions in the place of attention (``clipedge.export.towers.mixer``).
    """

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation
    eps: float
    eos_token_id: int
    causal: bool = True
    pool: Literal["end", "last"] = "end"
    projection_bias: bool = False
    class_token: bool = False
    mixers: bool = False

    @property
    def tokens(self) -> int:
        """Tokens per text: the context and, if there is one, the class token."""
        return self.context_length + int(self.class_token)

    @property
    def pools_highest_id(self) -> bool:
        """Whether a text's end is where the highest id stands, not at the first ``eos_token_id``.

        Configurations written before transformers' pull request 24773 carry a wrong end-of-text id of 2; for
        those transformers keeps OpenAI's original rule (the end-of-text token is the highest of the vocabulary).
        """
        return self.eos_token_id == LEGACY_EOS_TOKEN_ID


@dataclass(frozen=True)
class TracedImageConfig:
    """An image tower that the library it comes from builds, and whose graph is traced.

    ``architecture`` is that library's name for it, ``settings`` what its configuration says beyond that, as JSON.
    """

    library: Literal["transformers", "open_clip"]
    architecture: str
    settings: str
    image_size: int


@dataclass(frozen=True)
class TracedTextConfig:
    """A text tower that transformers builds; ``architecture`` and ``settings`` as in ``TracedImageConfig``."""

    architecture: str
    settings: str
    context_length: int
    pad_token_id: int
    end_token_id: int


ImageConfig: TypeAlias = VitConfig | ResNetConfig | FastVitConfig | TracedImageConfig
AnyTextConfig: TypeAlias = TextConfig | TracedTextConfig


@dataclass(frozen=True)
class ModelConfig:
    """Both towers and the dimension of the space they share."""

    image: ImageConfig
    text: AnyTextConfig
    embed_dim: int


@dataclass(frozen=True)
class VitModelConfig(ModelConfig):
    """Both towers are transformers of the canonical kind."""

    image: VitConfig
    text: TextConfig
