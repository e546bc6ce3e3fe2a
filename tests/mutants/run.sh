#!/usr/bin/env bash
# Applies each patch of this folder to a copy of the tree, one rule of the protocol left out by each, and
# runs the tests that its line `Test:` names: they must fail.
#
#   tests/mutants/run.sh [NAME...]     all, or only those named
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mutants=$PWD/tests/mutants
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
copy=$CARGO_TARGET_DIR/mutants
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z | xargs -0 cp --parents -t "$copy"
cd "$copy"

survived=()
for mutant in "$mutants"/*.patch; do
    name=$(basename "$mutant" .patch)
    [ $# = 0 ] || [[ " $* " = *" $name "* ]] || continue
    read -ra tests <<<"$(sed -n 's/^Test: //p' "$mutant")"
    # The last of the arguments name tests; what comes before says in which binary they are.
    case ${tests[0]} in
        --test) binary=("${tests[@]:0:2}") names=("${tests[@]:2}") ;;
        *) binary=("${tests[0]}") names=("${tests[@]:1}") ;;
    esac
    patch --quiet -p1 <"$mutant"
    cargo test --quiet --all-features --no-run "${binary[@]}"
    if cargo test --quiet --all-features "${binary[@]}" -- "${names[@]}" >"$name.log" 2>&1; then
        echo "SURVIVED: $name; see $copy/$name.log"
        survived+=("$name")
    else
        echo "caught: $name"
    fi
    patch --quiet -p1 --reverse <"$mutant"
done
[ ${#survived[@]} = 0 ]
