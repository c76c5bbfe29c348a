#!/bin/sh
# Runs the whole workflow on a small scale, for `make demo`: draws data, trains on it, evaluates before
# and after with the commands that are used for real trainings, and makes a picture of the result.
# Everything except the data (data/ade_demo) is written to work_dirs/demo, which is emptied first.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
PYTHON=python
export PATH PYTHON

config=configs/tiny/full_tuning_tiny.py
work=work_dirs/demo
picture=$work/predictions.png
start=$(date +%s)

# step NUMBER TITLE COMMAND...: runs a command. Its output goes to a log; training progress is also shown.
step() {
    printf '== %s/6 %s (%s s so far)\n' "$1" "$2" $(($(date +%s) - start))
    log=$work/step$1.log
    shift 2
    failed=$work/failed
    { "$@" 2>&1 || echo "$?" >"$failed"; } | tee "$log" |
        sed -un 's/.* - mmseg - INFO - \(Iter .*\)/   \1/p'
    [ ! -e "$failed" ] || {
        tail -n 15 "$log" >&2
        printf 'demo: this step failed: %s (full output: %s)\n' "$*" "$log" >&2
        exit 1
    }
}

# Prints the mIoU in percent from the newest results in the work dir $1.
miou() {
    python -c 'import glob, json, sys
newest = max(glob.glob(sys.argv[1] + "/eval_single_scale_*.json"))
with open(newest, encoding="utf-8") as file:
    print("%.2f" % (100 * json.load(file)["metric"]["mIoU"]))' "$1"
}

# One process per GPU, at most two; two on the CPU if there is no GPU.
processes=$(python -c 'import torch; print(min(torch.cuda.device_count(), 2) or 2)')
rm -rf "$work"
mkdir -p "$work"

step 1 'drawing the data' \
    python tools/make_demo_data.py
step 2 'evaluating the untrained network' \
    sh dist_test.sh "$config" none "$processes" --eval mIoU --work-dir "$work/untrained"
# DDP, because sharding a network as small as this one costs more than it saves.
step 3 'training' \
    sh dist_train.sh "$config" "$processes" --engine ddp --work-dir "$work/training"
step 4 'evaluating the trained network' \
    sh dist_test.sh "$config" "$work/training/latest.pth" "$processes" --eval mIoU \
    --work-dir "$work/trained"
step 5 'predicting label maps' \
    sh dist_test.sh "$config" "$work/training/latest.pth" "$processes" --format-only \
    --eval-options imgfile_prefix="$work/labels" --work-dir "$work/trained"
step 6 'making the picture' \
    python tools/demo_grid.py "$config" "$work/labels" "$picture"

untrained=$(miou "$work/untrained")
trained=$(miou "$work/trained")
printf '\nmIoU in percent: untrained %s, trained %s (%s s in all)\n' \
    "$untrained" "$trained" $(($(date +%s) - start))
printf 'image, ground truth and prediction side by side: %s\n' "$picture"
