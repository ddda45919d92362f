#!/usr/bin/env bash
# The window under Xvfb: every picture of the VGA test ROM pixel by pixel, keys, mouse, menu, resizing, screenshots, what a
# still screen costs, and what is said without a display or an adapter. Twice: with software Vulkan and without any GPU.
#
#   run.sh UMBRA     needs Xvfb, xdotool, ImageMagick, Mesa's software Vulkan (packages xvfb xdotool imagemagick
#                    mesa-vulkan-drivers libxkbcommon-x11-0)
#   UMBRA_WINDOW_PICTURES=frontend/window/docs run.sh UMBRA     also makes the README's pictures
set -euo pipefail
umbra=$(realpath "$1")
pictures=$(realpath "$(dirname "$0")/../../frontend/machine/tests/pictures")
keep=${UMBRA_WINDOW_PICTURES:+$(realpath "$UMBRA_WINDOW_PICTURES")}
source "$(dirname "$0")/../guests/helpers.sh"
work_in_a_folder

fail() {
    echo "window: $*" >&2
    exit 1
}

same() { [ "$(compare -metric AE "$1" "$2" null: 2>&1)" = 0 ]; }
shows() { grab && same shot.png "$1"; } # PICTURE
differs() { grab && ! same shot.png "$1"; }
# Keeps what was grabbed, for the README.
keep() { [ -z "$keep" ] || convert shot.png -strip -define png:compression-level=9 "$keep/$1.png"; }
gone() { ! kill -0 "$1" 2> /dev/null; } # PID
# Where the square of the last picture is: +X+Y.
square() {
    grab
    convert shot.png -trim -format '%O' info:
}

# Starts a guest; gives $guest and $window.
start() { # NAME [VARIABLE=VALUE...] -- OPTIONS...
    local name=$1 variables=()
    shift
    while [ "$1" != -- ]; do variables+=("$1"); shift; done
    shift
    fresh_pointer
    env "${variables[@]}" "$umbra" "$@" > log 2>&1 &
    guest=$!
    started+=("$guest")
    until_true 30 find_window || fail "$name: no window: $(cat log)"
    xdotool windowfocus --sync "$window"
}
stop() {
    kill "$guest" 2> /dev/null || true
    wait "$guest" 2> /dev/null || true
}
rom=(run --bios roms:vga --display window --serial none --no-exit-port)

walk() { # BACKEND
    local number from=$SECONDS
    start "$1" -- "${rom[@]}" --window-backend "$1"
    for number in $(seq -w 1 25); do
        until_true 30 shows "$pictures/$number.png" || {
            cp shot.png "/tmp/umbra-window-$1-$number.png" 2> /dev/null || true
            fail "$1: picture $number is not as headless (kept as /tmp/umbra-window-$1-$number.png): $(cat log)"
        }
        case $number in
            02) screenshot "$1"; menu "$1" ;;
            03) still "$1" ;;
            04) panel "$1" ;;
        esac
        [ "$number" = 25 ] || xdotool key space
    done
    mouse "$1"
    resized "$1"
    stop
    echo "window: $1: 25 pictures, keys, mouse, menu, resizing, screenshot: $((SECONDS - from)) s"
}

# A saved picture is the one that is shown, whatever lies over it.
screenshot() {
    hot_key s
    until_true 10 test -s umbra-001.png || fail "$1: no screenshot: $(cat log)"
    until_true 5 same umbra-001.png "$pictures/02.png" || fail "$1: another screenshot"
    rm umbra-001.png
    until_true 5 titled '*wrote umbra-001.png' || fail "$1: the title says nothing of the screenshot"
}

# The menu covers the picture and takes the keys; pausing shows in the title.
menu() {
    xdotool mousemove --window "$window" 100 100 click 3
    until_true 10 differs "$pictures/02.png" || fail "$1: no menu"
    xdotool key Escape
    until_true 10 shows "$pictures/02.png" || fail "$1: the menu stays"
    hot_key h
    until_true 10 differs "$pictures/02.png" || fail "$1: no menu by its hot key"
    keep menu
    xdotool key p
    until_true 10 titled 'Umbra: paused*' || fail "$1: the guest is not held: $(xdotool getwindowname "$window")"
    hot_key p
    until_true 10 titled 'Umbra: running, 720 × 400, * MIPS*' || fail "$1: held for ever: $(xdotool getwindowname "$window")"
    hot_key minus
    until_true 10 titled 'Umbra: running at 50 %*' || fail "$1: no slower: $(xdotool getwindowname "$window")"
    hot_key equal
    until_true 10 shows "$pictures/02.png" || fail "$1: the menu stays"
}

