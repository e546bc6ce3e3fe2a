#!/usr/bin/env bash
# Installs LocalStack 4.14.0 where there is no Docker, into one folder of its own:
# ${AFTERCOMMIT_LOCALSTACK_HOME:-<repository>/target/localstack}. Deleting that folder undoes it.
# Run it again at will: what is in place stays, and the second run takes no time.
#
# 4.14.0 is the last community release that starts without an account token.
set -euo pipefail

localstack=4.14.0
# LocalStack's own version ranges are wide, and later releases of what it depends on break it. The
# resolver therefore sees the package index as it stood when 4.14.0 was new.
as_of=2026-03-01
uv=0.13.9
# The npm package is a carrier: its folder emulator/ is Amazon's DynamoDB Local as Amazon ships it.
simulator=amplify-dynamodb-simulator@2.9.30

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${AFTERCOMMIT_LOCALSTACK_HOME:-$repo/target/localstack}
venv=$home/venv
# LocalStack looks for its parts below FILESYSTEM_ROOT (see start.sh), and downloads from elsewhere
# whatever it does not find there.
lib=$home/root/var/lib/localstack/lib
dynamodb=$lib/dynamodb-local/2

say() { echo "localstack: $*" >&2; }
die() { say "$*"; exit 1; }

# need COMMAND DEBIAN-PACKAGE: has the command, or installs it, or says in one line what to install.
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $2 with apt-get, for \`$1\`"
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
            apt-get install -qy --no-install-recommends "$2"; } >&2 && return
    fi
    die "\`$1\` is missing: install it (Debian and Ubuntu: sudo apt-get install $2) and run this again"
}

# 3.13 only: LocalStack starts on older ones, and fails at the first DynamoDB call. A command of that
# name may be a stub that only prints an error (pyenv's), and Debian ships Python without venv and
# pip: so each candidate is run.
find_python() {
    local candidate versions=
    if command -v pyenv >/dev/null; then versions=$(pyenv root)/versions; fi
    for candidate in python3.13 python3 "$versions"/3.13.*/bin/python3.13; do
        if "$candidate" -c '
import ensurepip, sys, venv
sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "needs Python 3.13 with venv and pip: \`pyenv install 3.13\`, \`uv python install 3.13\`," \
        "or on Debian 13: sudo apt-get install python3.13-venv"
}

install_python_part() {
    local python
    python=$(find_python)
    say "installing LocalStack $localstack for $("$python" --version) (up to a minute)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv"
    # service-identity is imported by LocalStack's web server and named by none of its pins.
    "$venv/bin/python" -m uv pip install --quiet --python "$venv/bin/python" \
        --exclude-newer "$as_of" \
        "localstack-core[runtime]==$localstack" "localstack==$localstack" service-identity
    echo "$python_part" >"$venv/installed"
}

install_dynamodb() {
    say "installing DynamoDB Local (56 MB)"
    need npm npm
    local new=$home/dynamodb.new
    rm -rf "$new" "$dynamodb"
    mkdir -p "$new" "$dynamodb"
    # `npm pack` fetches and checks the one package, without the many it depends on.
    (cd "$new" && npm pack --silent "$simulator" >/dev/null)
    tar -xzf "$new"/*.tgz -C "$new" package/emulator
    mv "$new"/package/emulator/* "$dynamodb"
    rm -rf "$new"
    echo "$dynamodb_part" >"$dynamodb/installed"
}

# LocalStack starts DynamoDB Local with a Java agent that it would download. That one allows a table
# more than 20 indexes, which nothing here has; this one does nothing.
install_agent() {
    say "compiling an empty Java agent"
    local new=$home/agent.new
    rm -rf "$new"
    mkdir -p "$new"
    echo 'public class Agent { public static void premain(String args) {} }' >"$new/Agent.java"
    echo 'Premain-Class: Agent' >"$new/manifest"
    (cd "$new" && javac --release 11 Agent.java && jar cfm agent.jar manifest Agent.class)
    mv "$new/agent.jar" "$agent"
    rm -rf "$new"
}

# The name says 21 as that is where LocalStack looks; Java 17 serves.
link_java() {
    local settings java_home java_version
    settings=$(java -XshowSettings:properties -version 2>&1) || true
    java_home=$(sed -n 's/^ *java\.home = //p' <<<"$settings")
    java_version=$(sed -n 's/^ *java\.specification\.version = //p' <<<"$settings")
    if [ ! -x "$java_home/bin/java" ] || [ "${java_version%%.*}" -lt 17 ]; then
        die "needs Java 17 or later: \`java\` here is ${java_version:-not working}"
    fi
    mkdir -p "$lib/java"
    rm -rf "$lib/java/21"
    ln -s "$java_home" "$lib/java/21"
}

agent=$dynamodb/ddb-local-loader-0.1.jar
python_part="localstack $localstack as of $as_of"
dynamodb_part=$simulator

need curl curl
if [ "$(cat "$dynamodb/installed" 2>/dev/null)" != "$dynamodb_part" ]; then
    install_dynamodb
fi
if [ ! -x "$lib/java/21/bin/java" ] || [ ! -f "$agent" ]; then
    need javac default-jdk-headless
    link_java
    install_agent
fi
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$python_part" ] || [ ! -x "$venv/bin/python" ]; then
    install_python_part
fi
say "LocalStack $localstack is installed in $home"
