#!/bin/sh
# Sets up .venv with everything that the project needs; does nothing where that is done already.
#
#   sh scripts/setup_env.sh                      (or `make setup`; `make demo` and `make test` call it)
#   PYTHON=/path/to/python3.12 sh scripts/setup_env.sh
#   LOCKED=0 sh scripts/setup_env.sh
#
# Every file that is installed has one of the hashes in requirements/*.lock. LOCKED=0 takes the same
# versions from requirements/*.txt unchecked: for builds that the locks do not know, such as a PyTorch
# of a folder of one's own or of another index.
#
# .venv/.setup-stamp   written last: version of Python, checksum of what decides the contents, folder.
# .venv.setup          the lock, which says `unfinished` while .venv is being worked on: a set-up that
#                      was killed leaves half-written packages, so the next run starts .venv anew.
set -eu
unset CDPATH PYTHONHOME PYTHONPATH
cd "$(dirname "$0")/.."

here=$(pwd -P)
venv=.venv
stamp=$venv/.setup-stamp
marker=.venv.setup
log=$venv/setup.log
need_mib=8000 # .venv itself, and the downloads while they are unpacked

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# ---- The interpreter -----------------------------------------------------------------------------

# Prints version and path of the interpreter $1. A virtual environment is left for the interpreter
# that it was made with: an activated .venv must not be rebuilt with its own python.
describe_python() {
    "$1" -c 'import sys
version = "%d.%d" % sys.version_info[:2]
own = sys.prefix == sys.base_prefix
print(version, sys.executable if own else "%s/bin/python%s" % (sys.base_prefix, version))' 2>/dev/null
}

supported() {
    case $1 in 3.10 | 3.11 | 3.12) true ;; *) false ;; esac
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Sets version and python: $PYTHON alone where that is set, else the first of the usual names that
# is in range and can make virtual environments, else the first in range. False where there is none.
find_python() {
    version='' python=''
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.12 python3.11 python3.10
    fi
    for name; do
        found=$(describe_python "$name") || continue
        supported "${found%% *}" || continue
        if has_venv "${found#* }"; then
            version=${found%% *} python=${found#* }
            return 0
        fi
        [ -n "$python" ] || version=${found%% *} python=${found#* }
    done
    [ -n "$python" ]
}

# Installs Debian packages. False where that is not possible: no apt-get, no right to, not found.
apt_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root=''
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root='sudo -n'
    fi
    say "installing $* with apt-get"
    for try in 1 2; do
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
            install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
        [ $try = 2 ] || $as_root apt-get update >/dev/null 2>&1 || return 1
    done
    return 1
}

no_python() {
    found=$(describe_python "${PYTHON:-python3}") || found=''
    if [ -z "$found" ]; then
        die "${PYTHON:-python3} is missing or does not run: this project needs Python 3.10 to 3.12" \
            '(on Debian and Ubuntu: apt-get install python3 python3-venv)'
    fi
    die "${PYTHON:-python3} is Python ${found%% *}: this project needs 3.10 to 3.12;" \
        'install one of these and name it: make PYTHON=/path/to/python3.12 setup'
}

# Sets version and python, or ends with the line that says what is missing.
need_python() {
    if ! find_python; then
        [ -z "${PYTHON:-}" ] || no_python
        packages='python3.12-venv python3.11-venv python3.10-venv'
        command -v python3 >/dev/null 2>&1 || packages="python3-venv $packages"
        for package in $packages; do
            apt_install "$package" && find_python && break
        done
        [ -n "$python" ] || no_python
    fi
    has_venv "$python" || apt_install "python$version-venv" || true
    has_venv "$python" || die "$python cannot make virtual environments (no venv or ensurepip);" \
        "on Debian and Ubuntu: apt-get install python$version-venv"
}

case ${LOCKED:=1} in
    0 | 1) locked=$LOCKED ;;
    *) die "LOCKED=$LOCKED: expected 1 (files of requirements/*.lock alone) or 0 (unchecked)" ;;
esac

# ---- What is there, and what is wanted -----------------------------------------------------------

