"""Branches that the tests take, room by room: `make coverage` ends with this.

Coverage's own limit counts statements and branches together, for all files at once.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import PurePath

LEAST_PERCENT = 95.0


def by_room(report: dict) -> dict[str, tuple[int, int]]:
    """Room -> branches taken, and all branches, of `coverage json`'s report."""
    taken, every = Counter[str](), Counter[str]()
    for file, found in report["files"].items():
        room = PurePath(file).parts[1]
        taken[room] += found["summary"]["covered_branches"]
        every[room] += found["summary"]["num_branches"]
    return {room: (taken[room], every[room]) for room in sorted(every)}


def main() -> int:
    rooms = by_room(json.load(sys.stdin))
    low = []
    for room, (taken, every) in rooms.items():
        percent = 100 * taken / every
        sys.stdout.write(f"{room:12} {taken:4} of {every:4} branches, {percent:.1f} %\n")
        if percent < LEAST_PERCENT:
            low.append(room)
    if low:
        sys.stderr.write(f"below {LEAST_PERCENT:.0f} %: {', '.join(low)}\n")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
