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
sh "$here/fetch.sh" "$folder" cloud

# The kernel and its modules come out of one package, so that they fit.
if [ ! -s "$work/vmlinuz" ]; then
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1)
    [ -n "$package" ] || { echo "sound.sh: no kernel behind linux-image-amd64 (try: apt-get update)" >&2; exit 1; }
    rm -rf "$work/package"
    mkdir -m 777 "$work/package"
    (cd "$work/package" && apt-get download -qq "$package" && dpkg-deb -x ./*.deb tree)
    cp "$work"/package/tree/boot/vmlinuz-* "$work/vmlinuz"
fi
root=$work/root
rm -rf "$root"
mkdir -p "$root/lib" "$root/opt"
# In the order in which they need each other.
modules='soundcore snd snd-timer snd-pcm ac97_bus snd-ac97-codec snd-intel8x0 pcspkr'
for module in $modules; do
    cp "$(find "$work/package/tree" -name "$module.ko")" "$root/lib/"
done
gcc -static -O2 -o "$root/opt/play" "$here/play.c"
cat > "$root/opt/sound.sh" <<INIT
#!/bin/sh
for module in $modules; do /bin/busybox insmod /lib/\$module.ko || echo "PLAY-FAILED insmod \$module"; done
/bin/busybox cat /proc/asound/cards
/opt/play
INIT
chmod 755 "$root/opt/sound.sh"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > "$work/sound.cpio.gz"

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
    "$umbra" run --headless --kernel "$work/vmlinuz" --initrd "$folder/initrd-64.cpio.gz" --initrd "$work/sound.cpio.gz" \
        --append 'console=ttyS0 quiet panic=-1 run=/opt/sound.sh' -m 256M --timeout 300s --fail-on "Kernel panic" --sound "ac97,wav=$wav" "$@" \
        > "$log" 2>&1 < /dev/null || status=$?
}

run jit
run jit-virtual --engine jit --clock virtual
run interp-virtual --engine interp --clock virtual
cmp "$work/jit-virtual.wav" "$work/interp-virtual.wav" || { echo "sound.sh: the engines are heard differently"; exit 1; }
echo "sound.sh: all good"
