"""Students that are image towers of timm (Wightman 2019, https://github.com/huggingface/pytorch-image-models).

They are what open_clip makes of timm's networks (``open_clip.timm_model.TimmModel``), are trained as such, with the
BatchNorms that they have, and are saved in open_clip's layout. So the extra ``open-clip`` is all that they need: it
brings timm, and export needs it for most of these towers in any case. Nothing is downloaded, they begin with new
weights.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import TextConfig, TracedImageConfig
from clipedge.export.checkpoints.mobileclip.timm import FASTVITS
from clipedge.export.checkpoints.openclip.siglip import SIGLIP_NAMES
from clipedge.export.distillation.spec import StudentSpec
from clipedge.export.libraries.open_clip import import_open_clip, open_clip_image_tower

__all__ = ["new_timm_weights", "timm_config"]

# How open_clip pools and projects those that ClipEdge has readers for: as their originals do.
OWN_HEADS: Mapping[str, Mapping[str, str | None]] = {
    "|".join(FASTVITS): {"timm_pool": "avg", "timm_proj": None},
    "vit_base_mci_224": {"timm_pool": "token", "timm_proj": None},
    SIGLIP_NAMES: {"timm_pool": "map", "timm_proj": "none"},
}
# As the network itself pools, and a matrix behind it; open_clip's ConvNeXt and Swin models have these.
USUAL_HEAD = {"timm_pool": "", "timm_proj": "linear"}
# For networks with a layer between pooling and classifier, which the usual head does not allow for (MobileNetV3): the
# classifier is the projection.
CLASSIFIER_HEAD = {"timm_pool": "avg", "timm_proj": None}


def timm_config(teacher: Checkpoint, spec: StudentSpec) -> TracedImageConfig:
    """The settings that open_clip's ``model_cfg`` has for the tower that a specification of the kind "timm" names.

    Raises MissingDependencyError without open_clip and timm, UsageError for a name that timm does not know or a network
    whose pictures have another size than the teacher's.
    """
    import_open_clip()
    import timm

    assert spec.name is not None and isinstance(teacher.text, TextConfig)
    known, size = timm.list_models(), teacher.preprocessing.height
    if spec.name not in known:
        close = difflib.get_close_matches(spec.name, known, 3)
        raise UsageError(
            f"--student {spec.text}: timm {timm.__version__} has no architecture of this name"
            + (f"; did you mean {' or '.join(close)}?" if close else "; timm.list_models() has those it knows")
        )
    released = timm.get_pretrained_cfg(spec.name)
    if released is not None and released.fixed_input_size and released.input_size[1:] != (size, size):
        raise UsageError(
            f"--student {spec.text}: this network takes pictures of {released.input_size[1]} pixels and no others, the "
            f"teacher's have {size}; name one for {size}, or one of convolutions"
        )
    vision = {"timm_model_name": spec.name, **_head(spec.name), "image_size": size}
    settings = {
        "embed_dim": teacher.embed_dim,
        "vision_cfg": vision,
        "quick_gelu": teacher.text.activation == "quick_gelu",
    }
    return TracedImageConfig("open_clip", spec.name, json.dumps(settings, sort_keys=True), size)


def new_timm_weights(config: TracedImageConfig, seed: int) -> dict[str, torch.Tensor]:
    """The whole state of the tower as open_clip and timm initialise it, counts of batches included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = open_clip_image_tower(config)
    return {name: value.detach() for name, value in tower.state_dict().items()}


def _head(name: str) -> Mapping[str, Any]:
    for names, head in OWN_HEADS.items():
        if re.fullmatch(names, name):
            return head
    return CLASSIFIER_HEAD if _has_layer_behind_pool(name) else USUAL_HEAD


@lru_cache
def _has_layer_behind_pool(name: str) -> bool:
    """Whether the network without its classifier gives other features than those that it pools."""
    import timm

    try:
        network = timm.create_model(name, pretrained=False, num_classes=0)
    except Exception as error:  # of whatever the network wants that is not there
        raise UsageError(f"--student timm:{name}: timm cannot build it ({error!s:.200}); name another") from None
    features: int = network.num_features
    return bool(getattr(network, "head_hidden_size", features) != features)
