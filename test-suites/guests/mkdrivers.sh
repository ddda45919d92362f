#!/bin/sh
# mkdrivers.sh FOLDER OUT.cpio.gz PROGRAM.c MODULE...: an initramfs to be laid over that of mkinitramfs.sh. /opt/PROGRAM.sh loads the
# modules of Debian's amd64 kernel (fetch.sh FOLDER drivers), given in the order in which they need each other, and runs PROGRAM.
set -eu
[ $# -ge 4 ] || { echo "usage: mkdrivers.sh FOLDER OUT.cpio.gz PROGRAM.c MODULE..." >&2; exit 2; }
folder=$1 out=$2 program=$3
shift 3
name=$(basename "$program" .c)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root/lib" "$root/opt"
for module in "$@"; do
    cp "$(find "$folder/drivers/lib" -name "$module.ko")" "$root/lib/"
done
gcc -static -O2 -o "$root/opt/$name" "$program"
cat > "$root/opt/$name.sh" <<INIT
#!/bin/sh
for module in $*; do /bin/busybox insmod /lib/\$module.ko || echo "FAILED insmod \$module"; done
/opt/$name
INIT
chmod 755 "$root/opt/$name.sh"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > "$out"
