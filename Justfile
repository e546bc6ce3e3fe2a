# Everyday commands; `just --list` shows them. CI runs .ci/run, not this file.

# Formatting, lints and types, without running anything.
check:
    cargo fmt --check
    cargo clippy --all-targets --all-features -- -D warnings

# All tests that need no server. `just test shard` runs those whose name contains "shard".
test *ARGUMENTS:
    cargo test --all-features --lib --bins --test suite {{ARGUMENTS}}

# The fleet and the sender under simulated faults: thousands of seeds, optimised.
sim *ARGUMENTS:
    cargo test --profile sim --test simulation {{ARGUMENTS}}

# Breaks one rule of the protocol at a time in a copy of the code: a test has to notice each.
mutants *NAMES:
    tests/mutants/run.sh {{NAMES}}

# Writes what is generated from the code: docs/settings.md, docs/metrics.md, the tables of docs/guarantees.md.
docs:
    AFTERCOMMIT_WRITE_DOCS=1 cargo test --all-features --lib docs::
    AFTERCOMMIT_WRITE_DOCS=1 cargo test --all-features --test suite fault_table::
    AFTERCOMMIT_WRITE_DOCS=1 cargo test --profile sim --test simulation lasting::

# A whole shop in one process: DynamoDB, mail server, workers, and crashes. Shows its page's address.
demo *ARGUMENTS:
    cargo run --example demo -- {{ARGUMENTS}}

# Every test, LocalStack's too: starts LocalStack, in Docker or without, and stops it.
local *ARGUMENTS:
    localstack/test.sh {{ARGUMENTS}}

# What must pass before a change is taken. `just ci format tests` runs two stages.
ci *STAGES:
    .ci/run {{STAGES}}
