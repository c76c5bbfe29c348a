#!/bin/sh
# Trains with N processes on this node, one per GPU, or all on the CPU if there is no GPU.
#   sh dist_train.sh CONFIG N [options of tools/train.py]
# On several nodes, run the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
# RESTARTS=3 resumes from the last checkpoint when a process dies, at most three times.
# On SIGTERM and SIGUSR1 the run writes a checkpoint and exits with code 75, on Ctrl-C with code 130; --auto-resume
# resumes it.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: sh dist_train.sh CONFIG N [options of tools/train.py]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2
root=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
if [ "${RESTARTS:-0}" -gt 0 ]; then
    set -- "$@" --auto-resume
fi
exec "${PYTHON:-python}" "$root/tools/torchrun.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$root/tools/train.py" "$config" --launcher pytorch --deterministic "$@"
