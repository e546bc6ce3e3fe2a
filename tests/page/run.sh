#!/usr/bin/env bash
# Looks at the page, and at the demo, in headless Chromium, which it gets first (install.sh). Leaves what it saw as
# pictures in target/page/.
#
#   tests/page/run.sh [ARGUMENTS FOR `cargo test`]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/install.sh"

cd "$here/../.."
# As localstack/test.sh builds it, so that nothing is built twice.
cargo build --all-features --example demo
# A browser is a heavy thing: two at a time.
cargo test --all-features --test suite "$@" -- --ignored --test-threads 2 monitor::page::