contents=$(cat requirements/*.txt requirements/*.lock setup.py mmseg_custom/version.py \
    mmseg_custom/compat/mmcv_without_ops.p* | cksum | tr ' ' -)

# Sets state: done, outdated (can be updated in place), broken (to be made anew), absent or foreign.
look() {
    state=absent
    [ -n "$(ls -A "$venv" 2>/dev/null)" ] || return 0
    state=broken
    [ ! -s "$marker" ] || return 0
    state=foreign
    [ -f "$stamp" ] || return 0
    state=broken
    have=$(describe_python "$venv/bin/python") || return 0
    have=${have%% *}
    if [ -n "${PYTHON:-}" ]; then
        find_python || no_python
        [ "$version" = "$have" ] || return 0
    fi
    case $(cat "$stamp") in
        "$have $contents $here") state='done' ;;
        "$have "*" $here") state=outdated ;;
    esac
}

# From here on this is the only set-up that works on .venv, where the system has flock.
take_lock() {
    (: >>"$marker") 2>/dev/null ||
        die "$here cannot be written to: give yourself the right to, or clone into a folder of your own"
    exec 9>>"$marker"
    command -v flock >/dev/null 2>&1 || return 0
    flock -n 9 && return 0
    say 'waiting for another set-up of this folder to end'
    flock 9
}

need_disk() {
    free_mib=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free_mib" -ge "$need_mib" ] ||
        die "not enough disk space in $here: $free_mib MiB free, $need_mib MiB needed"
}

# ---- Installing ----------------------------------------------------------------------------------

# pip_install WHAT ARGUMENTS...: runs pip, and turns its failure into one line about WHAT.
pip_install() {
    what=$1
    shift
    code=0
    "$venv/bin/python" -m pip install "$@" >"$log" 2>&1 || code=$?
    [ $code != 0 ] || return 0
    if [ "$state" = outdated ] && ! grep -q '^Installing collected packages' "$log"; then
        : >"$marker" # nothing was touched yet: .venv is still as good as it was
    fi
    if grep -Eq 'DO NOT MATCH THE HASHES|Hashes are required' "$log"; then
        die "$what: the package index offers another file than requirements/*.lock knows:" \
            "$(mismatch). If that is your own build, LOCKED=0 make setup takes it unchecked" \
            "(pip's own words: $log)"
    elif grep -q 'No space left on device' "$log"; then
        die "the disk is full: free at least $need_mib MiB in $here and run this again"
    elif grep -Ei 'warning|error' "$log" |
        grep -Eqi 'connection|timed? ?out|resolution|unreachable|proxy|ssl|incomplete'; then
        die "$what could not be fetched, the package index does not answer: check the network and" \
            "pip's proxy and index settings, then run this again (pip's own words: $log)"
    fi
    reason=$(grep -i 'error' "$log" | tail -n 1)
    die "$what could not be installed: ${reason:-pip ended with code $code} (the whole story: $log)"
}

# Names the first package whose hash is wrong, as pip does: after a line that ends in a colon.
mismatch() {
    sed -n '/DO NOT MATCH THE HASHES/,/Expected/s/^ *\([^ ].*\) from .*:$/\1/p' "$log" | sed q
}

# Prints the part of dev.lock that is about the package $1.
locked_lines() {
    awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' \
        requirements/dev.lock
}

# Compiles what is installed so far to bytecode, on all cores, while the set-up continues. Where
# PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would otherwise compile
# PyTorch anew. Files that do not compile, such as templates, are left as they are.
# The workers get a session of their own, so that they can be killed together. They hold the lock:
# if this script is killed outright, the next one waits until nothing writes into .venv any more.
start_compiling() {
    "$venv/bin/python" -c 'import os, sysconfig
os.setsid()
from compileall import compile_dir
compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)' </dev/null >/dev/null 2>&1 &
    compiler=$!
    trap stop_compiling EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

stop_compiling() {
    kill -s TERM -- "-$compiler" "$compiler" 2>/dev/null || true
    wait
}

finish_compiling() {
    wait
    trap - EXIT HUP INT TERM
}

install_all() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PIP_USER=0
    TMPDIR=$here/$venv/tmp # /tmp is often too small for the downloads
    export TMPDIR PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT PIP_PROGRESS_BAR PIP_USER
    mkdir -p "$TMPDIR"

    if [ "$locked" = 1 ]; then
        locked_lines setuptools >"$TMPDIR/setuptools.txt"
        set -- --require-hashes -r requirements/dev.lock
        openmmlab='--require-hashes -r requirements/openmmlab.lock'
    else
        grep '^setuptools==' requirements/runtime.txt >"$TMPDIR/setuptools.txt"
        set -- -r requirements/runtime.txt -r requirements/test.txt -r requirements/docs.txt
        openmmlab='-r requirements/openmmlab.txt'
    fi
    # Small and soon refused: a machine without a network should not wait minutes to learn it.
    pip_install setuptools --retries 1 --timeout 20 -r "$TMPDIR/setuptools.txt"
    # pip itself compiles on one core, before anything else is done, hence --no-compile.
    say 'PyTorch and what goes with it, the large part'
    pip_install 'PyTorch and what goes with it' --no-compile "$@"
    start_compiling
    say 'MMSegmentation and this package'
    # Built with the setuptools above, which the locks know, where pip would fetch one unchecked.
    export PYTHONPATH="$here/scripts/mmcv_build" # lets mmcv-full be built, without its ops
    # shellcheck disable=SC2086 # it holds several options
    pip_install MMSegmentation --no-deps --no-build-isolation --use-pep517 $openmmlab
    unset PYTHONPATH
    pip_install 'this package' --no-deps --no-build-isolation --editable .
    rm -rf "$TMPDIR"
    finish_compiling

    say 'checking that it can be imported'
    "$venv/bin/python" -c 'import torch, torchvision, mmseg_custom, mmseg.apis' >"$log" 2>&1 ||
        die "installed, but it cannot be imported: $(tail -n 1 "$log") (the whole story: $log)"
}

look
[ "$state" != 'done' ] || exit 0
take_lock
look # another set-up may just have ended
case $state in
    'done') exit 0 ;;
    foreign) die "$here/$venv was not made by this script: move it away, then run this again" ;;
    outdated) say "bringing $venv up to date" ;;
    *)
        need_python
        rm -rf "$venv" || die "$here/$venv cannot be removed: give yourself the right to"
        need_disk
        say "setting up $venv with Python $version: 2.5 GB to fetch, a few minutes"
        ;;
esac
echo unfinished >"$marker"
if [ "$state" != outdated ]; then
    mkdir "$venv"
    "$python" -m venv "$venv" >"$log" 2>&1 ||
        die "$python -m venv failed: $(tail -n 1 "$log") (the whole story: $log)"
    have=$version
fi
install_all
printf '%s %s %s\n' "$have" "$contents" "$here" >"$stamp"
: >"$marker"
say "$venv is ready"
