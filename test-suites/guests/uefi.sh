#!/bin/sh
# uefi.sh UMBRA FOLDER: OVMF, as Debian's package ovmf has it, in both engines: to the UEFI shell by its serial console, a
# variable that a second start finds in the file of the flash memory, a picture on the display; and Debian's cloud kernel, from a
# FAT disk by the shell and as --kernel. Needs ovmf, and a kernel and initrd that fetch.sh has put into FOLDER (cloud).
set -eu
umbra=$1 folder=$2
work=$folder/uefi
ovmf=/usr/share/OVMF
rm -rf "$work"
mkdir -p "$work/esp"
log=$work/log.txt
cp "$folder/vmlinuz-cloud" "$work/esp/vmlinuz.efi"
cp "$folder/initrd-64.cpio.gz" "$work/esp/initrd.gz"

# run NAME TEXT OPTIONS...: the machine must power off or come to its --until, and TEXT be on the serial console.
run() {
    name=$1 text=$2
    shift 2
    status=0
    "$umbra" run --headless --timeout 120s "$@" > "$log" 2>&1 < /dev/null || status=$?
    # Without the terminal's control sequences and carriage returns.
    sed 's/\x1b\[[0-9;=]*[A-Za-z]//g; s/\r//g' "$log" > "$log.text"
    if [ $status -ne 0 ] || ! grep -qF -- "$text" "$log.text"; then
        cat "$log.text"
        echo "uefi.sh: $name: FAILED (status $status)"
        exit 1
    fi
    echo "$name: good"
}

# shell NAME TEXT COMMAND OPTIONS...: a command at the shell's prompt, then soft-off.
shell() {
    name=$1 text=$2 command=$3
    shift 3
    run "$name" "$text" "$@" --wait-text 'to skip' --type '\r' --wait-text 'Shell>' --type "$command\\r" \
        --wait-text 'Shell>' --type 'reset -s\r'
}

for engine in interp jit; do
    for size in '' _4M; do
        firmware="--engine $engine --bios $ovmf/OVMF_CODE$size.fd --flash-vars $work/vars$size-$engine.fd"
        # shellcheck disable=SC2086
        {
            shell "OVMF$size to its shell, $engine" 'UEFI v2.70 (EDK II' ver $firmware
            shell "sets a variable" 'Shell> set umbra kept' 'set umbra kept' $firmware
            shell "which is there at the next start" '   umbra = kept' 'set umbra' $firmware
        }
        cmp -s "$work/vars$size-$engine.fd" "$ovmf/OVMF_VARS$size.fd" && { echo "uefi.sh: nothing was written"; exit 1; }
    done
    whole="--engine $engine --bios /usr/share/ovmf/OVMF.fd"
    # shellcheck disable=SC2086
    {
        shell "OVMF.fd, which keeps nothing, $engine" 'its variables are forgotten at the end' 'map -r' $whole
        run "and again after a reset" 'UEFI Interactive Shell' $whole --wait-text 'to skip' --type '\r' --wait-text 'Shell>' \
            --type 'reset\r' --wait-text 'to skip' --type '\r' --wait-text 'Shell>' --type 'reset -s\r'
        run "its picture, $engine" 'UEFI Interactive Shell' $whole --until 'Shell>' --screenshot "$work/$engine.png"
        run "Debian's kernel by the shell on two CPUs, $engine" BOOT-OK $whole -m 512M --cpus 2 --disk "$work/esp" \
            --wait-text 'to skip' --type '\r' --wait-text 'Shell>' \
            --type 'fs0:\\vmlinuz.efi initrd=\\initrd.gz console=ttyS0 quiet panic=-1\r' --until BOOT-OK
        run "Debian's kernel as --kernel, $engine" 'EFI v2.7' $whole -m 512M --kernel "$folder/vmlinuz-cloud" \
            --initrd "$folder/initrd-64.cpio.gz" --append 'console=ttyS0 panic=-1' --until BOOT-OK
    }
    # A whole picture of 1280 × 800 in which something is drawn is not as small as an empty one.
    [ "$(head -c 24 "$work/$engine.png" | tail -c 8 | od -An -tx1 | tr -d ' ')" = 0000050000000320 ] \
        && [ "$(wc -c < "$work/$engine.png")" -gt 2000 ] || { echo "uefi.sh: no picture"; exit 1; }
done
echo "uefi.sh: all good"
