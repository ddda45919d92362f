#!/bin/sh
# fetch.sh DIR [cloud|amd64|686|pae|drivers ...]      default: cloud
#
# Brings Debian kernels and an initramfs into DIR by the host's package manager, without installing them:
#   DIR/vmlinuz-NAME          the kernel
#   DIR/drivers/              vmlinuz and the folder lib/ with all its modules (amd64)
#   DIR/initrd-64.cpio.gz     busybox for amd64 and cloud; initrd-32.cpio.gz for 686 and pae
# What is there already is kept. Needs apt, dpkg-deb, cpio and gzip; root only if the package lists are missing.
set -eu
[ $# -ge 1 ] || { echo "usage: fetch.sh DIR [cloud|amd64|686|pae|drivers ...]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- cloud
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops to an account of its own for downloads: let it write.
chmod 755 "$work"

fail() { echo "fetch.sh: $*" >&2; exit 1; }

# download PACKAGE: prints the file that it became
download() {
    rm -rf "$work/one"
    mkdir -m 777 "$work/one"
    (cd "$work/one" && apt-get download -qq "$1" >&2) || fail "cannot download the package $1 (try: apt-get update)"
    find "$work/one" -name '*.deb'
}

# The package behind a meta package, in the same architecture.
behind() {
    found=$(apt-cache depends "$1" | sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1)
    [ -n "$found" ] || fail "no kernel behind the package $1 (try: apt-get update)"
    case $1 in
        *:*) echo "${found%%:*}:${1#*:}" ;;
        *) echo "$found" ;;
    esac
}

lists() { apt-cache show "$1" > /dev/null 2>&1; }

for name in "$@"; do
    if [ "$name" = drivers ]; then
        [ ! -s "$dir/drivers/vmlinuz" ] || continue
        lists linux-image-amd64 || apt-get update -qq || true
        # Kernel and modules come out of one package, so that they fit.
        deb=$(download "$(behind linux-image-amd64)")
        rm -rf "$dir/drivers"
        dpkg-deb -x "$deb" "$dir/drivers"
        mv "$dir"/drivers/boot/vmlinuz-* "$dir/drivers/vmlinuz"
        continue
    fi
    case $name in
        cloud) meta=linux-image-cloud-amd64 arch=amd64 bits=64 ;;
        amd64) meta=linux-image-amd64 arch=amd64 bits=64 ;;
        686) meta=linux-image-686:i386 arch=i386 bits=32 ;;
        pae) meta=linux-image-686-pae:i386 arch=i386 bits=32 ;;
        *) fail "no kernel is called $name: cloud, amd64, 686, pae, or drivers" ;;
    esac
    if [ ! -s "$dir/vmlinuz-$name" ] || [ ! -s "$dir/initrd-$bits.cpio.gz" ]; then
        if [ "$(dpkg --print-architecture)" != $arch ] && ! dpkg --print-foreign-architectures | grep -qx $arch; then
            dpkg --add-architecture $arch
            apt-get update -qq || true
        fi
        lists "$meta" && lists busybox-static:$arch || apt-get update -qq || true
    fi
    if [ ! -s "$dir/vmlinuz-$name" ]; then
        deb=$(download "$(behind "$meta")")
        dpkg-deb --fsys-tarfile "$deb" | tar -xO --wildcards './boot/vmlinuz-*' > "$work/vmlinuz"
        [ -s "$work/vmlinuz" ] || fail "the package behind $meta holds no kernel"
        mv "$work/vmlinuz" "$dir/vmlinuz-$name"
    fi
    if [ ! -s "$dir/initrd-$bits.cpio.gz" ]; then
        deb=$(download busybox-static:$arch)
        dpkg-deb -x "$deb" "$work/busybox-$bits"
        busybox=$(find "$work/busybox-$bits" -path '*bin/busybox' -type f)
        sh "$here/mkinitramfs.sh" "$dir/initrd-$bits.cpio.gz" "$busybox"
    fi
done
