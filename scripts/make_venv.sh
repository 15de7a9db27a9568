#!/usr/bin/env bash
# Makes a virtual environment where there is none and installs into it, with uv if it is there, with pip if not.
# usage: make_venv.sh FOLDER PYTHON-OR-EMPTY INSTALL-ARGUMENTS...
set -euo pipefail
venv=$1 python=$2
shift 2
export PIP_DISABLE_PIP_VERSION_CHECK=1
quiet=() # on a terminal the installer shows how far it is; elsewhere it says nothing
[ -t 1 ] || quiet=(--quiet)

fail() {
    echo "$1" >&2
    exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${python:-python3 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "dualat needs Python 3.11 or newer, but found none as ${python:-python3}: install one and name it with \
'make PYTHON=/path/to/python3.11'."
}

# A launcher may be found and still not run, so uv is asked for its version.
have_uv() { uv --version >/dev/null 2>&1; }

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    found=$(find_python)
    if have_uv; then
        uv venv --quiet --clear --python "$found" "$venv"
    elif "$found" -c 'import venv, ensurepip' 2>/dev/null; then
        "$found" -m venv --clear "$venv"
    else
        fail "Python's venv module is missing: install it (Debian and Ubuntu: apt-get install python3-venv) or install uv, \
then run this again."
    fi
fi

if have_uv; then
    uv pip install ${quiet[@]+"${quiet[@]}"} --python "$venv/bin/python" "$@"
else
    # An environment that uv made has no pip of its own.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
    "$venv/bin/python" -m pip install ${quiet[@]+"${quiet[@]}"} "$@"
fi
