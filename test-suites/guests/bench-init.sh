#!/bin/sh
# The first process of the bench's guest. Kernel command line: gb=WORDS (commas for spaces) are guestbench's arguments; gb=none
# boots only.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2> /dev/null
mount -t tmpfs tmp /tmp
exec < /dev/console > /dev/console 2>&1
read -r up rest < /proc/uptime
echo "BOOT-OK $up"
args=
for word in $(cat /proc/cmdline); do
    case $word in
        gb=*) args=$(echo "${word#gb=}" | sed 's/,/ /g') ;;
    esac
done
if [ "$args" != none ]; then
    echo "# kernel $(uname -rm) clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
    # shellcheck disable=SC2086 # words
    /bench/guestbench $args
fi
echo ALL-DONE
sleep 0.3
poweroff -f
