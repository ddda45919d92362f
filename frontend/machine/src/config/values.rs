//! Values that a machine file and the command line write as text: sizes, times, dates, serial ports, disks, sound.
//!
//! Each has `FromStr` and `Display`, and reads and writes itself as that text. An error is one sentence with an example.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;
use umbra_mmu::FrameOrder;

/// A text that is not a value of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is not {kind}; try {example}")]
pub struct ValueError {
    /// What was written.
    pub text: String,
    /// What it should be.
    pub kind: &'static str,
    /// A good one.
    pub example: &'static str,
}

fn error(text: &str, kind: &'static str, example: &'static str) -> ValueError {
    ValueError { text: text.to_owned(), kind, example }
}

macro_rules! as_text {
    ($($name:ty),*) => { $(
        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )* };
}
as_text!(Size, Span, RtcDate, SerialTarget, FrameOrderChoice, BootOrder);

/// A number of bytes: `512M`, `1G`, `64K`, `4096`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Size {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Size, ValueError> {
        let bad = || error(text, "a size", "a size such as 512M or 2G");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().map_err(|_| bad())?;
        let unit = text[digits.len()..].to_ascii_uppercase();
        let unit = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
        let shift = match unit {
            "" => 0,
            unit => UNITS.iter().find(|(name, _)| unit == name.to_string()).ok_or_else(bad)?.1,
        };
        number.checked_mul(1 << shift).map(Size).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|&&(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some(&(name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A length of time: `60s`, `1500ms`, `5m`, `1h`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Span, ValueError> {
        let bad = || error(text, "a length of time", "a time such as 60s, 500ms or 5m");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().map_err(|_| bad())?;
        let milliseconds = match &text[digits.len()..] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        number.checked_mul(milliseconds).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(bad)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds.is_multiple_of(1000) {
            true => write!(f, "{}s", milliseconds / 1000),
            false => write!(f, "{milliseconds}ms"),
        }
    }
}

/// The date of the real-time clock at power-on: `2026-01-01` or `2026-01-01T12:30:00`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RtcDate {
    /// Seconds since 1970-01-01T00:00:00.
    pub unix_seconds: u64,
}

impl RtcDate {
    /// 2026-01-01T00:00:00.
    pub const DEFAULT: RtcDate = RtcDate { unix_seconds: 1_767_225_600 };
    /// Year, month, day, hour, minute, second.
    pub fn fields(self) -> [i64; 6] {
        let (days, seconds) = (self.unix_seconds / 86_400, (self.unix_seconds % 86_400) as i64);
        let (year, month, day) = civil_from_days(days as i64);
        [year, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60]
    }
}

impl Default for RtcDate {
    fn default() -> RtcDate {
        RtcDate::DEFAULT
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (years count from March, so that leap days come last).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

impl FromStr for RtcDate {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<RtcDate, ValueError> {
        let bad = || error(text, "a date from 1980 to 2099", "2026-01-01 or 2026-01-01T12:30:00");
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
        let numbers = |text: &str, separator| -> Option<[i64; 3]> {
            let parts: Vec<&str> = text.split(separator).collect();
            let sound = parts.len() == 3 && parts.iter().all(|p| p.len() >= 2 && p.bytes().all(|b| b.is_ascii_digit()));
            let numbers: Vec<i64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
            numbers.try_into().ok().filter(|_| sound)
        };
        let [year, month, day] = numbers(date, '-').ok_or_else(bad)?;
        let [hour, minute, second] = numbers(time.trim_end_matches('Z'), ':').ok_or_else(bad)?;
        let in_range = (1980..2100).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !in_range {
            return Err(bad());
        }
        let days = days_from_civil(year, month, day);
        // The 31st of a short month does not come back as itself.
        if civil_from_days(days) != (year, month, day) {
            return Err(bad());
        }
        Ok(RtcDate { unix_seconds: (days * 86_400 + hour * 3600 + minute * 60 + second) as u64 })
    }
}

impl fmt::Display for RtcDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day, hour, minute, second] = self.fields();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// Where a serial port leads: `stdio`, `file:PATH`, `pty` or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SerialTarget {
    /// The terminal that Umbra runs in.
    Stdio,
    /// A file that gets what the guest sends.
    File(PathBuf),
    /// A new pseudo-terminal.
    Pty,
    /// Nothing is connected.
    None,
}

impl FromStr for SerialTarget {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<SerialTarget, ValueError> {
        match text {
            "stdio" => Ok(SerialTarget::Stdio),
            "pty" => Ok(SerialTarget::Pty),
            "none" => Ok(SerialTarget::None),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(SerialTarget::File(PathBuf::from(path))),
                _ => Err(error(text, "a serial port's target", "stdio, file:PATH, pty or none")),
            },
        }
    }
}

