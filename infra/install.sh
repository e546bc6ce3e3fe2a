#!/usr/bin/env bash
# Installs the emulator of AWS that the proofs of this folder run against: moto, into
# ${AFTERCOMMIT_INFRA_HOME:-<repository>/target/infra}/moto. The second run takes no time.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_INFRA_HOME:-$here/../target/infra}/moto
moto=5.2.1

if [ "$(cat "$home/installed" 2>/dev/null)" != "$moto" ]; then
    echo "infra: installing moto $moto (up to a minute)" >&2
    rm -rf "$home"
    python3 -m venv "$home" ||
        { echo "infra: python3 with venv is missing: sudo apt-get install python3-venv" >&2; exit 1; }
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "moto[server]==$moto"
    echo "$moto" >"$home/installed"
fi
