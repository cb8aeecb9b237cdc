#!/usr/bin/env bash
# Build what is released, install the wheel with its dependencies into a fresh environment, count them, and predict
# with the bundled model while the network is cut off.
#
#     bash examples/release_check.sh          # some minutes; about 7 GB in a temporary folder, removed at the end
#
# PYTHON names the interpreter, TMPDIR where the temporary folder lies.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/skinlesion-release.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Neither the checkout nor anything cached at home may help.
unset PYTHONPATH SKINLESION_WORKSPACE
bin=$work/environment/bin
cd "$work"

echo "== Build"
"${PYTHON:-python3}" -m venv tools
tools/bin/pip install --quiet build
tools/bin/python -m build --outdir dist "$root" | tail -n 1
(cd dist && du -h -- *)

echo "== Install the wheel, with the tested versions"
"${PYTHON:-python3}" -m venv environment
"$bin/pip" install --quiet --constraint "$root/constraints.txt" dist/*.whl
"$bin/pip" check
"$bin/pip" list --format=freeze | grep -v '^pip==\|^setuptools==' >packages
cuda=$(grep -c '^nvidia-\|^cuda-\|^triton==' packages || true)
site=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "base installation: $(wc -l <packages) packages ($cuda for CUDA), $(du -sm "$site" | cut -f 1) MB, of which"
du -sm "$site"/* | sort -rn | head -n 6 | while read -r megabytes folder; do
  echo "  $megabytes MB $(basename "$folder")"
done

echo "== Predict with the network cut off"
"$bin/python" "$root/examples/make_images.py" images --images 14
cut=(unshare --map-root-user --net)
# Connecting a datagram socket sends nothing: it only asks whether there is a way out.
reach='import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))'
if ! "${cut[@]}" true 2>/dev/null; then
  echo "NOT CUT OFF: this machine does not allow 'unshare --net'; what follows may use the network"
  cut=()
elif "${cut[@]}" "$bin/python" -c "$reach" 2>/dev/null; then
  echo "'unshare --net' left a way out" >&2
  exit 1
fi
mkdir home run
mv images run/
cd run
HOME=$work/home "${cut[@]}" "$bin/skinlesion" --version
HOME=$work/home "${cut[@]}" "$bin/skinlesion" predict ./images
"$bin/python" - <<'PY'
import csv

rows = list(csv.DictReader(open("predictions.csv", newline="", encoding="utf-8")))
wrong = [row["id"] for row in rows if row["error"] or not row["model"].startswith("builtin:")]
if len(rows) != 14 or wrong:
    raise SystemExit(f"expected 14 predicted images of the bundled model, got {len(rows)}, wrong: {wrong}")
print(f"{len(rows)} images predicted by {rows[0]['model'].partition(':')[0]}")
PY
echo "== The release works"
