"""The `skinlesion` command: parses options, makes settings of them, runs a stage and shows its result.

One file per command; `root.command` does what all commands share. Only this package prints, exits or reads
arguments, and it imports a stage, and with it torch, only when its command runs.
"""
