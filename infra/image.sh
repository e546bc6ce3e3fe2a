#!/usr/bin/env bash
# Does what the Dockerfile does, without Docker, and starts the result as production does: as nobody
# special, on a file system that cannot be written. Needs root, as only root may mount and change users.
#
#   infra/image.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
home=${AFTERCOMMIT_INFRA_HOME:-$PWD/target/infra}
root=$home/image
log=$home/worker.log
port=5996

say() { echo "image: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "needs root, to mount a file system read-only and to become another user: sudo -E infra/image.sh"
for command in unshare setpriv ldd objdump curl; do
    command -v "$command" >/dev/null || die "$command is missing (Debian: util-linux, libc-bin, binutils, curl)"
done

"$here/build.sh"
rm -rf "$root"
"$here/rootfs.sh" "$target/release/aftercommit" "$root"
say "the binary has $(stat -c %s "$root/aftercommit") bytes, the image $(du -sh "$root" | cut -f1)"
[ "$(du -sm "$root" | cut -f1)" -lt 64 ] || die "the image has grown beyond 64 MB: what came in?"

# Lambda's provided.al2023 has glibc 2.34 (https://docs.aws.amazon.com/linux/al2023/ug/core-glibc.html).
newest=$(objdump -T "$root/aftercommit" | grep -o 'GLIBC_2[0-9.]*' | sort -uV | tail -n 1)
say "it needs ${newest/_/ }"
[ "$(printf '%s\n' "$newest" GLIBC_2.34 | sort -V | tail -n 1)" = GLIBC_2.34 ] ||
    die "AWS Lambda has glibc 2.34: this needs $newest"

# inside COMMAND...: with the image as the whole file system, read-only, and as the image's user, who
# has no right beyond that. The process itself, so that a signal reaches it.
inside() {
    # shellcheck disable=SC2016
    exec unshare --mount --propagation private sh -c '
        set -e
        mount --bind "$0" "$0"
        mount -o remount,bind,ro,nosuid,nodev "$0"
        cd "$0"
        if touch written 2>/dev/null; then
            echo "image: its file system can be written" >&2
            exit 1
        fi
        exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= . "$@"' "$root" "$@"
}

version=$(inside /aftercommit --version)
say "$version"

"$here/install.sh"
"$home/moto/bin/moto_server" -H 127.0.0.1 -p "$port" >"$home/moto-image.log" 2>&1 &
emulator=$!
worker=
trap 'kill $emulator $worker 2>/dev/null || true' EXIT

for name in ${!AWS_*} ${!AFTERCOMMIT_*}; do
    unset "$name"
done
export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_REGION=eu-central-1
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
export AFTERCOMMIT_TABLE=orders AFTERCOMMIT_MAIL_FROM=orders@example.com AFTERCOMMIT_LOG=json
export AFTERCOMMIT_SMTP_URL=smtp://localhost:1025
export AFTERCOMMIT_HTTP=127.0.0.1:9465 AFTERCOMMIT_METRICS=emf

# wait_for WHAT COMMAND...: until the command succeeds, at most two minutes.
wait_for() {
    local what=$1
    shift
    for _ in {1..240}; do
        if "$@"; then
            return
        fi
        sleep 0.5
    done
    die "waited in vain for $what: $(tail -n 3 "$log")"
}
answers() { curl --silent --fail --output /dev/null "$AWS_ENDPOINT_URL/moto-api/data.json"; }
reads() { kill -0 "$worker" && grep -q '"message":"reading"' "$log"; }

wait_for "moto" answers
(inside /aftercommit tables create --with-orders) >&2

(inside /aftercommit run) >"$log" 2>&1 &
worker=$!
wait_for "the worker to read the stream" reads
[ "$(stat -c %u "/proc/$worker")" = 65532 ] || die "the worker runs as $(stat -c %U "/proc/$worker")"
# As ECS asks.
is_well() { (inside /aftercommit health); }
wait_for "the worker to be well" is_well
kill -TERM "$worker"
status=0
wait "$worker" || status=$?
[ "$status" = 0 ] || die "on SIGTERM the worker ended with $status: $(tail -n 3 "$log")"
grep -q '"aftercommit_heartbeats_total":[1-9]' "$log" || die "the log has no metrics for CloudWatch"
say "on a read-only file system, as user 65532: it started, read the stream, was well, told its metrics," \
    "and ended on SIGTERM with 0"
