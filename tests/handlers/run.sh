#!/usr/bin/env bash
# Runs the handlers in examples/python and examples/node behind the command, checks them by
# conformance.py, and strikes worker processes with three effects. Needs Node and Python; what else is
# needed is fetched first (install.sh).
#
#   tests/handlers/run.sh [ARGUMENTS FOR `cargo test`]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_HANDLERS_HOME:-$here/../../target/handlers}
"$here/install.sh"
home=$(cd "$home" && pwd)

export AFTERCOMMIT_HANDLERS_PYTHON=$home/bin/python

cd "$here/../.."
# As localstack/test.sh builds it, so that nothing is built twice.
cargo test --all-features --test suite "$@" -- --ignored handlers::languages:: --skip storm::
# Loads the machine with processes, so it has it for itself.
cargo test --all-features --test suite "$@" -- --ignored --nocapture handlers::languages::storm::
