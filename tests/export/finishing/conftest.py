"""An image tower with outliers, and few pictures to calibrate and finish it with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from clipedge.calibration import scenes
from clipedge.calibration.calibrate import Calibration, calibrate, minmax_calibration, observe_layers
from clipedge.calibration.data import scene_pictures
from clipedge.calibration.rounding import SCHEMES, Scheme
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.convert import SourceTower, float_graph
from clipedge.export.demo.outliers import write_outlier_twin
from clipedge.export.sources import image_source
from clipedge.export.streams import PixelStream


@dataclass(frozen=True, eq=False)
class Tower:
    """A source tower, its float graph, the targets and their calibrations, and unseen pictures (N, 64, 64, 3).

    "plain" is x86 with one scale for a whole weight, and with the ranges of a plain quantizer.
    """

    source: SourceTower
    graph: onnx.ModelProto
    schemes: dict[str, Scheme]
    calibrations: dict[str, Calibration]
    pictures: npt.NDArray[np.uint8]


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread: None) -> None:
    """Every test here is on one thread."""


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    """Of the twin with outliers five times as large."""
    folder = tmp_path_factory.mktemp("finishing")
    checkpoint = load_checkpoint(write_outlier_twin(DEMO_CHECKPOINT, folder / "twin", 5))
    stream = PixelStream(scene_pictures("calibration", 64, 64), checkpoint.preprocessing, "calibrating")
    source = image_source(checkpoint, stream, stream)
    graph = float_graph(source, Path(folder))
    observed = observe_layers(graph, source.calibration, source.weigh)
    calibrations = {name: calibrate(graph, observed, scheme) for name, scheme in SCHEMES.items()}
    calibrations["plain"] = minmax_calibration(graph, observed)
    schemes = {**SCHEMES, "plain": replace(SCHEMES["x86"], per_channel=False)}
    return Tower(source, graph, schemes, calibrations, scenes.labelled_pictures("test", 48)[0])
