"""Images and their labels: safe decoding, dataset sources, downloads, splits, near-duplicates,
and training batches.

Pixels are decoded to upright RGB, uint8 (height, width, 3), in one place (`reading.images`) and brought to a
network's input size in one place (`preprocess`), so that training and prediction see the same pixels.
"""
