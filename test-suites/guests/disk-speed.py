#!/usr/bin/env python3
"""disk-speed.py UMBRA KERNEL INITRD [--interface ide|ahci] [--pairs N] [--mib N] [--engine E]

Reads a raw disk image from beginning to end in a Linux guest (an initrd of storage-initrd.sh) and prints the megabytes a
second by the guest's own clock, in Umbra and in QEMU's TCG in turns, the image in the host's page cache; then the medians
and their ratio. Needs qemu-system-x86.
"""
import argparse
import re
import statistics
import subprocess
import tempfile


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
    text = done.stdout.decode(errors="replace")
    found = re.search(r"READ (\S+) (\S+)", text)
    if not found:
        raise SystemExit(f"{command[0]}: no result\n{text[-2000:]}\n{done.stderr.decode()[-500:]}")
    return float(found[2]) - float(found[1])


parser = argparse.ArgumentParser()
parser.add_argument("umbra")
parser.add_argument("kernel")
parser.add_argument("initrd")
parser.add_argument("--interface", default="ide", choices=["ide", "ahci"])
parser.add_argument("--pairs", type=int, default=5)
parser.add_argument("--mib", type=int, default=512)
parser.add_argument("--engine", default=None)
options = parser.parse_args()

with tempfile.NamedTemporaryFile() as image:
    block = bytes(range(256)) * 4096
    for _ in range(options.mib):
        image.write(block)
    image.flush()
    run_text = ("a=$(read,u,i</proc/uptime;echo,$u);dd,if=/dev/sda,of=/dev/null,bs=1M;"
                "b=$(read,u,i</proc/uptime;echo,$u);echo,READ,$a,$b")
    append = f"console=ttyS0 quiet panic=-1 wait=sda run={run_text}"
    start = ["-kernel", options.kernel, "-initrd", options.initrd, "-append", append]
    umbra = [options.umbra, "run", "--headless", "-m", "256M", "--timeout", "600s"] + ["-" + word if word in ("-kernel", "-initrd", "-append") else word for word in start]
    umbra += ["--disk", f"{image.name},if={options.interface},format=raw,ro"]
    if options.engine:
        umbra += ["--engine", options.engine]
    qemu = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nographic", "-no-reboot"] + start
    if options.interface == "ide":
        qemu += ["-drive", f"file={image.name},format=raw,if=ide,snapshot=on"]
    else:
        qemu += ["-device", "ahci,id=ahci", "-drive", f"file={image.name},format=raw,if=none,id=d,snapshot=on",
                 "-device", "ide-hd,drive=d,bus=ahci.0"]
    speeds = {"umbra": [], "qemu": []}
    for pair in range(options.pairs):
        for name, command in (("umbra", umbra), ("qemu", qemu)):
            speeds[name].append(options.mib / run(command))
            print(f"{options.interface} {name}: {speeds[name][-1]:.0f} MiB/s", flush=True)
    ours, theirs = statistics.median(speeds["umbra"]), statistics.median(speeds["qemu"])
    print(f"{options.interface}: {ours:.0f} MiB/s against {theirs:.0f}: {ours / theirs:.2f} x QEMU's")
