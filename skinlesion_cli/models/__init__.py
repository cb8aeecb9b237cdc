"""Networks: the registry of backbones, the network around them, initial weights, freezing,
devices and export.

`training` holds the training loop. Nothing here reads images or a workspace;
stages combine this room with `data`.
"""
