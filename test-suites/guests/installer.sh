#!/usr/bin/env bash
# installer.sh UMBRA FOLDER [OPTION...]: Debian's installer (netboot, amd64 and i386) in both engines. As text: its first dialog
# and, after Enter, its second, read from the text screen. With its graphical frontend, in a window under Xvfb: both as pictures
# that must be those in installer/ (within a tolerance: see `is`), keys seen to act in the first, and its button clicked.
# OPTIONs go to every run.
#
#   UMBRA_MOUSE=captured             the button is clicked by a captured PS/2 mouse in place of the tablet's pointer
#   UMBRA_CASES="ENGINE:ARCH:KIND..."   only these, such as jit:amd64:text interp:i386:gtk
#
# The packages debian-installer-12-netboot-ARCH come through apt into FOLDER (240 MB). Needs xvfb, xdotool, imagemagick.
set -euo pipefail
umbra=$(realpath "$1")
mkdir -p "$2/installer"
folder=$(realpath "$2/installer")
shift 2
options=("$@")
mouse=${UMBRA_MOUSE:-tablet}
[ "$mouse" != captured ] || options+=(--tablet off)
pictures=$(realpath "$(dirname "$0")/installer")
source "$(dirname "$0")/helpers.sh"
work_in_a_folder
# apt drops to an account of its own for downloads.
chmod 755 "$work"

fail() {
    echo "installer.sh: $*" >&2
    exit 1
}

fetch() { # ARCH
    [ ! -d "$folder/$1" ] || return 0
    rm -rf one && mkdir -m 777 one
    (cd one && apt-get download -qq "debian-installer-12-netboot-$1") || fail "cannot download the installer (try: apt-get update)"
    dpkg-deb -x one/*.deb unpacked
    mkdir "$folder/$1.part"
    for kind in text gtk; do
        mkdir "$folder/$1.part/$kind"
        cp "unpacked/usr/lib/debian-installer/images/12/$1/$kind/debian-installer/$1"/{linux,initrd.gz} "$folder/$1.part/$kind/"
    done
    rm -rf one unpacked
    mv "$folder/$1.part" "$folder/$1"
}

# Less than 1 GiB, and the installer begins with a warning.
machine() { # ENGINE ARCH KIND
    command=("$umbra" run --engine "$1" --kernel "$folder/$2/$3/linux" --initrd "$folder/$2/$3/initrd.gz" -m 1G --timeout 1200s
        --serial none "${options[@]}")
}
seconds() { echo "$((SECONDS - from)) s, $(awk '{ print int(($14 + $15) / 100) }' "/proc/$guest/stat") s of CPU"; }

# Without drivers that would make a picture of the console.
text() { # ENGINE ARCH
    machine "$1" "$2" text
    "${command[@]}" --append "quiet modprobe.blacklist=bochs,vga16fb" --headless --screen-text --type-at screen \
        --wait-text 'Select a language' --wait-text '<Go Back>' --type '\n' --wait-text 'Select your location' > log 2>&1 < /dev/null \
        || fail "$2, text, $1: status $?: $(cat log)"
    if grep -q 'never showed' log; then fail "$2, text, $1: $(cat log)"; fi
    echo "$2, text, $1: good, $((SECONDS - from)) s"
}

# What the golden files hold: half the width and height, 16 greys.
small() { convert "$1" -strip -colorspace gray -resize 512x384! -colors 16 -depth 4 -define png:compression-level=9 "$2"; }
# Equal but for a root mean square of 2 % of white: a pointer elsewhere, a focus frame, a language more in the list's unseen part.
is() { # PICTURE
    grab && small shot.png small.png || return 1
    compare -metric RMSE small.png "$pictures/$1.png" null: 2> measure || true
    awk -F '[()]' '{ exit !($2 != "" && $2 < 0.02) }' measure
}
is_not() { grab && ! is "$1"; } # PICTURE
shows() { # NAME PICTURE
    until_true 900 is "$2" || {
        cp small.png "/tmp/umbra-installer-$2.png"
        fail "$1: not the picture $2 (what there was: /tmp/umbra-installer-$2.png): $(cat measure log)"
    }
}

# The pointer: onto the middle of the button Continue, wherever the window is.
point_at_continue() {
    local WIDTH HEIGHT
    eval "$(xdotool getwindowgeometry --shell "$window" | grep -E '^(WIDTH|HEIGHT)=')"
    xdotool mousemove --window "$window" $((WIDTH * 482 / 512)) $((HEIGHT * 371 / 384))
}

# The mouse: into the corner, then back onto the button Continue, slowly, so that the guest does not accelerate it.
click_continue() { # SECONDS
    for _ in $(seq 40); do xdotool mousemove_relative 30 30; sleep 0.05; done
    sleep "$1"
    for _ in $(seq 30); do xdotool mousemove_relative -- -2 -1; sleep 0.05; done
    sleep "$1"
    xdotool click 1
}

gtk() { # ENGINE ARCH
    local name="$2, graphical, $1"
    machine "$1" "$2" gtk
    fresh_pointer
    "${command[@]}" --append "quiet vga=788" --display window --window-backend software > log 2>&1 < /dev/null &
    guest=$!
    started+=("$guest")
    until_true 30 find_window || fail "$name: no window: $(cat log)"
    shows "$name" language
    local first
    first=$(seconds)
    # Keys: down to the next language, and up again.
    xdotool windowfocus --sync "$window"
    xdotool key Down
    until_true 120 is_not language || fail "$name: a key does not move the bar"
    xdotool key Up
    until_true 120 is language || fail "$name: the key back does not lead back: $(cat measure)"
    if [ "$mouse" = captured ]; then
        xdotool mousemove --window "$window" 500 300 click 1
        until_true 10 titled '*frees the mouse' || fail "$name: a click does not capture the mouse"
        # A guest that is short of time may take the way there and back for one: then again, with more of it.
        local pause
        for pause in 2 10 30; do
            click_continue $pause
            ! until_true 60 is location || break
        done
    else
        until_true 60 titled '*the guest follows the pointer*' || fail "$name: the guest has no driver for the tablet"
        point_at_continue
        sleep 1
        xdotool click 1
    fi
    shows "$name" location
    echo "$name: good, language after $first, location after $(seconds)"
    kill "$guest"
    wait "$guest" 2> /dev/null || true
}

if [ -n "${UMBRA_CASES:-}" ]; then
    read -ra cases <<< "$UMBRA_CASES"
else
    cases=({jit,interp}:{amd64,i386}:{text,gtk})
fi
start_display
for case in "${cases[@]}"; do
    IFS=: read -r engine arch kind <<< "$case"
    fetch "$arch"
    from=$SECONDS
    "$kind" "$engine" "$arch"
done
echo "installer.sh: all good"
