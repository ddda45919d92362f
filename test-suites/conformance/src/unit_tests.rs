//! `unittests.cfg`: the list of a folder of kvm-unit-tests kernels, with the arguments and the machine that each wants.
//!
//! ```text
//! [name]
//! file = kernel.flat      smp = 2      timeout = 30      arch = x86_64      groups = …
//! extra_params = -cpu max -m 512 -append 'arguments'      (also: test_args = 'arguments', qemu_params = …)
//! ```
//!
//! Of the options for the emulator, those that Umbra has are taken over; a test that needs another is left out, with the
//! option as the reason. Left out: `check` and `accel` (they ask about a host with hardware virtualisation), variables of a shell.

use crate::error::{FormatError, Position};
use crate::shell;
use std::path::Path;
use std::time::Duration;

/// One test of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitTest {
    /// Its name.
    pub name: String,
    /// The kernel's file, beside the list.
    pub file: String,
    /// Processors.
    pub cpus: Option<u32>,
    /// The kernel's arguments.
    pub arguments: String,
    /// Guest memory, as `-m` of Umbra takes it.
    pub memory: Option<String>,
    /// Its time limit.
    pub timeout: Option<Duration>,
    /// Why it is not run.
    pub skip: Option<String>,
}

/// Options of the emulator that change nothing for us (with a value, or without one).
const WITHOUT_EFFECT: [&str; 4] = ["-machine", "-M", "-overcommit", "-accel"];
/// Models that Umbra's `max` stands for.
const MODELS: [&str; 7] = ["max", "host", "qemu64", "qemu32", "kvm64", "IvyBridge", "Opteron_G1"];

/// Reads a list.
pub fn parse(file: &Path, text: &str) -> Result<Vec<UnitTest>, FormatError> {
    let mut tests: Vec<UnitTest> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = Position::Line(number as u64 + 1);
        let bad = |what: String| FormatError::new(file, at, what);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name
                .strip_suffix(']')
                .filter(|n| !n.is_empty())
                .ok_or_else(|| bad("a test begins with [name]".into()))?;
            tests.push(UnitTest { name: name.to_owned(), ..UnitTest::default() });
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .map(|(k, v)| (k.trim(), v.trim()))
            .ok_or_else(|| bad(format!("\"{line}\" is neither [name] nor key = value")))?;
        let test = tests.last_mut().ok_or_else(|| bad(format!("\"{key}\" stands before the first [name]")))?;
        set(test, key, value).map_err(bad)?;
    }
    if let Some(test) = tests.iter().find(|test| test.file.is_empty()) {
        return Err(FormatError::new(file, Position::Whole, format!("the test [{}] has no \"file =\"", test.name)));
    }
    Ok(tests)
}

fn set(test: &mut UnitTest, key: &str, value: &str) -> Result<(), String> {
    let words = |text: &str| shell::split(text).ok_or_else(|| format!("{key}: a quote has no end"));
    match key {
        "file" if value.contains('/') => return Err(format!("file: {value} does not lie beside the list")),
        "file" => value.clone_into(&mut test.file),
        // A variable of the shell that runs the list elsewhere.
        "smp" if value.starts_with('$') => test.cpus = Some(4),
        "smp" => {
            // "2,sockets=2" names the topology too.
            let count = value.split(',').next().unwrap_or(value);
            test.cpus = Some(count.parse().map_err(|_| format!("smp: \"{value}\" is no number"))?);
        }
        "timeout" => test.timeout = Some(seconds(value).ok_or_else(|| format!("timeout: \"{value}\" is no time"))?),
        "arch" if !matches!(value, "x86_64" | "i386") => test.skip = Some(format!("for {value}, not for x86")),
        "groups" if value.split_whitespace().any(|group| group == "nodefault") => {
            test.skip = Some("the list leaves it out by default (nodefault)".into());
        }
        "test_args" => test.arguments = words(value)?.join(" "),
        "extra_params" | "qemu_params" => options(test, words(value)?),
        // What else the list may say asks about the host.
        _ => {}
    }
    Ok(())
}

