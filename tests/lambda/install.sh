#!/usr/bin/env bash
# Gets cargo-lambda, whose emulator of Lambda's runtime API the tests use, in an environment of its
# own.
#
#   AFTERCOMMIT_CARGO_LAMBDA_HOME   where to (<repository>/target/cargo-lambda)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_CARGO_LAMBDA_HOME:-$here/../../target/cargo-lambda}
version=1.9.2

die() { echo "cargo-lambda: $*" >&2; exit 1; }

if [ "$("$home/bin/python" -c 'import importlib.metadata as m; print(m.version("cargo-lambda"))' 2>/dev/null)" != $version ]; then
    rm -rf "$home"
    python3 -m venv "$home" ||
        die "python3 with venv is missing: sudo apt-get install python3-venv"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "cargo-lambda==$version"
fi
