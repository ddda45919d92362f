#!/usr/bin/env bash
# tablet.sh UMBRA FOLDER: Debian's amd64 kernel with its own driver (virtio_input) follows the pointer over the window, under Xvfb,
# in both engines and in lock-step: places, buttons and wheel as the guest reads them; the menu keeps its clicks to itself; the
# mouse can be captured all the same. Needs apt, gcc, cpio, xvfb, xdotool; what it fetches stays in FOLDER.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: tablet.sh UMBRA FOLDER" >&2; exit 2; }
umbra=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2/tablet"
folder=$(realpath "$2")
sh "$here/fetch.sh" "$folder" cloud drivers
sh "$here/mkdrivers.sh" "$folder" "$folder/tablet/tablet.cpio.gz" "$here/pointer.c" \
    evdev virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_input
source "$here/helpers.sh"
work_in_a_folder

fail() {
    echo "tablet.sh: $*" >&2
    tail -n 30 log >&2
    exit 1
}

said() { tr -d '\r' < log | grep -q "^$1\$"; } # LINE
lines() { tr -d '\r' < log | grep -c '^at '; }
# The guest's last word of its pointer.
reads() { [[ $(tr -d '\r' < log | grep '^at ' | tail -n 1) == $1 ]]; } # PATTERN
to() { xdotool mousemove --window "$window" "$1" "$2"; }

try() { # NAME OPTIONS...
    local name=$1 from=$SECONDS before
    shift
    fresh_pointer
    "$umbra" run --kernel "$folder/drivers/vmlinuz" --initrd "$folder/initrd-64.cpio.gz" --initrd "$folder/tablet/tablet.cpio.gz" \
        --append 'console=ttyS0 quiet panic=-1 run=/opt/pointer.sh' -m 256M --timeout 900s --fail-on 'Kernel panic' \
        --display window --window-backend software "$@" > log 2>&1 < /dev/null &
    guest=$!
    started+=("$guest")
    until_true 60 find_window || fail "$name: no window"
    xdotool windowfocus --sync "$window"
    until_true 600 said 'POINTER-READY 0-32767 0-32767' || fail "$name: the guest finds no tablet"
    until_true 10 titled '*the guest follows the pointer*' || fail "$name: the title says '$(xdotool getwindowname "$window")'"
    # The picture has 720 by 400 dots: its corners are the tablet's.
    to 719 399
    until_true 20 reads 'at 32767 32767 wheel 0 buttons 0' || fail "$name: not in the lower right corner"
    to 0 0
    until_true 20 reads 'at 0 0 wheel 0 buttons 0' || fail "$name: not in the upper left corner"
    to 100 300
    until_true 20 reads 'at 4557 24637 wheel 0 buttons 0' || fail "$name: not where the pointer is"
    xdotool mousedown 1
    until_true 20 reads 'at 4557 24637 wheel 0 buttons 1' || fail "$name: the button is not down"
    to 200 300
    until_true 20 reads 'at 9115 24637 wheel 0 buttons 1' || fail "$name: not dragged"
    xdotool mouseup 1
    until_true 20 reads 'at 9115 24637 wheel 0 buttons 0' || fail "$name: the button is not up"
    # X servers tell a wheel that a test turns once or twice: as a button, and as a scroll.
    xdotool click 4
    away() { reads 'at 9115 24637 wheel [12] buttons 0'; }
    until_true 20 away || fail "$name: the wheel does not turn away"
    xdotool click 5
    until_true 20 reads 'at 9115 24637 wheel 0 buttons 0' || fail "$name: the wheel does not turn back"
    # Over the menu the pointer is the host's.
    hot_key h
    # That title, too, ends in "menu".
    alone() { ! titled '*the guest follows the pointer*'; }
    until_true 20 alone || fail "$name: no menu"
    sleep 1
    before=$(lines)
    to 300 20
    xdotool click 3
    # Beside its list this closes the menu; that the button comes up again is the menu's, too.
    sleep 1
    xdotool key Escape
    sleep 0.5
    [ "$(lines)" = "$before" ] || fail "$name: the guest sees what is done in the menu"
    until_true 10 titled '*the guest follows the pointer*' || fail "$name: the guest no longer follows"
    # A captured mouse is another device.
    hot_key m
    until_true 10 titled '*frees the mouse' || fail "$name: the mouse is not captured"
    before=$(lines)
    xdotool mousemove_relative 20 10
    sleep 0.5
    [ "$(lines)" = "$before" ] || fail "$name: the captured mouse moves the tablet's pointer"
    hot_key m
    until_true 10 titled '*the guest follows the pointer*' || fail "$name: the mouse is not freed"
    to 0 399
    xdotool mousedown 3
    until_true 20 said POINTER-OK || fail "$name: the right button ends nothing"
    xdotool mouseup 3
    reads 'at 0 32767 wheel 0 buttons 2' || fail "$name: the right button at another place"
    kill "$guest" 2> /dev/null || true
    wait "$guest" 2> /dev/null || true
    echo "$name: good, $((SECONDS - from)) s"
}

start_display
try jit --engine jit
try interp --engine interp
try lock-step --engine both
echo "tablet.sh: all good"
