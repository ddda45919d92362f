# helpers.sh: what the scripts share that watch a guest while it runs. To be sourced, with bash. The caller has a function `fail`.
#   $guest     the process that is watched
#   $window    its window, once it was found
#   $work      a folder that is there until the end, and the current one
#   $started   processes that are killed at the end

# A folder to work in; it and what was `started` go at the end.
work_in_a_folder() {
    work=$(mktemp -d)
    cd "$work"
    started=()
    # Mesa says so much about its absence that one does not see the rest.
    export XDG_RUNTIME_DIR=$work
    trap finish EXIT
}

finish() {
    for pid in "${started[@]}"; do kill "$pid" 2> /dev/null || true; done
    rm -rf "$work"
}

# Waits until a command succeeds, at most so many seconds, and no longer than $guest lives.
until_true() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ $SECONDS -ge $end ] || { [ -n "${guest:-}" ] && ! kill -0 "$guest" 2> /dev/null; }; then
            # It may have come to that just before.
            "$@"
            return
        fi
        sleep 0.1
    done
}

# A display of its own, without a window manager; the server finds a free number for it. It goes on when its last client goes: where
# it started anew, whoever came at that moment would find no display, and each question by xdotool is a client.
start_display() {
    Xvfb -noreset -displayfd 3 -screen 0 1500x1000x24 -nolisten tcp 3> number > xvfb.log 2>&1 &
    started+=($!)
    until_true 20 test -s number || fail "Xvfb does not start: $(cat xvfb.log)"
    DISPLAY=:$(cat number)
    export DISPLAY
    unset WAYLAND_DISPLAY WAYLAND_SOCKET
}

# Before a guest starts: the pointer is where it is on a fresh display, not where the guest before left it.
fresh_pointer() { xdotool mousemove 750 500; }

# The window of the process $guest, as $window.
find_window() {
    window=$(xdotool search --pid "$guest" --name '^Umbra' 2> /dev/null | tail -1)
    [ -n "$window" ]
}
titled() { [[ $(xdotool getwindowname "$window") == $1 ]]; } # PATTERN
grab() { import -silent -window "$window" shot.png 2> /dev/null; }
# 105 is the key code of the right Ctrl key: by its name xdotool presses the left one as well.
hot_key() { xdotool keydown 105 key "$1" keyup 105; }
