#!/bin/sh
# From two folders of labelled images to a packed model, on a CPU or a GPU.
#
#   examples/bundled_model/train.sh FIRST SECOND OUTPUT [options of skinlesion train...]
#   examples/bundled_model/train.sh ./isic2018 ./isic2017 ./our-model --device cuda --workers 8
#
# FIRST is split into FOLDS (default 5) by lesion; the lesions of SECOND join these folds. Every architecture of ARCHS
# (default efficientnet_lite0) is trained in all folds with RECIPE (default two-sources.yaml beside this script); then
# they are combined, calibrated and packed into OUTPUT. All results are kept in the workspace of SKINLESION_WORKSPACE
# (default ./skinlesion-workspace). Interrupted at any moment, the same command resumes; what is finished is not done
# again. `shrink_images.py` makes copies of the folders that are small enough to send to another machine.
#
# JOBS=5 trains so many folds side by side, on one GPU or with OMP_NUM_THREADS=1 on several cores. To use several
# machines, give each its own `--fold K`: the script then stops after the training of that fold, and a run without
# --fold does the rest.
set -eu

[ $# -ge 3 ] || { echo "usage: train.sh FIRST SECOND OUTPUT [options of skinlesion train...]" >&2; exit 2; }
first=$1 second=$2 output=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
folds=${FOLDS:-5} jobs=${JOBS:-1} archs=${ARCHS:-efficientnet_lite0} recipe=${RECIPE:-$here/two-sources.yaml}
workspace=${SKINLESION_WORKSPACE:-skinlesion-workspace}
export SKINLESION_WORKSPACE="$workspace"

if ! [ -e "$workspace/dataset/split.json" ]; then
  skinlesion download --from "$first" --split kfold --folds "$folds"
fi
name=$(basename "$second")
if ! skinlesion info --json --quiet | grep -q "\"$name\":"; then
  skinlesion download --from "$second" --append --source-name "$name"
fi

case " $* " in *" --fold "*) one_fold=yes ;; *) one_fold= ;; esac
for arch in $archs; do
  if [ "$jobs" -gt 1 ] && [ -z "$one_fold" ]; then
    seq 0 $((folds - 1)) | xargs -P "$jobs" -I FOLD \
      skinlesion train --arch "$arch" --recipe "$recipe" --folds "$folds" --half "$@" --fold FOLD
  fi
  skinlesion train --arch "$arch" --recipe "$recipe" --folds "$folds" --half "$@"
done
[ -z "$one_fold" ] || exit 0

skinlesion ensemble --tta zoom
skinlesion calibrate
# Also writes the table of similar cases, which is packed with the gate.
skinlesion gate || echo "continuing without a check of image quality and without similar cases (see above)" >&2
# Packed beside it and renamed, so that OUTPUT is complete or not there.
if ! [ -e "$output" ]; then
  rm -rf "$output.partial"
  skinlesion pack --output "$output.partial" --with-predictions
  mv "$output.partial" "$output"
fi
echo "packed: $output"
