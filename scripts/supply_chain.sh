#!/bin/sh
# What is known of the packages that this project uses, and of the one that it is:
#
#   sh scripts/supply_chain.sh lock [options of uv pip compile, e.g. --upgrade-package numpy]
#   sh scripts/supply_chain.sh audit [options of pip-audit, e.g. --ignore-vuln ID]
#   sh scripts/supply_chain.sh dist
#
# lock   writes requirements/*.lock from requirements/*.txt: every package with its version and hashes,
#        for all systems and versions of Python. What a lock has already keeps its version where it can.
# audit  asks the Python Packaging Advisory Database for what is known of the versions in dev.lock.
# dist   builds sdist and wheel, the wheel from the sdist, into dist/, and checks their metadata.
#
# The programs are those of requirements/supply.txt, installed into build/supply at the first call.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

PATH=$PWD/.venv/bin:$PATH
tools=build/supply
wanted=$tools/supply.txt

die() {
    printf 'supply chain: %s\n' "$*" >&2
    exit 1
}

install_tools() {
    cmp -s requirements/supply.txt "$wanted" && return 0
    rm -rf "$tools"
    mkdir -p build
    python -m venv "$tools"
    "$tools/bin/python" -m pip install -q --disable-pip-version-check -r requirements/supply.txt ||
        die 'the programs of requirements/supply.txt could not be installed (network?)'
    cp requirements/supply.txt "$wanted"
}

# compile NAME OPTIONS...: writes requirements/NAME.lock whole or not at all.
compile() {
    lock=requirements/$1.lock
    shift
    cp "$lock" "$lock.part" 2>/dev/null || : # uv keeps the versions of the file that it writes to
    "$tools/bin/uv" pip compile -q --universal --python-version 3.10 --generate-hashes \
        --no-header --output-file "$lock.part" "$@" >/dev/null || {
        rm -f "$lock.part"
        die "$lock could not be made; it is as it was"
    }
    mv "$lock.part" "$lock"
}

lock() {
    compile dev requirements/runtime.txt requirements/test.txt requirements/docs.txt "$@"
    compile runtime requirements/runtime.txt --constraints requirements/dev.lock
    compile openmmlab requirements/openmmlab.txt --no-deps
}

audit() {
    report=build/audit.json
    rm -f "$report"
    # Its code says whether there are findings; the report says more.
    "$tools/bin/pip-audit" -r requirements/dev.lock -r requirements/openmmlab.lock --disable-pip \
        --require-hashes --progress-spinner off --format json --output "$report" "$@" \
        2>build/audit.log || true
    [ -s "$report" ] || die "no answer from the advisory database: nothing was audited ($(
        tail -n 1 build/audit.log))"
    python scripts/audit_report.py "$report"
}

dist() {
    rm -rf dist
    "$tools/bin/python" -m build --outdir dist . >build/dist.log 2>&1 ||
        die "the package cannot be built: $(tail -n 1 build/dist.log) (the whole story: build/dist.log)"
    "$tools/bin/twine" check --strict dist/*
}

case ${1:-} in
    lock | audit | dist) ;;
    *) die 'usage: sh scripts/supply_chain.sh lock|audit|dist [options]' ;;
esac
command=$1
shift
install_tools
"$command" "$@"
