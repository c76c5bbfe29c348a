#!/bin/sh
# Trains under Slurm, one task a GPU.
#   GPUS=8 sh slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as in OpenMMLab's script; PORT for rendezvous.
#
# As it stands it runs in the foreground (srun), and ends with code 75 when Slurm's signal has made
# it write its last checkpoint. With BATCH=1 it is queued (sbatch; SBATCH_ARGS for its options, e.g.
# --time=24:00:00), and is put back into the queue until it is done: when its time is up, when the
# partition is preempted, when a node fails. It then goes on with --auto-resume.
# SIGNAL_SECONDS: how long before the end of its time Slurm signals (120).
set -eu
if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8] [BATCH=1] sh slurm_train.sh PARTITION JOB_NAME CONFIG [options]" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
# Slurm runs a copy of a batch script, in a folder of its own.
root=${INTERNVIT_SEG_ROOT:-$(cd "$(dirname "$0")" && pwd)}
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then
    per_node=$gpus
fi
resources="--gres=gpu:$per_node --ntasks=$gpus --ntasks-per-node=$per_node
    --cpus-per-task=${CPUS_PER_TASK:-5}"
signal="--signal=USR1@${SIGNAL_SECONDS:-120}"

if [ "${BATCH:-0}" = 1 ]; then
    # shellcheck disable=SC2086 # lists of options
    exec sbatch --partition="$partition" --job-name="$job" $resources "$signal" --requeue \
        --open-mode=append --export="ALL,BATCH=inside,INTERNVIT_SEG_ROOT=$root" \
        ${SBATCH_ARGS:-} "$root/slurm_train.sh" "$@"
fi

shift 3
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
if [ "${BATCH:-0}" != inside ]; then
    # shellcheck disable=SC2086 # lists of options
    exec srun --partition="$partition" --job-name="$job" $resources "$signal" \
        --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "$root/tools/train.py" "$config" --launcher slurm "$@"
fi

# A signal to the whole job also comes here; the tasks answer it, and this script tells how.
trap : TERM USR1
code=0
# shellcheck disable=SC2086 # SRUN_ARGS is a list of options
srun --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$config" --launcher slurm --auto-resume "$@" ||
    code=$?
if [ "$code" -eq 75 ]; then
    echo "job $SLURM_JOB_ID: checkpoint written, back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
