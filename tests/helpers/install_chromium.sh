#!/bin/sh
# Installs Chromium where root may and none is there. Ubuntu's package is a snap, which containers lack.
set -eu
for name in chromium chromium-browser google-chrome chrome; do
    if command -v "$name" >/dev/null; then
        exit 0
    fi
done
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Chromium is not installed; as root on Debian this command installs it" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium ||
    echo "Chromium could not be installed: the tests skip" >&2
