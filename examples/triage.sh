#!/bin/sh
# Nightly batch: predict the images that are new in a folder, and print a plain text summary that can be mailed.
#
#   examples/triage.sh INBOX RESULTS [options of skinlesion predict...]
#   examples/triage.sh /srv/inbox /srv/triage --workspace /srv/model --cam
#
# From cron, with the exit code in the subject:
#
#   15 2 * * *  cd /srv/triage && triage.sh /srv/inbox runs >mail.txt 2>>log; mail -s "triage: exit $?" ward <mail.txt
#
# Needs sh, flock (util-linux) and python3 (its standard library, to read JSON lines and to take any file name).
# RESULTS keeps one folder a run, named by its date, and `seen`, the images that were done. An image counts as new if
# its path, size or time of change is; links are not followed. One that changed within the last SETTLE_S seconds (default 60) may still be on
# its way: it waits for the next run. A run that fails leaves `seen` as it was, so its images come again.
#
# Exit codes: 0 done, or nothing new; 3 done, but some images could not be read (they are named, and do not come again
# unless they change); 75 another run is at work; any other is that of `skinlesion predict`, and nothing counts as done.
set -eu

[ $# -ge 2 ] || { echo "usage: triage.sh INBOX RESULTS [options of skinlesion predict...]" >&2; exit 2; }
inbox=$1 results=$2
shift 2
[ -d "$inbox" ] || { echo "there is no folder $inbox" >&2; exit 2; }
mkdir -p "$results"

# The lock goes with the process that holds it, and with `predict` below it: after a crash there is nothing to remove.
exec 9>"$results/lock"
flock -n 9 || { echo "another run is at work on $results" >&2; exit 75; }

python=${PYTHON:-python3}
work=$results/unfinished
rm -rf "$work"
mkdir "$work"

# Names separated by NUL. The list begins with one, so that a line break in the first name does not pass for the
# separator.
counts=$("$python" - "$inbox" "$results/seen" "$work" "${SETTLE_S:-60}" <<'PYTHON'
import json, os, sys, time
inbox, seen, work, settle_s = sys.argv[1:]
suffixes = (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm", ".dicom")

def fail(error):
    sys.exit(f"cannot list {error.filename}: {error.strerror}")

done = set()
if os.path.exists(seen):
    with open(seen, encoding="ascii") as file:
        done = {tuple(json.loads(line)) for line in file}
found, waiting = [], 0
for folder, folders, names in os.walk(inbox, onerror=fail):
    folders.sort()
    for name in sorted(names):
        path = os.path.join(folder, name)
        if not name.lower().endswith(suffixes) or os.path.islink(path):
            continue
        state = os.stat(path)
        entry = (os.path.relpath(path, inbox), state.st_size, state.st_mtime_ns)
        if entry in done:
            continue
        # Whichever clock is ahead: a time in the future must not keep an image waiting for years.
        if abs(time.time() - state.st_mtime) < float(settle_s):
            waiting += 1
        else:
            found.append((path, entry))
with open(os.path.join(work, "list"), "wb") as file:
    file.write(b"\0" + b"".join(os.fsencode(path) + b"\0" for path, _ in found))
with open(os.path.join(work, "seen"), "w", encoding="ascii") as file:
    file.writelines(json.dumps(entry) + "\n" for entry in sorted(done) + [entry for _, entry in found])
print(len(found), waiting)
PYTHON
)
new=${counts% *} waiting=${counts#* }
now=$(date +%Y-%m-%dT%H%M%S%z)
if [ "$new" = 0 ]; then
    rm -rf "$work"
    echo "Triage of skin lesions, $now: no new images in $inbox; $waiting still on their way."
    exit 0
fi

code=0
${SKINLESION:-skinlesion} predict - --output "$work/predictions.jsonl" --json "$@" \
    <"$work/list" >"$work/summary.json" || code=$?
if [ "$code" != 0 ] && [ "$code" != 3 ]; then
    echo "Triage of skin lesions, $now: FAILED with exit code $code; the $new new images come again."
    exit "$code"
fi

"$python" - "$work" "$now" "$waiting" >"$work/summary.txt" <<'PYTHON'
import json, os, sys
work, now, waiting = sys.argv[1:]
with open(os.path.join(work, "summary.json"), encoding="utf-8") as file:
    summary = json.load(file)
with open(os.path.join(work, "predictions.jsonl"), encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
figures = summary["figures"]
counts = ", ".join(f"{count} {level}" for level, count in figures["triage"].items())
print(f"Triage of skin lesions, {now}")
print(f"{len(rows)} new images: {counts}; {figures['failed']} could not be read; {waiting} still on their way")
for level in ("refer", "review"):
    chosen = [row for row in rows if row["triage"] == level]
    chosen.sort(key=lambda row: -row["malignant_probability"])
    print(f"\n{level.upper()} ({len(chosen)}; probability of malignancy, class, image)")
    for row in chosen:
        doubt = f"  [{row['quality']}]" if row["flagged"] else ""
        print(f"  {row['malignant_probability']:.2f}  {row['decision']:5}  {row['id']}{doubt}")
failed = [row for row in rows if row["status"] == "error"]
print(f"\nCOULD NOT BE READ ({len(failed)}; look at these by hand)")
for row in failed:
    print(f"  {row['id']}: {row['error']}")
print(f"\nThe other {figures['triage']['routine']} images are routine; every image has its row in {now}/predictions.jsonl.")
print(f"Model: {figures['model']} ({figures['model_sha256'][:12]})")
print(summary["disclaimer"])
PYTHON

# First the results, then what counts as done: cut in between, images come twice rather than never.
rm "$work/list"
mv "$work/seen" "$results/seen.new"
mv "$work" "$results/$now"
mv "$results/seen.new" "$results/seen"
cat "$results/$now/summary.txt"
exit "$code"
