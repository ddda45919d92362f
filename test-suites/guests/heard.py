#!/usr/bin/env python3
"""heard.py FILE.wav: looks at what play.c let be heard: a triangle at the full rate sample for sample, one at 44,100 frames a
second by its length and frequency, a beep by its frequency."""
import struct
import sys
import wave

RATE = 48000
# What play.c plays: whole periods of 1024 frames, almost a second each.
FIRST = 48000 // 1024 * 1024
SECOND = 44100 // 1024 * 1024 * RATE / 44100


def parts(frames, pause):
    """Spans of sound between pauses of so many silent frames: (first, end)."""
    spans, begin, quiet = [], None, 0
    for number, frame in enumerate(frames):
        if frame == (0, 0):
            quiet += 1
            if begin is not None and quiet == pause:
                spans.append((begin, number + 1 - pause))
                begin = None
        else:
            if begin is None:
                begin = number
            quiet = 0
    if begin is not None:
        spans.append((begin, len(frames) - quiet))
    return spans


def hertz(frames):
    """By the first and the last step from below to above zero; what is near it does not count."""
    steps, below = [], False
    for number, (left, _) in enumerate(frames):
        if left < -500:
            below = True
        elif left > 500:
            if below:
                steps.append(number)
            below = False
    return RATE * (len(steps) - 1) / (steps[-1] - steps[0])


def expect(what, value, low, high):
    print(f"{what}: {value:.1f}")
    if not low <= value <= high:
        sys.exit(f"{what} is {value}, not in {low} to {high}")


with wave.open(sys.argv[1]) as wav:
    if (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) != (2, 2, RATE):
        sys.exit("not two channels of 16 bits at 48,000 frames a second")
    data = wav.readframes(wav.getnframes())
    if len(data) != 4 * wav.getnframes():
        sys.exit("the file is shorter than it says")
heard = [frame for frame in struct.iter_unpack("<hh", data)]
spans = parts(heard, RATE // 50)
print("sounds at", ", ".join(f"{a / RATE:.3f}-{b / RATE:.3f} s" for a, b in spans))
if len(spans) < 3:
    sys.exit("there are fewer than three sounds")
first, second, beep = [heard[a:b] for a, b in spans[-3:]]


def triangle(number):
    place = number % 48
    left = int(((place if place < 24 else 48 - place) * 4 - 48) * 8000 / 48)
    return left, -left


if first[:FIRST] != [triangle(number) for number in range(FIRST)]:
    wrong = next((n for n in range(FIRST) if first[n:n + 1] != [triangle(n)]), None)
    sys.exit(f"the first sound is not what was played, from frame {wrong} on: {first[wrong:wrong + 4]}")
# The last frame is held until the driver stops the channel.
expect("frames of the first sound", len(first), FIRST, FIRST + RATE / 50)
expect("frames of the second sound", len(second), SECOND - 1, SECOND + RATE / 50)
expect("its frequency", hertz(second), 440.5, 441.5)
steady = beep[RATE // 20:RATE // 4]
expect("the beep's length in frames", len(beep), 0.28 * RATE, 0.5 * RATE)
expect("its frequency", hertz(steady), 877, 883)
