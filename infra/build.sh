#!/bin/sh
# Builds what runs in production: target/release/aftercommit, for the image (Dockerfile, image.sh) and
# for Lambda.
set -eu

cd "$(dirname "$0")/.."
exec cargo build --release --locked --bin aftercommit --features ses,sqs,secrets,lambda
