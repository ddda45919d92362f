#!/usr/bin/env bash
# panel.sh UMBRA FOLDER PICTURE.png: the inspector's panel over a Linux guest under Xvfb, as a picture: an address of the kernel as
# guest, monitor and host have it. FOLDER has what fetch.sh brought. Needs Xvfb, xdotool, ImageMagick.
set -euo pipefail
umbra=$(realpath "$1") folder=$(realpath "$2") picture=$(realpath -m "$3")
source "$(dirname "$0")/helpers.sh"
fail() {
    echo "panel.sh: $*" >&2
    exit 1
}
work_in_a_folder
start_display
"$umbra" run --kernel "$folder/vmlinuz-cloud" --initrd "$folder/initrd-64.cpio.gz" --append 'console=tty0 nokaslr rdinit=/bin/sh' \
    -m 128M --display window --window-backend software --serial none --control socket > log 2>&1 &
guest=$!
started+=("$guest")
until_true 30 find_window || fail "no window: $(cat log)"
xdotool windowfocus --sync "$window"
# The kernel's text is mapped where its own tables say, and used.
text='0xffffffff81000000'
shown() { "$umbra" inspect address --connect socket --at $text | grep -q '→ 0x'; }
until_true 60 shown || fail "no kernel at $text: $(cat log)"
sleep 3
hot_key u
sleep 1
xdotool type "${text#0x}"
xdotool key Return
sleep 2
grab
convert shot.png -strip -define png:compression-level=9 "$picture"
echo "panel: $(wc -c < "$picture") bytes"
