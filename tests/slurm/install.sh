#!/bin/sh
# Installs Debian's Slurm where root may and it is not there; the tests start it, not systemd.
set -eu
if command -v slurmctld >/dev/null || [ -x /usr/sbin/slurmctld ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Slurm is not installed; as root on Debian or Ubuntu this command installs it" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurmctld slurmd munge slurm-client
