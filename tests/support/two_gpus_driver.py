"""The `skinlesion` command where there seem to be two GPUs; the processes that it starts see the machine."""

import torch

from skinlesion_cli.cli.app import main

if __name__ == "__main__":
    torch.cuda.device_count = lambda: 2
    main()
