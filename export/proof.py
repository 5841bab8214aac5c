"""Run source and exported model over the same proof inputs and compare them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clipedge.backends import Engine
from clipedge.errors import BackendError
from clipedge.export.report import TowerReport
from clipedge.export.verify import Parity
from clipedge.manifest import VariantProof
from clipedge.selftest import centred_cosines

__all__ = [
    "GOLDENS",
    "Embeddings",
    "Encoder",
    "SidesByInput",
    "embed",
    "embed_source",
    "latencies",
    "source_encoder",
    "tower_report",
    "variant_proof",
]

GOLDENS = 32
Embeddings = npt.NDArray[np.float32]
Encoder = Callable[[npt.NDArray[Any]], Embeddings]


@dataclass(frozen=True, eq=False)
class SidesByInput:
    """Embeddings (N, D) of the same N inputs (or of their patches) by both models, and the first of the inputs."""

    golden_inputs: npt.NDArray[Any]
    source: Embeddings
    exported: Embeddings


def source_encoder(tower: torch.nn.Module) -> Encoder:
    """The torch tower, on whatever device it is, as a function of numpy arrays."""

    def encode(inputs: npt.NDArray[Any]) -> Embeddings:
        device = next(tower.parameters()).device
        with torch.inference_mode():
            embeds: Embeddings = tower(torch.from_numpy(inputs).to(device)).cpu().numpy()
        return embeds

    return encode


def embed(encode: Encoder, batches: Iterable[npt.NDArray[Any]]) -> Embeddings:
    """(N, D) embeddings of a stream of input batches; memory holds the embeddings, not the inputs."""
    return np.concatenate([encode(batch) for batch in batches])


def embed_source(encode: Encoder, batches: Iterable[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], Embeddings]:
    """The first ``GOLDENS`` inputs of a stream, and the embeddings (N, D) of all."""
    inputs: list[npt.NDArray[Any]] = []
    embeds: list[Embeddings] = []
    kept = 0
    for batch in batches:
        if kept < GOLDENS:
            inputs.append(batch[: GOLDENS - kept].copy())
            kept += len(inputs[-1])
        embeds.append(encode(batch))
    return np.concatenate(inputs), np.concatenate(embeds)


def tower_report(
    tower: torch.nn.Module,
    files: Iterable[Path],
    parity: Parity,
    half_parity: Parity | None,
    source_latency_ms: float,
    exported_latency_ms: float,
) -> TowerReport:
    """Parity, bytes and latency of one tower."""
    return TowerReport(
        parity=parity,
        half_parity=half_parity,
        source_bytes=sum(4 * parameter.numel() for parameter in tower.parameters()),
        exported_bytes=sum(file.stat().st_size for file in files),
        source_latency_ms=source_latency_ms,
        exported_latency_ms=exported_latency_ms,
    )


def variant_proof(engine: Engine, sides: SidesByInput, parity: Parity) -> VariantProof:
    """What the manifest says of a variant. The golden is run alone, as the self-test at load will run it."""
    found = engine(sides.golden_inputs[:1]).reshape(-1, sides.source.shape[1])  # one embedding, or one for each patch
    golden_mean = sides.source[: len(sides.golden_inputs) * len(found)].mean(axis=0)
    golden = centred_cosines(sides.source[: len(found)], found, golden_mean)
    return VariantProof(
        engine=f"{engine.name} {engine.version}",
        samples=parity.samples,
        median_cosine=parity.median_cosine,
        median_centred_cosine=parity.median_centred_cosine,
        p1_centred_cosine=parity.p1_centred_cosine,
        golden_cosine=float(np.median(golden)),
    )


def latencies(module: str, *arguments: str) -> dict[str, float]:
    """Median latency in milliseconds of each tower, measured by a module of ours in a process of its own.

    Raises BackendError if that process fails.
    """
    # The measuring process shares the cores with nobody, so it may wait for work as its engine likes best.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{module} fails in a fresh process: {last}")
    return {tower: latency["median_ms"] for tower, latency in json.loads(done.stdout).items()}
