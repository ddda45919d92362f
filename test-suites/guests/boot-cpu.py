#!/usr/bin/env python3
"""boot-cpu.py UMBRA IMAGE [--interface ide|ahci] [--format raw|qcow2] [--pairs N] [--engine E]

Boots a disk image (debian.img of debian-disk.sh) through its own boot loader to the login on the serial port and prints the
processor time that this took, in Umbra and in QEMU's TCG in turns; then the medians and their ratio. The image stays as it is.
Needs qemu-system-x86.
"""
import argparse
import os
import statistics
import subprocess

LOGIN = b"login: "


def run(command):
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = b""
    while LOGIN not in said:
        part = os.read(machine.stdout.fileno(), 4096)
        if not part:
            raise SystemExit(f"{command[0]}: no login\n{said[-2000:].decode(errors='replace')}")
        said += part
    machine.kill()
    _, _, used = os.wait4(machine.pid, 0)
    return used.ru_utime + used.ru_stime


parser = argparse.ArgumentParser()
parser.add_argument("umbra")
parser.add_argument("image")
parser.add_argument("--interface", default="ide", choices=["ide", "ahci"])
parser.add_argument("--format", default="raw", choices=["raw", "qcow2"])
parser.add_argument("--pairs", type=int, default=5)
parser.add_argument("--engine", default=None)
options = parser.parse_args()

umbra = [options.umbra, "run", "--headless", "-m", "512M", "--timeout", "900s",
         "--disk", f"{options.image},if={options.interface},format={options.format},snapshot"]
if options.engine:
    umbra += ["--engine", options.engine]
qemu = ["qemu-system-x86_64", "-accel", "tcg", "-m", "512", "-nographic", "-no-reboot", "-snapshot"]
if options.interface == "ide":
    qemu += ["-drive", f"file={options.image},format={options.format},if=ide"]
else:
    qemu += ["-device", "ahci,id=ahci", "-drive", f"file={options.image},format={options.format},if=none,id=d",
             "-device", "ide-hd,drive=d,bus=ahci.0"]
times = {"umbra": [], "qemu": []}
for pair in range(options.pairs):
    for name, command in (("umbra", umbra), ("qemu", qemu)):
        times[name].append(run(command))
        print(f"{options.interface} {name}: {times[name][-1]:.1f} s of CPU", flush=True)
ours, theirs = statistics.median(times["umbra"]), statistics.median(times["qemu"])
print(f"{options.interface}, {options.format}: {ours:.1f} s of CPU against {theirs:.1f}: {ours / theirs:.2f} x QEMU's")
