#!/bin/sh
# Python of the Apptainer image, in the place of one of the host:
#
#   export INTERNVIT_SEG_IMAGE=/shared/internvit-seg.sif
#   PYTHON=$PWD/containers/python.sh sh slurm_train.sh PARTITION JOB_NAME CONFIG
#
# The image sees the checkout, the current folder and the home; BIND names other folders with data,
# weights and work dirs, separated by commas, as --bind of Apptainer takes them. Where there is no GPU,
# Apptainer warns, and goes on without. exec: signals of Slurm reach Python itself.
set -eu
if [ -z "${INTERNVIT_SEG_IMAGE:-}" ]; then
    echo 'INTERNVIT_SEG_IMAGE is not set: name the image that apptainer build wrote' >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
exec apptainer exec --nv --bind "$root${BIND:+,$BIND}" "$INTERNVIT_SEG_IMAGE" python "$@"
