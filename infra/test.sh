#!/usr/bin/env bash
# Proves the Terraform code: format, validity, the modules' tests with a mock provider, and both
# examples applied, planned again and destroyed on an emulator of AWS (moto). Needs Terraform 1.11 and
# Python; no account. Works in ${AFTERCOMMIT_INFRA_HOME:-<repository>/target/infra}, on a copy.
#
#   infra/test.sh
#
#   AFTERCOMMIT_TF_PLUGINS   a folder with providers, as `terraform providers mirror` makes one
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${AFTERCOMMIT_INFRA_HOME:-$here/../target/infra}
mkdir -p "$home"
home=$(cd "$home" && pwd)

say() { echo "infra: $*" >&2; }
die() { say "$*"; exit 1; }

command -v terraform >/dev/null ||
    die "terraform is missing: install Terraform 1.11 (https://developer.hashicorp.com/terraform/install)"

# A folder that holds the provider, for a machine without the internet: what the variable names, what
# Terraform itself would look into, or a folder below /opt.
mirror() {
    local folder found
    for folder in "${AFTERCOMMIT_TF_PLUGINS:-}" "${TF_PLUGIN_CACHE_DIR:-}" ~/.terraform.d/plugins \
        /usr/local/share/terraform/plugins /usr/share/terraform/providers /opt/*; do
        if [ -n "$folder" ]; then
            found=$(find -L "$folder" -maxdepth 3 -path '*/hashicorp/aws' 2>/dev/null || true)
            if [ -n "$found" ]; then
                echo "$folder"
                return
            fi
        fi
    done
}

# A configuration of this script's own: the one that is set may name a file that is not there.
configure() {
    local folder
    folder=$(mirror)
    export TF_CLI_CONFIG_FILE=$home/terraform.rc TF_IN_AUTOMATION=1 TF_INPUT=0 CHECKPOINT_DISABLE=1
    unset TF_PLUGIN_CACHE_DIR TF_DATA_DIR TF_WORKSPACE TF_CLI_ARGS
    if [ -n "$folder" ]; then
        say "the provider comes from a folder on this machine"
        printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$folder"
    else
        say "the provider comes from the registry"
    fi >"$TF_CLI_CONFIG_FILE"
}

configure
terraform fmt -check -diff -recursive "$here" || die "run terraform fmt -recursive infra"

# States, locks and plugins stay out of the repository.
rm -rf "$home/tree"
mkdir "$home/tree"
cp -R "$here/modules" "$here/examples" "$home/tree"

for folder in "$home"/tree/modules/* "$home"/tree/examples/*; do
    say "${folder#"$home/tree/"}"
    # A registry may not answer at once.
    for try in 1 2 3; do
        terraform -chdir="$folder" init -no-color >"$home/init.log" && break
        [ "$try" -lt 3 ] || { cat "$home/init.log"; die "terraform init failed"; }
        sleep "$((try * 5))"
    done
    terraform -chdir="$folder" validate -no-color >/dev/null
    if [ -d "$folder/tests" ]; then
        terraform -chdir="$folder" test -no-color >"$home/test.log" || { cat "$home/test.log"; die "terraform test failed"; }
        tail -n 1 "$home/test.log" >&2
    fi
done

# The command, for the tables that it would make itself: built as the tests build it, and so once.
cd "$here/.."
cargo test --locked --all-features --test suite --no-run
target=${CARGO_TARGET_DIR:-$PWD/target}

"$here/install.sh"
"$home/moto/bin/python" "$here/emulated.py" "$home" "$target/debug/aftercommit"
