#!/usr/bin/env bash
# Runs the tests against real mail servers, which it gets first (install.sh).
#
#   tests/mail_servers/run.sh               all but the one of ten minutes
#   tests/mail_servers/run.sh ten_minutes   that one
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_MAIL_SERVERS_HOME:-$here/../../target/mail-servers}
"$here/install.sh"
home=$(cd "$home" && pwd)

export PATH=$home/postfix/usr/sbin:$PATH:/usr/sbin
export AFTERCOMMIT_POSTFIX_LIBRARIES=$home/postfix/usr/lib/postfix
export AFTERCOMMIT_AIOSMTPD_PYTHON=$home/python/bin/python

cd "$here/../.."
# As localstack/test.sh builds it, so that nothing is built twice.
case ${1:-} in
    "") tests=(confirmation::real_servers:: --skip ten_minutes) ;;
    *) tests=("confirmation::real_servers::$1") ;;
esac
cargo test --all-features --test suite -- --ignored "${tests[@]}"
