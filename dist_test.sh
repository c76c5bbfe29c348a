#!/bin/sh
# Tests with N processes on this node, one per GPU, or all on the CPU if there is no GPU.
#   sh dist_test.sh CONFIG CHECKPOINT N --eval mIoU [options of tools/test.py]
# On several nodes, run the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: sh dist_test.sh CONFIG CHECKPOINT N --eval mIoU [options of tools/test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
processes=$3
shift 3
root=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
exec "${PYTHON:-python}" "$root/tools/torchrun.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29510}" \
    --nproc_per_node="$processes" \
    "$root/tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
