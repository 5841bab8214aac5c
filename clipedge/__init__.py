"""ClipEdge: CLIP on devices."""