fn options(test: &mut UnitTest, words: Vec<String>) {
    let mut words = words.into_iter();
    while let Some(option) = words.next() {
        // Options may be written with two hyphens as well.
        let name = option.strip_prefix('-').filter(|o| o.starts_with('-')).unwrap_or(&option);
        match name {
            "-append" => match words.next() {
                Some(text) if text.contains('`') || text.contains("$(") => {
                    test.skip = Some(format!("its arguments come from a shell: {text}"));
                }
                text => test.arguments = text.unwrap_or_default(),
            },
            "-m" => {
                let size = words.next().unwrap_or_default();
                // Plain digits are MiB there.
                test.memory =
                    Some(if size.ends_with(|c: char| c.is_ascii_digit()) { format!("{size}M") } else { size });
            }
            "-smp" => test.cpus = words.next().and_then(|n| n.split(',').next()?.parse().ok()).or(test.cpus),
            "-cpu" => {
                let model = words.next().unwrap_or_default();
                let mut parts = model.split(',');
                let known = parts.next().is_some_and(|name| MODELS.contains(&name));
                let wants = parts
                    .find(|part| ["+vmx", "+svm", "vendor=GenuineIntel"].contains(part) || part.starts_with("hv_"));
                if let (true, Some(feature)) = (known, wants) {
                    test.skip = Some(format!("needs a processor with {feature}"));
                } else if !known {
                    test.skip = Some(format!("needs the processor model {model}"));
                }
            }
            other if WITHOUT_EFFECT.contains(&other) => drop(words.next()),
            other => {
                test.skip = Some(format!("needs the emulator's option {other}"));
                return;
            }
        }
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> UnitTest {
        let tests = parse(Path::new("unittests.cfg"), &format!("# list\n\n[t]\nfile = t.flat\n{text}\n")).unwrap();
        tests.into_iter().next().unwrap()
    }

    #[test]
    fn entries() {
        let test = one("smp = 2\nextra_params = -cpu max -m 512 -append 'a \"b\" c'\ntimeout = 90\narch = x86_64");
        let wanted = UnitTest {
            name: "t".into(),
            file: "t.flat".into(),
            cpus: Some(2),
            arguments: "a \"b\" c".into(),
            memory: Some("512M".into()),
            timeout: Some(Duration::from_secs(90)),
            skip: None,
        };
        assert_eq!(test, wanted);
        assert_eq!(one("test_args = 'x y' z").arguments, "x y z");
        assert_eq!(one("extra_params = --append ipi -m 2g").memory.as_deref(), Some("2g"));
        #[rustfmt::skip]
        let skipped = [
            ("arch = arm64", "for arm64"), ("groups = a nodefault", "nodefault"), ("extra_params = -device edu", "-device"),
            ("extra_params = -cpu max,+vmx", "+vmx"), ("extra_params = -cpu Broken", "Broken"),
            ("extra_params = -append \"1 `date +%s`\"", "from a shell"),
        ];
        for (text, reason) in skipped {
            assert!(one(text).skip.unwrap().contains(reason), "{text}");
        }
        assert_eq!(one("extra_params = -machine vmport=on").skip, None);
    }

    #[test]
    fn bad_lists_name_their_line() {
        #[rustfmt::skip]
        let table = [
            ("smp = 2", "cfg:1: \"smp\" stands before"), ("[a]\nfile = a\nsmp = two", "cfg:3: smp"), ("[a\n", "cfg:1: a test begins"),
            ("[a]\nnonsense", "cfg:2: \"nonsense\""), ("[a]\nsmp = 1", "[a] has no \"file"), ("[a]\nfile = ../a", "cfg:2: file"),
            ("[a]\nfile = a\nextra_params = 'x", "cfg:3: extra_params: a quote"), ("[a]\ntimeout = soon", "cfg:2: timeout"),
        ];
        for (text, wanted) in table {
            let error = parse(Path::new("cfg"), text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
