#!/bin/sh
# sound.sh UMBRA FOLDER: Debian's amd64 kernel with its own drivers (snd-intel8x0, pcspkr) is heard, in both engines. It plays a
# triangle at 48,000 and one at 44,100 frames a second, records, and beeps; the recording of all that is looked at here, and is the same
# file with either engine on the virtual clock. Needs apt, gcc, cpio and python3; what it fetches stays in FOLDER.
set -eu
[ $# -eq 2 ] || { echo "usage: sound.sh UMBRA FOLDER" >&2; exit 2; }
umbra=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$folder/sound
mkdir -p "$work"
sh "$here/fetch.sh" "$folder" cloud drivers
sh "$here/mkdrivers.sh" "$folder" "$work/sound.cpio.gz" "$here/play.c" \
    soundcore snd snd-timer snd-pcm ac97_bus snd-ac97-codec snd-intel8x0 pcspkr

# run NAME OPTIONS...: the guest plays; the recording is right. A guest on the real clock that gets no time from a crowded host for
# longer than its driver's ring lasts (170 ms) says so, and begins again.
run() {
    name=$1 tries=0
    shift
    wav=$work/$name.wav log=$work/$name.log
    play "$@"
    while grep -q 'a host without time' "$log" && [ $tries -lt 3 ]; do tries=$((tries + 1)); play "$@"; done
    if [ $status -ne 0 ] || ! grep -q PLAY-OK "$log"; then
        tail -n 30 "$log"
        echo "sound.sh: $name: FAILED (status $status)"
        exit 1
    fi
    python3 "$here/heard.py" "$wav" || { echo "sound.sh: $name: FAILED"; exit 1; }
    echo "$name: good"
}

play() {
    status=0
    rm -f "$wav"
    "$umbra" run --headless --kernel "$folder/drivers/vmlinuz" --initrd "$folder/initrd-64.cpio.gz" --initrd "$work/sound.cpio.gz" \
        --append 'console=ttyS0 quiet panic=-1 run=/opt/play.sh' -m 256M --timeout 600s --fail-on "Kernel panic" --sound "ac97,wav=$wav" "$@" \
        > "$log" 2>&1 < /dev/null || status=$?
}

run jit
run jit-virtual --engine jit --clock virtual
run interp-virtual --engine interp --clock virtual
cmp "$work/jit-virtual.wav" "$work/interp-virtual.wav" || { echo "sound.sh: the engines are heard differently"; exit 1; }
echo "sound.sh: all good"