impl fmt::Display for SerialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SerialTarget::Stdio => f.write_str("stdio"),
            SerialTarget::File(path) => write!(f, "file:{}", path.display()),
            SerialTarget::Pty => f.write_str("pty"),
            SerialTarget::None => f.write_str("none"),
        }
    }
}

/// In which order guest pages get host frames: `identity`, `permuted` or `permuted:SEED`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FrameOrderChoice {
    /// Ascending.
    #[default]
    Identity,
    /// Scattered by the machine's seed.
    Permuted,
    /// Scattered by a seed of its own.
    PermutedBy(u64),
}

impl FrameOrderChoice {
    /// The order, in a machine with this seed.
    pub fn with_seed(self, seed: u64) -> FrameOrder {
        match self {
            FrameOrderChoice::Identity => FrameOrder::Identity,
            FrameOrderChoice::Permuted => FrameOrder::Permuted { seed },
            FrameOrderChoice::PermutedBy(seed) => FrameOrder::Permuted { seed },
        }
    }
}

impl From<FrameOrder> for FrameOrderChoice {
    fn from(order: FrameOrder) -> FrameOrderChoice {
        match order {
            FrameOrder::Identity => FrameOrderChoice::Identity,
            FrameOrder::Permuted { seed } => FrameOrderChoice::PermutedBy(seed),
        }
    }
}

impl FromStr for FrameOrderChoice {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<FrameOrderChoice, ValueError> {
        let bad = || error(text, "an order of frames", "identity, permuted or permuted:7");
        match (text, text.strip_prefix("permuted:")) {
            ("identity", _) => Ok(FrameOrderChoice::Identity),
            ("permuted", _) => Ok(FrameOrderChoice::Permuted),
            (_, Some(seed)) => seed.parse().map(FrameOrderChoice::PermutedBy).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for FrameOrderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameOrderChoice::Identity => f.write_str("identity"),
            FrameOrderChoice::Permuted => f.write_str("permuted"),
            FrameOrderChoice::PermutedBy(seed) => write!(f, "permuted:{seed}"),
        }
    }
}

/// What firmware can start a system from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BootFrom {
    /// A floppy disk.
    Floppy,
    /// A CD-ROM.
    Cdrom,
    /// A disk, on whatever controller.
    Disk,
}

/// What firmware tries first: `cdrom,disk,floppy`, or only some of these, the others then follow; with `menu`, alone or among
/// them, our BIOS asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootOrder {
    /// Kinds of drives, first things first.
    pub first: Vec<BootFrom>,
    /// Whether the boot menu comes up at once.
    pub menu: bool,
}

const BOOT_NAMES: [(&str, BootFrom); 3] =
    [("floppy", BootFrom::Floppy), ("cdrom", BootFrom::Cdrom), ("disk", BootFrom::Disk)];

impl BootOrder {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == BootOrder::default()
    }
    /// Where a kind of drive comes; those that are not named are last, and equal.
    pub fn rank(&self, kind: BootFrom) -> usize {
        self.first.iter().position(|&first| first == kind).unwrap_or(self.first.len())
    }
}

impl FromStr for BootOrder {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<BootOrder, ValueError> {
        let bad = || error(text, "a boot order", "cdrom,disk,floppy, one of these, or menu");
        let mut order = BootOrder::default();
        for part in text.split(',') {
            let kind = BOOT_NAMES.iter().find(|(name, _)| *name == part).map(|&(_, kind)| kind);
            match kind {
                Some(kind) if !order.first.contains(&kind) => order.first.push(kind),
                None if part == "menu" && !order.menu => order.menu = true,
                _ => return Err(bad()),
            }
        }
        Ok(order)
    }
}

