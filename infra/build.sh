#!/bin/sh
# Builds what runs in production: target/release/aftercommit, for the image (Dockerfile, image.sh) and
# for Lambda.
set -eu

cd "$(dirname "$0")/.."
features=
for feature in ses sqs secrets lambda; do
    # Only those that this version has.
    if grep -q "^$feature = " Cargo.toml; then
        features=$features,$feature
    fi
done
exec cargo build --release --locked --bin aftercommit --features "${features#,}"
