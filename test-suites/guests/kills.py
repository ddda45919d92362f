#!/usr/bin/env python3
"""kills.py UMBRA [--kills N] [--format raw|qcow2] [--interface ide|ahci] [--seed S]

Runs the guest flushlog (flushlog.asm) on one disk image again and again and kills Umbra with SIGKILL at a random moment.
After each kill every record that the guest had named as flushed must be in the image, and the guest goes on behind them.
A qcow2 image must pass `qemu-img check` without errors (clusters that a killed process leaked are counted apart), and its
contents are read by `qemu-img convert`. Then a full host disk: the guest gets an I/O error, the user a sentence.
Needs nasm; qemu-utils for qcow2; root for the full disk (a small tmpfs).
"""
import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

RECORD = 4096
HERE = os.path.dirname(os.path.abspath(__file__))


def fail(text):
    sys.exit(f"kills.py: {text}")


def holds(image, number):
    image.seek(number * RECORD)
    return image.read(RECORD) == struct.pack("<I", number) * (RECORD // 4)


def check(path, last, qcow2, work):
    """Whether records 1 to `last` are there. Gives whether clusters leaked."""
    leaked = False
    if qcow2:
        status = subprocess.run(["qemu-img", "check", "-q", path], capture_output=True).returncode
        if status not in (0, 3):
            fail(f"qemu-img check gives {status}")
        leaked = status == 3
        raw = os.path.join(work, "raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
        path = raw
    with open(path, "rb") as image:
        for number in range(1, last + 1):
            if not holds(image, number):
                fail(f"record {number} of {last} was flushed and is not there")
    return leaked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("umbra")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--format", default="raw", choices=["raw", "qcow2"])
    parser.add_argument("--interface", default="ide", choices=["ide", "ahci"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as work:
        rom = os.path.join(work, "flushlog.bin")
        define = ["-D", "AHCI"] if options.interface == "ahci" else []
        subprocess.run(["nasm", "-f", "bin", *define, "-o", rom, os.path.join(HERE, "flushlog.asm")], check=True)
        disk = os.path.join(work, "disk")
        qcow2 = options.format == "qcow2"
        if qcow2:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
        else:
            with open(disk, "wb") as image:
                image.truncate(1 << 30)
        command = [options.umbra, "run", "--headless", "--bios", rom, "-m", "4M", "--serial"]
        last, leaks, busy = 0, 0, 0
        for kill in range(options.kills):
            log = os.path.join(work, "log")
            machine = subprocess.Popen(
                command + [f"file:{log}", "--disk", f"{disk},if={options.interface},format={options.format}"],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(rng.uniform(0.1, 1.2))
            machine.kill()
            said = machine.communicate()[1].decode()
            if machine.returncode != -9:
                fail(f"Umbra ended by itself with {machine.returncode}: {said}")
            text = open(log).read() if os.path.exists(log) else ""
            # The last line may be cut off.
            numbers = [int(line, 16) for line in text.split("\n")[:-1]]
            if "ERROR" in text or numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
                fail(f"the guest says {text[-200:]!r}")
            if numbers:
                busy += 1
                if numbers[0] <= last:
                    fail(f"the guest begins at {numbers[0]} though {last} was flushed")
                last = numbers[-1]
            leaks += check(disk, last, qcow2, work)
        print(f"{options.interface}, {options.format}: {options.kills} kills, {busy} of them under load, {last} records flushed, none lost"
              + (f", {leaks} times leaked clusters" if qcow2 else ""))
        if os.geteuid() == 0:
            full(options, command, work, qcow2)


def full(options, command, work, qcow2):
    """A host disk without room."""
    small = os.path.join(work, "small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", small], check=True)
    try:
        disk = os.path.join(small, "disk")
        if qcow2:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
        else:
            with open(disk, "wb") as image:
                image.truncate(1 << 30)
        log = os.path.join(work, "full")
        machine = subprocess.run(
            command + [f"file:{log}", "--disk", f"{disk},if={options.interface},format={options.format}", "--timeout", "120s"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        text, said = open(log).read(), machine.stderr.decode()
        if not text.endswith("ERROR\n") or machine.returncode != 3:
            fail(f"full disk: status {machine.returncode}, the guest says {text[-60:]!r}, Umbra {said!r}")
        sentences = [line for line in said.splitlines() if "failed" in line and "; try " in line]
        if len(sentences) < 1:
            fail(f"full disk: Umbra says {said!r}")
        print(f"{options.interface}, {options.format}: full host disk after {text.count(chr(10)) - 1} records: the guest got an error, the user:\n  {sentences[0]}")
    finally:
        subprocess.run(["umount", small], check=True)


main()