impl fmt::Display for BootOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.first.iter().filter_map(|kind| BOOT_NAMES.iter().find(|(_, known)| known == kind));
        let names: Vec<&str> = self.menu.then_some("menu").into_iter().chain(names.map(|(name, _)| *name)).collect();
        f.write_str(&names.join(","))
    }
}

/// How a disk is connected.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskInterface {
    /// The IDE controller of the PIIX3.
    #[default]
    Ide,
    /// An AHCI controller.
    Ahci,
    /// A virtio block device.
    Virtio,
}

/// What is in a disk's file.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// Look at the file.
    #[default]
    Auto,
    /// The disk's bytes.
    Raw,
    /// A qcow2 image.
    Qcow2,
}

/// What the guest's writes do.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskAccess {
    /// They go to the file.
    #[default]
    ReadWrite,
    /// They fail.
    ReadOnly,
    /// They are forgotten at the end.
    Snapshot,
}

/// A disk: `FILE[,if=ide|ahci|virtio][,format=raw|qcow2][,snapshot][,ro]` on the command line, a table in a machine file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskConfig {
    /// The image.
    pub file: PathBuf,
    /// How it is connected.
    #[serde(default)]
    pub interface: DiskInterface,
    /// What is in the file.
    #[serde(default)]
    pub format: DiskFormat,
    /// What writes do.
    #[serde(default)]
    pub access: DiskAccess,
}

impl FromStr for DiskConfig {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<DiskConfig, ValueError> {
        let bad = || error(text, "a disk", "FILE[,if=ide|ahci|virtio][,format=raw|qcow2][,snapshot][,ro]");
        let mut parts = text.split(',');
        let file = parts.next().filter(|file| !file.is_empty()).ok_or_else(bad)?;
        let mut disk = DiskConfig {
            file: PathBuf::from(file),
            interface: DiskInterface::default(),
            format: DiskFormat::default(),
            access: DiskAccess::default(),
        };
        for part in parts {
            match part {
                "if=ide" => disk.interface = DiskInterface::Ide,
                "if=ahci" => disk.interface = DiskInterface::Ahci,
                "if=virtio" => disk.interface = DiskInterface::Virtio,
                "format=raw" => disk.format = DiskFormat::Raw,
                "format=qcow2" => disk.format = DiskFormat::Qcow2,
                "snapshot" => disk.access = DiskAccess::Snapshot,
                "ro" => disk.access = DiskAccess::ReadOnly,
                _ => return Err(bad()),
            }
        }
        Ok(disk)
    }
}

/// A sound card.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoundCard {
    /// There is none; the PC speaker is there all the same.
    #[default]
    None,
    /// An AC'97 controller.
    Ac97,
}

/// What is heard: `none`, `ac97`, `wav=FILE` (of the PC speaker alone) or `ac97,wav=FILE` on the command line, a table in a
/// machine file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SoundConfig {
    /// The card: `"none"` (default) or `"ac97"`.
    pub card: SoundCard,
    /// The file that everything is recorded in, PC speaker included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wav: Option<PathBuf>,
}

impl SoundConfig {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == SoundConfig::default()
    }
}

