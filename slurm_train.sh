#!/bin/sh
# Trains under Slurm, one task per GPU.
#   GPUS=8 sh slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are those of OpenMMLab's script; PORT is the port of
# the rendezvous.
#
# By default the job runs in the foreground (srun). On Slurm's signal it writes a last checkpoint and
# exits with code 75. With BATCH=1 it is queued (sbatch, with the options in SBATCH_ARGS, e.g.
# --time=24:00:00), and requeued until it is done: when its time is up, when the partition is
# preempted, or when a node fails. It is then resumed with --auto-resume.
# SIGNAL_SECONDS: number of seconds before the end of its time at which Slurm signals it (default 120).
set -eu
if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8] [BATCH=1] sh slurm_train.sh PARTITION JOB_NAME CONFIG [options]" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
# Slurm runs a copy of the batch script in another folder, so $0 does not lead to this one.
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
    # shellcheck disable=SC2086 # these variables hold several options
    exec sbatch --partition="$partition" --job-name="$job" $resources "$signal" --requeue \
        --open-mode=append --export="ALL,BATCH=inside,INTERNVIT_SEG_ROOT=$root" \
        ${SBATCH_ARGS:-} "$root/slurm_train.sh" "$@"
fi

shift 3
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
if [ "${BATCH:-0}" != inside ]; then
    # shellcheck disable=SC2086 # these variables hold several options
    exec srun --partition="$partition" --job-name="$job" $resources "$signal" \
        --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "$root/tools/train.py" "$config" --launcher slurm "$@"
fi

# A signal to the whole job also reaches this script. It ignores the signal, because the tasks handle it
# and their exit code says what to do.
trap : TERM USR1
code=0
# Since Slurm 22.05 srun takes one CPU a task, not the job's number, unless it is told.
# shellcheck disable=SC2086 # SRUN_ARGS holds several options
srun --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$config" --launcher slurm --auto-resume "$@" ||
    code=$?
if [ "$code" -eq 75 ]; then
    echo "job $SLURM_JOB_ID: checkpoint written, requeued"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
