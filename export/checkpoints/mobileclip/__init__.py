"""MobileCLIP's weights, by the names of timm and of Apple's own files, re-parameterised on the way."""
