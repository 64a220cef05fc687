#!/bin/sh
# Make .venv with the locked development environment, if it is not there already.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

say() { printf '%s\n' "$*" >&2; }

as_root_on_debian() { [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; }

need() { # need COMMAND PACKAGE...: install Debian packages where COMMAND fails
    check=$1
    shift
    if sh -c "$check" >/dev/null 2>&1; then return; fi
    if as_root_on_debian; then
        say "Installing $* ..."
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
    else
        say "Please install $* first ($check fails)."
        exit 3
    fi
}

need "git --version" git
need "$PYTHON -c 'import venv, ensurepip'" python3-venv
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Python 3.11 or newer is needed, this is $("$PYTHON" --version). Set PYTHON=..."
    exit 3
}

# The stamp holds what the environment was made from, so that a changed lock remakes it.
stamp=.venv/made-from
if [ -f "$stamp" ] && cmp -s requirements-dev.txt "$stamp"; then exit 0; fi
say "Making .venv from requirements-dev.txt ..."
"$PYTHON" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes -r requirements-dev.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-deps --no-build-isolation -e .
cp requirements-dev.txt "$stamp"
