"""The `skinlesion` command with one more network: tiny, with group norm instead of batch norm.

Batch norm sees the share of a batch that its process has, so only without it can two processes be expected to
do exactly what one does.
"""

from skinlesion_cli.cli.app import main
from skinlesion_cli.models import backbones

_HALF = (0.5, 0.5, 0.5)
backbones.BACKBONES["tiny_gn"] = backbones.BackboneSpec(
    "tiny_gn", "test_efficientnet_gn", "bn2", mean=_HALF, std=_HALF
)

if __name__ == "__main__":
    main()
