"""What should not depend on the number of images, and how soon the first row is there.

- 1,000 against 20,000 images (tiny networks, so that everything else shows): time an image, peak memory.
- time from starting the command to its first row, with three light networks on onnxruntime.
- the same with a list of 1,000,000 names, of which one in a thousand is there,
  and its peak memory to the last row.
- two `local` worker processes against one process with two threads.

    python examples/benchmarks/streaming.py WORK_FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common


def long_list(folder: Path, there: Path, count: int) -> Path:
    """Names of which one in a thousand is there, the first among them."""
    path = folder / f"long-list-{count}.txt"
    with path.open("w") as file:
        for index in range(count):
            file.write(
                f"{there}\n" if index % 1000 == 0 else f"/nowhere/clinic-{index % 37}/{index:07d}.jpg\n"
            )
    return path


def main() -> None:
    """Run all four."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--shared", type=int, default=160, help="images for workers against threads")
    parser.add_argument("--listed", type=int, default=1_000_000, help="names in the long list")
    options = parser.parse_args()
    folder = options.folder
    tiny = common.workspace(folder / "tiny-ws", (("tiny", 32),))
    small = common.images(folder / "small", 200, 96, 72)
    runs = {}
    for count in (options.few, options.many):
        names = folder / f"list-{count}.txt"
        names.write_text("".join(f"{small[index % len(small)]}\n" for index in range(count)))
        output = folder / f"out-{count}.csv"
        runs[count] = common.predict(f"@{names}", "-o", output, "-w", tiny, "--overwrite")
        assert sum(1 for _ in output.open()) == count + 1
    few, many = runs[options.few], runs[options.many]
    # Until the first image of these tiny networks is done: what a long run does not pay again.
    start_s = min(common.predict(small[0], "-o", "-", "-w", tiny).seconds for _ in range(3))
    short, long = (
        common.predict(f"@{names}", "-o", "-", "-w", tiny, wait_for_line=True, some_fail=True)
        for names in (long_list(folder, small[0], count) for count in (2, options.listed))
    )
    light = common.workspace(folder / "light-ws", common.LIGHT)
    photographs = common.images(folder / "images-600", options.shared)
    few_photographs = photographs[:8]
    first = min(
        common.predict(*few_photographs, "-o", "-", "-w", light, wait_for_line=True).first_line_s
        for _ in range(3)
    )
    one_image = [common.predict(photographs[0], "-o", "-", "-w", light).seconds for _ in range(2)]
    shared = {
        name: common.predict(
            *photographs, "-o", folder / f"{name}.csv", "-w", light, "--overwrite", *more
        ).seconds
        for name, more in {
            "threads": ("--workers", "2"),
            "local": ("--backend", "local", "--workers", "2"),
        }.items()
    }
    same = (folder / "threads.csv").read_bytes() == (folder / "local.csv").read_bytes()
    marginal = {
        count: (run.seconds - start_s) / count for count, run in ((options.few, few), (options.many, many))
    }
    common.report(
        ms_an_image={str(count): round(1000 * run.seconds / count, 3) for count, run in runs.items()},
        ms_an_image_without_start={str(count): round(1000 * spent, 3) for count, spent in marginal.items()},
        peak_mib={str(count): round(run.peak_mib, 1) for count, run in runs.items()},
        more_memory_mib=many.peak_mib - few.peak_mib,
        first_row_of_two_names_s=short.first_line_s,
        first_row_of_long_list_s=long.first_line_s,
        long_list={"names": options.listed, "seconds": round(long.seconds, 1)},
        long_list_more_memory_mib=long.peak_mib - short.peak_mib,
        first_row_s=first,
        one_image_s=min(one_image),
        threads_s=shared["threads"],
        local_workers_s=shared["local"],
        same_bytes=same,
    )


if __name__ == "__main__":
    main()
