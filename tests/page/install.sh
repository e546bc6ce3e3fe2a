#!/usr/bin/env bash
# Gets the browser of the page's tests: Debian's chromium and its driver. They are used from the PATH
# where they stand already; otherwise root installs them by apt.
set -euo pipefail

die() { echo "page: $*" >&2; exit 1; }

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
if [ ${#missing[@]} = 0 ]; then
    exit
fi

command -v apt-get >/dev/null || die "missing: ${missing[*]}: put chromium and chromedriver on the PATH"
[ "$(id -u)" = 0 ] || die "missing: sudo apt-get install --no-install-recommends ${missing[*]}"
install() { apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core >/dev/null; }
# A new machine has no lists yet.
install || { apt-get update -qq && install; } || die "apt-get cannot install ${missing[*]}"
