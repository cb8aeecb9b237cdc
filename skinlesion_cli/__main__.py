"""`python -m skinlesion_cli`, the same as the `skinlesion` command."""

from skinlesion_cli.cli.app import main

if __name__ == "__main__":
    main()
