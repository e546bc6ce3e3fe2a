#!/usr/bin/env bash
# Gets AWS Lambda's runtime client for Python and Powertools for the tests, in an environment of their own.
#
#   AFTERCOMMIT_HANDLERS_HOME   where to (<repository>/target/handlers)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_HANDLERS_HOME:-$here/../../target/handlers}
packages=(awslambdaric==4.2.0 aws-lambda-powertools==3.37.0)

die() { echo "handlers: $*" >&2; exit 1; }

command -v node >/dev/null || die "node is missing: install Node 18 or newer"
command -v python3 >/dev/null || die "python3 is missing: install Python 3.10 or newer"
if [ "$(cat "$home/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$home"
    python3 -m venv "$home" || die "python3 with venv is missing: sudo apt-get install python3-venv"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" ||
        die "pip cannot install ${packages[*]}"
    echo "${packages[*]}" >"$home/packages"
fi
