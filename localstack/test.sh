#!/usr/bin/env bash
# Runs the whole test suite against LocalStack, the tests marked `#[ignore]` for need of it
# included: starts LocalStack, runs, stops it, and exits with the suite's status.
#
#   localstack/test.sh [ARGUMENTS FOR THE TEST RUNNER]
#
# LocalStack runs in Docker where a Docker engine answers, and without it elsewhere (install.sh).
#
#   AFTERCOMMIT_LOCALSTACK_PORT   where it listens on 127.0.0.1 (4566)
#   AFTERCOMMIT_LOCALSTACK_HOME   where it is installed, and its log (<repository>/target/localstack)
#   AFTERCOMMIT_LOCALSTACK_URL    use the LocalStack at this address; start and stop none
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${AFTERCOMMIT_LOCALSTACK_PORT:-4566}
home=${AFTERCOMMIT_LOCALSTACK_HOME:-$here/../target/localstack}
mkdir -p "$home"
home=$(cd "$home" && pwd)
log=$home/localstack-$port.log

child=   # what the script waits for: an installation, the test suite
server=  # LocalStack, started without Docker
docker=  # set once Docker was asked to start LocalStack

say() { echo "localstack: $*" >&2; }
die() { say "$*"; exit 1; }
compose() { docker compose -p aftercommit-test -f "$here/docker-compose.yml" "$@"; }

# Each child leads a process group of its own (set -m), so that ending the group ends all of it. The
# shell waits for children in the background: waiting for one in the foreground, it would look at a
# signal only after the child's end. They get no terminal to read from: they may not touch it.
spawn() {
    set -m
    "$@" </dev/null &
    set +m
}

run() {
    local status=0
    spawn "$@"
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

# Ends the group that process $1 leads: politely, and after 15 s not.
end() {
    kill -TERM -- "-$1" 2>/dev/null || return 0
    for _ in {1..150}; do
        kill -0 -- "-$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL -- "-$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# Runs however the script ends, and stops what it started and nothing else.
finish() {
    local status=$? jvm
    trap '' HUP INT TERM
    if [ -n "$child" ]; then
        end "$child"
    fi
    if [ -n "$server" ]; then
        # LocalStack starts DynamoDB Local in a session of its own, out of the group's reach, and
        # ends it by itself only when it has the time to.
        jvm=$(cat /proc/"$server"/task/*/children 2>/dev/null || pgrep -P "$server" || true)
        end "$server"
        for pid in $jvm; do
            kill -KILL -- "-$pid" 2>/dev/null || true
        done
    fi
    if [ -n "$docker" ]; then
        compose logs --no-color >"$log" 2>&1 || true
        compose down --volumes >/dev/null 2>&1 || true
    fi
    # Not for an interruption (above 128).
    if [ "$status" != 0 ] && [ "$status" -lt 128 ] && [ -n "$server$docker" ]; then
        say "the last lines of $log:"
        tail -n 40 "$log" >&2
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for WHAT SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local what=$1 limit=$2 began=$SECONDS next=5 waited
    shift 2
    until "$@"; do
        waited=$((SECONDS - began))
        if [ -n "$server" ] && ! kill -0 "$server" 2>/dev/null; then
            die "LocalStack ended before $what"
        fi
        if [ "$waited" -ge "$limit" ]; then
            die "waited $limit s in vain for $what at $AFTERCOMMIT_LOCALSTACK_URL"
        fi
        if [ "$waited" -ge "$next" ]; then
            say "waiting for $what ($waited of at most $limit s)"
            next=$((waited + 5))
        fi
        sleep 0.5
    done
    say "$what after $((SECONDS - began)) s"
}

quiet_curl() { curl --silent --fail --noproxy '*' --output /dev/null "$@" 2>/dev/null; }

is_healthy() { quiet_curl --max-time 5 "$AFTERCOMMIT_LOCALSTACK_URL/_localstack/health"; }

answers_dynamodb() {
    quiet_curl --max-time 10 "$AFTERCOMMIT_LOCALSTACK_URL/" -d '{}' \
        -H 'Content-Type: application/x-amz-json-1.0' \
        -H 'X-Amz-Target: DynamoDB_20120810.ListTables' \
        -H 'Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0'
}

limit=120
if [ -n "${AFTERCOMMIT_LOCALSTACK_URL:-}" ]; then
    limit=20
    AFTERCOMMIT_LOCALSTACK_URL=${AFTERCOMMIT_LOCALSTACK_URL%/}
    say "using the one at $AFTERCOMMIT_LOCALSTACK_URL"
else
    AFTERCOMMIT_LOCALSTACK_URL=http://127.0.0.1:$port
    if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "something listens on port $port already: stop it," \
            "or set AFTERCOMMIT_LOCALSTACK_PORT to another port," \
            "or AFTERCOMMIT_LOCALSTACK_URL=http://127.0.0.1:$port to use it"
    fi
    if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
        say "starting in Docker (the first time it fetches the image)"
        docker=1
        run compose up --detach
    else
        say "no Docker engine answers: starting without"
        run "$here/install.sh"
        spawn "$here/start.sh" >"$log" 2>&1
        server=$!
    fi
fi
export AFTERCOMMIT_LOCALSTACK_URL

wait_for "health" "$limit" is_healthy
# The first call starts DynamoDB Local, which no test should have to wait for.
wait_for "DynamoDB's first answer" "$limit" answers_dynamodb
"$here/init/10-tables.sh"

cd "$here/.."
# The tests with what others wrote have scripts of their own: tests/mail_servers, tests/lambda and
# tests/page.
# The caller may have given arguments for after the `--`.
case " $* " in
    *" -- "*) dashes=() ;;
    *) dashes=(--) ;;
esac
# The simulation runs thousands of fleets, so it is compiled with optimisation (profile `sim`).
if cargo nextest --version >/dev/null 2>&1; then
    run cargo nextest run --all-features --lib --bins --test suite --config-file .ci/nextest.toml --run-ignored all "$@" "${dashes[@]}" --skip real_servers:: --skip real_runtime:: --skip languages:: --skip monitor::page::
    run cargo nextest run --cargo-profile sim --test simulation --config-file .ci/nextest.toml --no-tests pass "$@"
else
    # Without the documentation's tests, where `ignore` means "does not compile".
    run cargo test --all-features --lib --bins --test suite "$@" "${dashes[@]}" --include-ignored --skip real_servers:: --skip real_runtime:: --skip languages:: --skip monitor::page:: --skip fleet::storm::
    # What is timed has the machine for itself.
    run cargo test --all-features --test suite -- --include-ignored --test-threads 1 fleet::storm::
    run cargo test --profile sim --test simulation "$@"
fi
run cargo test --all-features --doc
