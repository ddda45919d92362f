#!/usr/bin/env python3
"""inspector-cost.py UMBRA DIR [ROUNDS]

What an open inspector costs: the processor's cycles that Umbra takes for a boot of the kernel that `umbra bench --guests DIR` brought
to DIR and some of guestbench, headless, in turns: closed; with --control and somebody who asks four times a second; and on a terminal,
with the panel closed, and open on each of its pages. Medians of ROUNDS (5). Fails if one costs more than 5 %. Instructions are shown
beside them, which are the same to a hundredth from run to run: on a crowded host cycles differ by a third. Where `perf` cannot count,
CPU seconds are all there is.
"""
import json
import os
import pty
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import fcntl

WORDS = "-m,-s,0.5,os.pipe,os.fork,os.mmap,mem.pages,int.sieve"
MOST = 5.0
EVENTS = "instructions,cycles"
PAGES = {"address": b"", "faults": b"\t", "heat": b"\t\t"}


def can_count():
    """Whether `perf` can count here."""
    try:
        counted = subprocess.run(["perf", "stat", "-x,", "-e", EVENTS, "true"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return counted.stderr.split(",")[0].isdigit()


COUNTS = can_count()


def command(umbra, folder, options, counts):
    count = ["perf", "stat", "-x,", "-e", EVENTS, "-o", counts, "--"] if COUNTS else []
    return [*count, umbra, "run", "-m", "256M", "--timeout", "600s", "--kernel", f"{folder}/kernels/vmlinuz-cloud",
            "--initrd", f"{folder}/img/initrd64.cpio.gz", "--append", f"console=ttyS0 quiet panic=-1 gb={WORDS}", *options]


def ended(process, name, log, counts):
    """The 10⁹ instructions and cycles, or the CPU seconds, of a process that has come to its good end."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(log, "rb") as file:
        text = file.read()
    if process.returncode != 0 or b"ALL-DONE" not in text:
        sys.exit(f"inspector-cost.py: {name}: status {process.returncode}: {text[-500:].decode(errors='replace')}")
    if not COUNTS:
        return [used.ru_utime + used.ru_stime]
    with open(counts, encoding="utf-8") as file:
        return [int(line.split(",")[0]) / 1e9 for line in file if line[0].isdigit()]


def ask(path, questions, stop, answers):
    """Asks four times a second, one thing after another."""
    while not stop.wait(0.25):
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(30)
                peer.connect(path)
                peer.sendall(json.dumps(questions[len(answers) % len(questions)]).encode() + b"\n")
                answer = b""
                while part := peer.recv(1 << 16):
                    answer += part
                answers.append("Ok" in json.loads(answer or b"{}"))
        except OSError:
            continue


def headless(umbra, folder, work, is_asked):
    log, path, counts = (os.path.join(work, name) for name in ("log", "socket", "counts"))
    options = ["--headless"] + (["--control", path] if is_asked else [])
    with open(log, "wb") as out:
        process = subprocess.Popen(command(umbra, folder, options, counts), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    stop, answers = threading.Event(), []
    kinds = [{"what": "roots"}, {"what": "fault"}, {"what": "address", "at": [0xFFFFFFFF81000000]}, {"what": "heat"}]
    asker = threading.Thread(target=ask, args=(path, kinds, stop, answers))
    if is_asked:
        asker.start()
    cost = ended(process, "headless", log, counts)
    stop.set()
    if is_asked:
        asker.join()
        if sum(answers) < 8:
            sys.exit(f"inspector-cost.py: {sum(answers)} answers are too few")
    return cost


def on_terminal(umbra, folder, work, keys):
    """As headless, but on a pseudo-terminal of 100 × 50; `keys` open the panel and turn its pages."""
    log, counts = os.path.join(work, "log"), os.path.join(work, "counts")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    options = ["--display", "terminal", "--serial", f"file:{log}"]
    words = command(umbra, folder, options, counts)
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    seen = bytearray()

    def drain():
        try:
            while part := os.read(master, 1 << 16):
                seen.extend(part)
        except OSError:
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(0.5)
    if keys is not None:
        os.write(master, b"\x01i" + keys)
    cost = ended(process, "terminal", log, counts)
    reader.join(5)
    os.close(master)
    if (keys is not None) != (b"inspector" in seen):
        sys.exit("inspector-cost.py: the panel is not as it should be")
    return cost


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    umbra, folder = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) == 4 else 5
    kinds = {
        "closed": lambda work: headless(umbra, folder, work, False),
        "asked 4 times a second": lambda work: headless(umbra, folder, work, True),
        "terminal": lambda work: on_terminal(umbra, folder, work, None),
    }
    for page, keys in PAGES.items():
        kinds[f"terminal, {page}"] = lambda work, keys=keys: on_terminal(umbra, folder, work, keys)
    spent = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as work:
        for _ in range(rounds):
            for name, run in kinds.items():
                spent[name].append(run(work))
    wrong = []
    for name, times in spent.items():
        closed = spent["terminal" if name.startswith("terminal") else "closed"]
        units = ("G instructions", "G cycles") if COUNTS else ("s",)
        for number, (unit, some, base) in enumerate(zip(units, zip(*times), zip(*closed))):
            cost = 100 * (statistics.median(some) / statistics.median(base) - 1)
            label, all_ = name if number == 0 else "", " ".join(f"{t:.2f}" for t in some)
            print(f"{label:<26}{statistics.median(some):8.2f} {unit:<14}{cost:+8.1f} %   {all_}")
            if unit != "G instructions" and cost > MOST:
                wrong.append(f"{name} costs {cost:.1f} %")
    if wrong:
        sys.exit("inspector-cost.py: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
