"""The canonical towers in torch, and the exact simplifications that make them cheaper."""

from clipedge.export.towers.blocks import Block
from clipedge.export.towers.build import AnyImageTower, AnyTextTower, build_image_tower, build_text_tower
from clipedge.export.towers.dense import DenseTower, dense_tower
from clipedge.export.towers.fastvit import FastVitTower
from clipedge.export.towers.resnet import ResNetTower
from clipedge.export.towers.text import TextEmbedding, TextTower, attention_mask
from clipedge.export.towers.tower import Tower
from clipedge.export.towers.traced import TracedImageTower, TracedTextTower
from clipedge.export.towers.vit import FoldedImageEmbedding, ImageEmbedding, ImageTower

__all__ = [
    "AnyImageTower",
    "AnyTextTower",
    "Block",
    "DenseTower",
    "FastVitTower",
    "FoldedImageEmbedding",
    "ImageEmbedding",
    "ImageTower",
    "ResNetTower",
    "TextEmbedding",
    "TextTower",
    "Tower",
    "TracedImageTower",
    "TracedTextTower",
    "attention_mask",
    "build_image_tower",
    "build_text_tower",
    "dense_tower",
]
