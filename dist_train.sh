#!/bin/sh
# Trains on N processes of this node, one a GPU, or N on the CPU where there is none.
#   sh dist_train.sh CONFIG N [options of tools/train.py]
# Several nodes: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
# RESTARTS=3 goes on from the last checkpoint when a process dies, three times at most.
# SIGTERM and SIGUSR1 write a checkpoint and end with code 75: go on with --auto-resume.
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