# The inspector's panel covers the picture, takes the keys, changes by itself, and is gone without a trace.
panel() {
    hot_key u
    until_true 10 differs "$pictures/04.png" || fail "$1: no panel by its hot key"
    xdotool type b8000
    xdotool key Return
    until_true 10 grab
    sleep 1
    grab
    keep panel
    cp shot.png panel.png
    xdotool key Tab Tab
    until_true 10 differs panel.png || fail "$1: the panel has one page"
    sleep 1
    grab
    keep panel-heat
    xdotool key Escape
    until_true 10 shows "$pictures/04.png" || fail "$1: the panel stays"
}

# A still screen costs the window's thread less than a tenth of a core.
still() {
    local before after ticks
    ticks=$(getconf CLK_TCK)
    sleep 0.5
    before=$(awk '{print $14 + $15}' "/proc/$guest/task/$guest/stat")
    sleep 4
    after=$(awk '{print $14 + $15}' "/proc/$guest/task/$guest/stat")
    echo "window: $1: a still screen costs $(((after - before) * 1000 / (4 * ticks))) ‰ of a core"
    [ $((after - before)) -lt $((4 * ticks / 10)) ] || fail "$1: a still screen costs too much"
}

# A click captures the mouse; then it moves the square, by exactly as much.
mouse() {
    local before after
    before=$(square)
    xdotool mousemove --window "$window" 100 100 click 1
    until_true 10 titled '*frees the mouse' || fail "$1: a click does not capture the mouse"
    xdotool mousemove_relative 20 10 mousemove_relative 20 10
    # One count is a pixel of mode 13h, two dots wide and high.
    before=${before#+}
    after="+$((${before%+*} + 80))+$((${before#*+} + 40))"
    moved() { [ "$(square)" = "$after" ]; }
    until_true 10 moved || fail "$1: the square went from +$before to $(square) in place of $after"
    hot_key m
    until_true 10 titled '*menu' || fail "$1: the mouse is not freed"
    xdotool mousemove --window "$window" 30 30
    sleep 0.3
    [ "$(square)" = "$after" ] || fail "$1: a freed mouse still moves the guest's"
}

# In a larger window every pixel becomes a square of 2 × 2; smoothed, the picture is as large as fits.
resized() {
    grab
    convert shot.png -sample 200% -background black -gravity center -extent 1300x900 large.png
    xdotool windowsize --sync "$window" 1300 900
    until_true 10 shows large.png || fail "$1: the resized picture is not twice as large"
    hot_key i
    until_true 10 differs large.png || fail "$1: the picture is not smoothed"
    hot_key i
    until_true 10 shows large.png || fail "$1: the picture stays smoothed"
}

says() { # STATUS TEXT COMMAND...
    local status=$1 text=$2 got=0
    shift 2
    timeout 60 "$@" > said 2>&1 || got=$?
    [ "$got" = "$status" ] || fail "status $got in place of $status: $(cat said)"
    grep -q -- "$text" said || fail "not said: $text; but: $(cat said)"
    ! grep -q panicked said || fail "a panic: $(cat said)"
}

start_display
walk gpu
walk software

# Where everything is drawn twice as large, so is the picture.
start "scale 2" WINIT_X11_SCALE_FACTOR=2 -- "${rom[@]}" --window-backend software
convert "$pictures/01.png" -sample 200% large.png
until_true 20 shows large.png || fail "the picture is not twice as large on a dense screen"
stop

# Without an adapter: a sentence if one was asked for, software if not.
none=(WGPU_BACKEND=vulkan VK_ICD_FILENAMES=/nonexistent VK_DRIVER_FILES=/nonexistent)
says 4 "nothing can draw.*--headless" env "${none[@]}" "$umbra" "${rom[@]}" --window-backend gpu
start "no adapter" "${none[@]}" -- "${rom[@]}" --trace window
until_true 20 shows "$pictures/01.png" || fail "no picture without an adapter"
grep -q 'drawing with softbuffer' log || fail "not drawn in software: $(cat log)"
xdotool windowclose "$window" 2> /dev/null || true
stop

# Without a display: a sentence if a window was asked for, none needed if not.
says 4 "there is no display.*--headless" env -u DISPLAY "$umbra" "${rom[@]}"
says 4 "there is no display.*--headless" env DISPLAY=:4242 "$umbra" "${rom[@]}"
says 0 "Good-bye" env DISPLAY=:4242 "$umbra"
says 0 "Good-bye" env -u DISPLAY "$umbra"

# The demo's last picture stays until a key is pressed.
start demo --
until_true 20 titled 'Umbra: off*' || fail "the demo does not end"
grep -q "Good-bye" log || fail "the demo does not come to its end: $(cat log)"
sleep 0.2
grab
keep demo
xdotool key Return
until_true 10 gone "$guest" || fail "a key does not close the demo's window"
wait "$guest" || fail "the demo ends with status $?"
echo "window: all is as it should be"
