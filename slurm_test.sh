#!/bin/sh
# Tests under Slurm, one task per GPU.
#   GPUS=8 sh slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT --eval mIoU [options of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are those of OpenMMLab's script; PORT is the port of
# the rendezvous.
set -eu
if [ $# -lt 4 ]; then
    echo "usage: [GPUS=8] sh slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT --eval mIoU [options]" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
checkpoint=$4
shift 4
root=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then
    per_node=$gpus
fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
# shellcheck disable=SC2086 # SRUN_ARGS holds several options
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" \
    --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/test.py" "$config" "$checkpoint" --launcher slurm "$@"
