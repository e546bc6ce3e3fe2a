#!/usr/bin/env bash
# Runs the command as a Lambda function behind cargo-lambda's emulator, which it gets first
# (install.sh).
#
#   tests/lambda/run.sh [ARGUMENTS FOR `cargo test`]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_CARGO_LAMBDA_HOME:-$here/../../target/cargo-lambda}
"$here/install.sh"
home=$(cd "$home" && pwd)

export PATH=$home/bin:$PATH

cd "$here/../.."
# As localstack/test.sh builds it, so that nothing is built twice.
cargo test --all-features --test suite "$@" -- --ignored lambda::real_runtime::
