# shellcheck shell=bash
# Sourced first by every script here: where things are, the environment that all tools run in, and the
# few functions that more than one script needs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
venv=$root/.venv
cache=$root/.cache # everything that may be deleted at any time
mkdir -p "$cache/log" "$cache/tmp"

# A pyenv shim answers for interpreters that are not there: take the shims out of PATH.
PATH=$(tr : '\n' <<<"$PATH" | grep -v '/shims/*$' | paste -sd :)
PATH=$venv/bin:$PATH
export PATH
# The only place collections come from is this checkout, under the name that Ansible expects.
export ANSIBLE_COLLECTIONS_PATH=$venv/collections
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export LANG=C.UTF-8 LC_ALL=C.UTF-8 # Ansible insists on UTF-8

# Workers of the unit tests: a good part of their time is waiting.
# shellcheck disable=SC2034 # for the scripts that source this
unit_workers=$(($(nproc) * 2))

say() { printf "%s\n" "$@"; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# quietly NAME COMMAND...: run with the output in a log, which is shown only on failure.
quietly() {
    local log=$cache/log/$1.log
    shift
    "$@" >"$log" 2>&1 && return
    local rc=$?
    tail -n 60 "$log" >&2
    say "(the last lines of ${log#"$root"/})" >&2
    return $rc
}

# pythons: every version this machine may have and this project can run on, oldest first.
pythons() { printf "%s " 3.9 3.10 3.11 3.12 3.13 3.14; }

# real_python 3.N: the path of an interpreter that really starts and can make virtual environments.
real_python() {
    local candidate
    for candidate in $(type -ap "python$1") "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1"; do
        [[ $candidate == "$root"/* ]] && continue
        if "$candidate" -c 'import ensurepip, ssl, venv' 2>/dev/null; then
            say "$candidate"
            return
        fi
    done
    return 1
}

newest_python() {
    local version newest=
    for version in $(pythons); do
        if real_python "$version" >/dev/null; then newest=$version; fi
    done
    say "$newest"
}

# make_venv DIR PYTHON PIP-ARGUMENT...: a virtual environment that holds just this; costs nothing when it
# is there already. The stamp also names the directory, since environments do not survive a move.
make_venv() {
    local dir=$1 python=$2 stamp files=() arg
    shift 2
    for arg in "$@"; do if [[ -f $arg ]]; then files+=("$arg"); fi; done
    stamp=$({ say "$dir" "$@"; "$python" -VV; cat requirements.txt "${files[@]}"; } | sha256sum)
    exec 9>"$cache/${dir##*/}.lock"
    flock 9
    if [[ $(cat "$dir/.stamp" 2>/dev/null) != "$stamp" ]]; then
        say "Preparing ${dir#"$root"/} with $("$python" -V) ..."
        rm -rf "$dir"
        quietly "venv${dir##*/}" "$python" -m venv "$dir" ||
            die "Python could not make a virtual environment at $dir."
        quietly "pip${dir##*/}" timeout 1200 "$dir/bin/pip" install --timeout 60 --retries 3 "$@" ||
            die "pip could not install the packages above: is the package index that pip is set to use reachable?"
        printf '%s\n' "$stamp" >"$dir/.stamp"
    fi
    exec 9>&-
}

# fleet_is_up: the test fleet that FLEET_NAME names, or the usual one, can be used.
fleet_is_up() {
    export FLEET_NAME=${FLEET_NAME:-test}
    [[ -f .fleet/$FLEET_NAME/inventory.yml ]] ||
        die "The fleet '$FLEET_NAME' is not up: run 'tests/fleet/fleet up --name $FLEET_NAME'."
}

# fresh_copy DIR: the files that git would commit, copied to DIR, which is emptied but for test output.
fresh_copy() {
    mkdir -p "$1"
    find "$1" -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +
    git ls-files -co --exclude-standard --deduplicate -z |
        while IFS= read -r -d '' file; do if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi; done |
        tar -c --null -T - | tar -x -C "$1"
}