impl FromStr for SoundConfig {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<SoundConfig, ValueError> {
        let bad = || error(text, "a machine's sound", "none, ac97, wav=FILE or ac97,wav=FILE");
        let (card, rest) = match text.split_once(',') {
            _ if text.starts_with("wav=") => ("none", Some(text)),
            Some((card, rest)) => (card, Some(rest)),
            None => (text, None),
        };
        let card = match card {
            "none" => SoundCard::None,
            "ac97" => SoundCard::Ac97,
            _ => return Err(bad()),
        };
        let file = |text: &str| text.strip_prefix("wav=").filter(|file| !file.is_empty()).map(PathBuf::from);
        Ok(SoundConfig { card, wav: rest.map(|text| file(text).ok_or_else(bad)).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        #[rustfmt::skip]
        let good = [
            ("512M", 512 << 20, "512M"), ("1g", 1 << 30, "1G"), ("1024M", 1 << 30, "1G"), ("64KiB", 65536, "64K"),
            ("4097", 4097, "4097"), ("0", 0, "0"), ("2T", 2 << 40, "2T"), ("16MB", 16 << 20, "16M"),
        ];
        for (text, bytes, shown) in good {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
        }
        for text in ["", "M", "12Q", "-1M", "1.5G", "99999999999T", "1 M", "0x10", "12MM", "é"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, ms, shown) in
            [("60s", 60_000, "60s"), ("5m", 300_000, "300s"), ("1500ms", 1500, "1500ms"), ("7", 7000, "7s")]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_millis(), span.to_string().as_str()), (ms, shown));
        }
        for text in ["", "s", "5d", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn dates() {
        #[rustfmt::skip]
        let good = [
            ("2026-01-01", 1_767_225_600), ("2000-02-29T23:59:59", 951_868_799), ("1999-12-31 00:00:01", 946_598_401),
            ("2099-12-31T23:59:59Z", 4_102_444_799),
        ];
        for (text, seconds) in good {
            let date: RtcDate = text.parse().unwrap();
            assert_eq!(date.unix_seconds, seconds, "{text}");
            assert_eq!(date.to_string().parse(), Ok(date));
        }
        for text in
            ["", "2026", "2026-13-01", "2026-02-30", "1900-01-01", "2026-01-01T25:00:00", "2026-1-1", "+026-01-01"]
        {
            assert!(text.parse::<RtcDate>().is_err(), "{text}");
        }
    }

    #[test]
    fn boot_orders() {
        for text in ["floppy", "cdrom,disk,floppy", "menu", "menu,disk"] {
            assert_eq!(text.parse::<BootOrder>().unwrap().to_string(), text);
        }
        let order: BootOrder = "disk,menu".parse().unwrap();
        assert_eq!([BootFrom::Disk, BootFrom::Floppy, BootFrom::Cdrom].map(|kind| order.rank(kind)), [0, 1, 1]);
        for text in ["", "disk,", "disk,disk", "menu,menu", "network", "Disk", "c"] {
            assert!(text.parse::<BootOrder>().unwrap_err().to_string().contains("is not a boot order; try"), "{text}");
        }
    }

    #[test]
    fn sound() {
        let sound = |card, wav: Option<&str>| SoundConfig { card, wav: wav.map(PathBuf::from) };
        #[rustfmt::skip]
        let good = [
            ("none", sound(SoundCard::None, None)), ("ac97", sound(SoundCard::Ac97, None)),
            ("wav=a,b.wav", sound(SoundCard::None, Some("a,b.wav"))), ("none,wav=b", sound(SoundCard::None, Some("b"))),
            ("ac97,wav=c,d.wav", sound(SoundCard::Ac97, Some("c,d.wav"))),
        ];
        for (text, config) in good {
            assert_eq!(text.parse(), Ok(config), "{text}");
        }
        for text in ["", "sb16", "ac97,", "ac97,wav=", "wav=", "ac97,mp3=x", "AC97", ",wav=x"] {
            assert!(
                text.parse::<SoundConfig>().unwrap_err().to_string().contains("is not a machine's sound; try"),
                "{text}"
            );
        }
    }

    #[test]
    fn serial_ports_frames_and_disks() {
        for text in ["stdio", "pty", "none", "file:/tmp/x"] {
            assert_eq!(text.parse::<SerialTarget>().unwrap().to_string(), text);
        }
        for text in ["", "file:", "tcp:1", "STDIO"] {
            assert!(text.parse::<SerialTarget>().is_err(), "{text}");
        }
        for text in ["identity", "permuted", "permuted:18446744073709551615"] {
            assert_eq!(text.parse::<FrameOrderChoice>().unwrap().to_string(), text);
        }
        for text in ["", "random", "permuted:", "permuted:x", "permuted:-1", "identity:3"] {
            assert!(text.parse::<FrameOrderChoice>().is_err(), "{text}");
        }
        let disk: DiskConfig = "a.img,if=virtio,format=raw,ro".parse().unwrap();
        let expected = (DiskInterface::Virtio, DiskFormat::Raw, DiskAccess::ReadOnly);
        assert_eq!((disk.interface, disk.format, disk.access), expected);
        for text in ["", ",ro", "a,if=scsi", "a,b"] {
            assert!(text.parse::<DiskConfig>().is_err(), "{text}");
        }
    }
}
