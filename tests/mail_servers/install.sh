#!/usr/bin/env bash
# Gets two real mail servers for the tests: smtp-sink of Debian's package postfix (unpacked, not
# installed: no daemon, no root) and Python's aiosmtpd, in an environment of its own.
#
#   AFTERCOMMIT_MAIL_SERVERS_HOME   where to (<repository>/target/mail-servers)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_MAIL_SERVERS_HOME:-$here/../../target/mail-servers}
mkdir -p "$home"
home=$(cd "$home" && pwd)

die() { echo "mail servers: $*" >&2; exit 1; }

if [ ! -x "$home/postfix/usr/sbin/smtp-sink" ] && [ ! -x /usr/sbin/smtp-sink ] &&
    ! command -v smtp-sink >/dev/null; then
    command -v apt-get >/dev/null || die "smtp-sink is missing: install postfix (it need not run)"
    fetched=$(mktemp -d "$home/fetch.XXXXXX")
    trap 'rm -rf "$fetched"' EXIT
    # As root, apt downloads as a user of its own.
    chmod 777 "$fetched"
    fetch() { (cd "$fetched" && apt-get download postfix >/dev/null); }
    # A new machine has no lists yet.
    fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; } ||
        die "apt-get cannot download postfix: run sudo apt-get update first"
    dpkg -x "$fetched"/postfix_*.deb "$fetched/postfix"
    rm -rf "$home/postfix"
    mv "$fetched/postfix" "$home/postfix"
fi

sink=$home/postfix/usr/sbin/smtp-sink
if [ -x "$sink" ] && LD_LIBRARY_PATH=$home/postfix/usr/lib/postfix ldd "$sink" | grep "not found" >&2; then
    die "smtp-sink lacks these libraries: sudo apt-get install postfix (it need not run)"
fi

python=$home/python/bin/python
if ! "$python" -c 'import aiosmtpd' 2>/dev/null; then
    rm -rf "$home/python"
    python3 -m venv "$home/python" ||
        die "python3 with venv is missing: sudo apt-get install python3-venv"
    "$python" -m pip install --quiet --disable-pip-version-check aiosmtpd==1.4.6
fi
