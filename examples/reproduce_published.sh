#!/bin/sh
# The published system, run again: three networks, three seeds, each seed with its own split of ISIC 2018.
#
#   examples/reproduce_published.sh show              print the commands, run none
#   examples/reproduce_published.sh plan ./isic2018   measure on this machine how long it takes, train nothing
#   examples/reproduce_published.sh run ./isic2018    do it; given again after it was cut, it goes on where it was
#
# ./isic2018 holds training, validation and test of Task 3 with their ground truth (11,720 images); `skinlesion
# download` fetches them. The split is by image, as published, and leaks: 39 % of the test images that have a lesion
# id have a photograph of the same lesion in training or validation. The figures are for comparison with the published
# ones (seed 42, 7, 123: balanced accuracy 0.8486, 0.8361, 0.8545, with thresholds 0.8546, 0.8348, 0.8463), and with
# nothing else. What still differs from the published system is in configs/published.yaml.
#
# At most 35 epochs of 7,030 images a network: 220 steps of 32 images for resnet50 and densenet121, 879 steps of 8 for
# efficientnet_b3; training stops after 10 epochs without a gain. How long that takes is a matter of the machine: `plan`
# times steps on it with `skinlesion train --dry-run`, and adds up all nine trainings at their full length.
#
# SEEDS, ARCHS, OPTIONS (of train) and FOLDER (for the workspaces) can be set.
set -eu

usage="usage: reproduce_published.sh show | plan ISIC2018 | run ISIC2018"
mode=${1:-} isic=${2:-./isic2018}
case $mode in
show) ;;
plan | run) [ $# = 2 ] || { echo "$usage" >&2; exit 2; } ;;
*) echo "$usage" >&2; exit 2 ;;
esac
folder=${FOLDER:-published}

step() {
    if [ "$mode" = show ]; then
        echo "skinlesion $*"
    else
        echo "+ skinlesion $*" >&2
        skinlesion "$@"
    fi
}

total=0
for seed in ${SEEDS:-42 7 123}; do
    workspace=$folder/seed-$seed
    step download --from "$isic" --split published --seed "$seed" --link --workspace "$workspace"
    for arch in ${ARCHS:-resnet50 densenet121 efficientnet_b3}; do
        set -- train --arch "$arch" --recipe published --seed "$seed" --workspace "$workspace" ${OPTIONS:-}
        if [ "$mode" = plan ]; then
            figures=$(step "$@" --dry-run --json)
            seconds=$(printf %s "$figures" | ${PYTHON:-python3} -c \
                'import json, sys; print(round(json.load(sys.stdin)["figures"]["seconds"]))')
            total=$((total + seconds))
            echo "seed $seed, $arch: $seconds s"
        else
            step "$@"
        fi
    done
    [ "$mode" = plan ] && continue
    # Weights by validation balanced accuracy; 10 random rounds of turns and flips, as published.
    step ensemble --method bacc --tta published --workspace "$workspace"
    step calibrate --policy published --workspace "$workspace"
    # Without thresholds (argmax), and with them.
    step evaluate --decision argmax --output "$folder/argmax-$seed" --workspace "$workspace"
    step evaluate --decision calibrated --against argmax --output "$folder/thresholds-$seed" --workspace "$workspace"
done
[ "$mode" != plan ] || awk -v s="$total" 'BEGIN { printf "all trainings: about %.1f h on this machine\n", s / 3600 }'
