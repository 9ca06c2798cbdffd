#!/bin/sh
# Registers QEMU's handlers with the kernel, for `aarch64` and other names that QEMU gives to machines.
# With --check it only says what it would do. The lines are those of the distribution's package, in the
# format of systemd's binfmt.d, with the flag F: the kernel opens the program now, so that it works in the
# file systems of build steps (Documentation/admin-guide/binfmt-misc.rst of the kernel).
set -eu
handlers=/proc/sys/fs/binfmt_misc
check=no
if [ "$1" = --check ]; then
    check=yes
    shift
fi

die() {
    echo "$1" >&2
    exit 1
}

# line NAME: the package's line for a machine.
line() {
    for file in "/usr/lib/binfmt.d/qemu-$1.conf" "/usr/lib/binfmt.d/qemu-$1-static.conf" \
        "/etc/binfmt.d/qemu-$1.conf" "/etc/binfmt.d/qemu-$1-static.conf"; do
        if [ -r "$file" ]; then
            sed -n '/^:/{p;q;}' "$file"
            return
        fi
    done
}

# with_f LINE: the flags are what stands behind the last colon.
with_f() {
    case ${1##*:} in
    *F*) printf '%s' "$1" ;;
    *) printf '%sF' "$1" ;;
    esac
}

if [ ! -e "$handlers/register" ]; then
    if [ $check = no ]; then
        [ -d "$handlers" ] || modprobe binfmt_misc 2>/dev/null || true
        mount -t binfmt_misc binfmt_misc "$handlers" 2>/dev/null ||
            die "this kernel has no binfmt_misc: load the module binfmt_misc, or build on a machine of that kind (image_build_native_group)"
    fi
fi
for name in "$@"; do
    text=$(line "$name")
    [ -n "$text" ] || [ $check = yes ] ||
        die "no handler for $name in /usr/lib/binfmt.d: install the package that has QEMU's (image_build_binfmt_package)"
    if [ $check = no ]; then
        handler=$(printf '%s' "$text" | cut -d: -f2)
        # One that is off, or does not hold its program open, is of no use to a build.
        [ ! -e "$handlers/$handler" ] || echo -1 >"$handlers/$handler"
        with_f "$text" >"$handlers/register"
    fi
    echo "registered $name"
done
