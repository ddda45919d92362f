#!/usr/bin/env bash
# balloon.sh UMBRA FOLDER: Debian's amd64 kernel with its own driver (virtio_balloon) tells what it does not need, and the host has that
# memory back: what a program has freed, by free-page reports; what it is asked for at the console, by the balloon. In both engines.
# Needs apt, gcc, cpio, python3; what it fetches stays in FOLDER.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: balloon.sh UMBRA FOLDER" >&2; exit 2; }
umbra=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2/balloon"
folder=$(realpath "$2")
sh "$here/fetch.sh" "$folder" cloud drivers
sh "$here/mkdrivers.sh" "$folder" "$folder/balloon/balloon.cpio.gz" "$here/spend.c" \
    virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_balloon
source "$here/helpers.sh"
work_in_a_folder

fail() {
    echo "balloon.sh: $*" >&2
    tail -n 20 log >&2
    exit 1
}
said() { tr -d '\r' < log | grep -q "$1"; } # TEXT
seen() { "$umbra" inspect reclaim --connect control --json | python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; } # PLACE
touched() { seen '["touched"]'; }
below() { [ "$(touched)" -lt "$1" ]; } # FRAMES
given() { [ "$(seen '["balloon"]["given"]')" -eq "$1" ]; } # PAGES

try() { # NAME OPTIONS...
    local name=$1 from=$SECONDS full freed
    shift
    rm -f type log && mkfifo type
    "$umbra" run --headless --kernel "$folder/drivers/vmlinuz" --initrd "$folder/initrd-64.cpio.gz" --initrd "$folder/balloon/balloon.cpio.gz" \
        --append 'console=ttyS0 quiet panic=-1 run=/opt/spend.sh' -m 512M --timeout 600s --fail-on 'Kernel panic' \
        --control control --balloon on "$@" < type > log 2>&1 &
    guest=$!
    started+=("$guest")
    exec 3> type
    until_true 120 said SPEND-TOUCHED || fail "$name: the guest does not come to its program"
    full=$(touched)
    [ "$full" -gt 76800 ] || fail "$name: only $full frames touched"
    echo >&3
    until_true 60 said SPEND-FREED || fail "$name: nothing is freed"
    # Linux reports what has been free for two seconds. Some stays: caches of the kernel, blocks that are too small to report.
    until_true 60 below $((full - 60000)) || fail "$name: of $full frames $(touched) are still there"
    freed=$(touched)
    printf '\001cballoon 128M\n\n' >&3
    until_true 60 given 32768 || fail "$name: the balloon holds $(seen '["balloon"]')"
    printf '\001cballoon 0\n\n' >&3
    until_true 60 given 0 || fail "$name: the balloon keeps $(seen '["balloon"]')"
    [ "$("$umbra" inspect audit --connect control > /dev/null; echo $?)" -eq 0 ] || fail "$name: the audit finds something"
    echo >&3
    until_true 120 said SPEND-OK || fail "$name: the guest's memory is not as it should be"
    exec 3>&-
    kill "$guest" 2> /dev/null || true
    wait "$guest" 2> /dev/null || true
    echo "$name: good, $((full / 256)) MiB touched, $((freed / 256)) after the program had freed 300; $((SECONDS - from)) s"
}

try jit --engine jit
try paged --engine jit --memory-policy paged --memory-limit 400M
try interp --engine interp
echo "balloon.sh: all good"
