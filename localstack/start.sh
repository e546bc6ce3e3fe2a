#!/usr/bin/env bash
# Runs LocalStack without Docker in the foreground until it is interrupted; installs it first where
# it is not. On 127.0.0.1:${AFTERCOMMIT_LOCALSTACK_PORT:-4566}. It keeps nothing: all is in memory.
# `localstack/init/10-tables.sh` in a second terminal then creates the tables for development.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_LOCALSTACK_HOME:-$here/../target/localstack}
port=${AFTERCOMMIT_LOCALSTACK_PORT:-4566}

"$here/install.sh"
home=$(cd "$home" && pwd)

# LocalStack calls its own parts on this machine, with credentials of its own: a proxy or a profile
# meant for the real service would come between.
unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ENDPOINT_URL
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

# Where its parts are (install.sh put them there), and that it is not in its container.
export FILESYSTEM_ROOT=$home/root OVERRIDE_IN_DOCKER=0

# This machine only. LocalStack's web server drops the host of an IPv4 address and would listen on
# all of them, but it minds an IPv6 one, and this one stands for 127.0.0.1. Without IPv6 in the
# kernel its other web server does it. (DynamoDB Local, behind it on a free port, cannot be told.)
if [ -e /proc/net/if_inet6 ]; then
    export GATEWAY_LISTEN="[::ffff:127.0.0.1]:$port"
else
    export GATEWAY_LISTEN=127.0.0.1:$port GATEWAY_SERVER=hypercorn
fi
# No host names that need a name server, neither in the addresses it hands out nor one of its own.
export LOCALSTACK_HOST=127.0.0.1:$port SQS_ENDPOINT_STRATEGY=path DNS_ADDRESS=0

# Keep in step with docker-compose.yml. The v2 providers pass streams straight to DynamoDB Local;
# the older ones imitate them.
export SERVICES=dynamodb,dynamodbstreams,sqs,ses,secretsmanager,iam,logs
export PROVIDER_OVERRIDE_DYNAMODB=v2 PROVIDER_OVERRIDE_DYNAMODBSTREAMS=v2
export DYNAMODB_IN_MEMORY=1

# No calls home and no downloads.
export DISABLE_EVENTS=1 SKIP_SSL_CERT_DOWNLOAD=1

# -P: folders of the place it is started from are not its modules.
exec "$home/venv/bin/python" -P -m localstack.runtime.main
