//! From files to tests of whole machines: ROM images, multiboot kernels, lists of kernels, machine files.
//!
//! What differs between the kinds is only which options of `umbra run` they become and where the verdict is read. Called by
//! the app for each file that `format` finds.

use crate::engine;
use crate::error::{FormatError, Position};
use crate::format::{self, Format, Found};
use crate::guest::GuestTest;
use crate::judge::{Expectations, VerdictBy};
use crate::unit_tests::{self, UnitTest};
use std::path::{Path, PathBuf};
use std::time::Duration;
use umbra_machine::config::{Clock, Engine, LEAST_MEMORY_LIMIT, MachineConfig, MemoryPolicy, OnCrash, SerialTarget};
use umbra_machine::roms::Rom;

/// Where a guest's text is read.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum TextFrom {
    /// The first serial port.
    #[default]
    Serial,
    /// A port that takes characters.
    Port(u16),
}

/// What the command line says about whole guests.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// The engine.
    pub engine: Engine,
    /// What is put behind suites' names, if several engines run.
    pub label: Option<String>,
    /// The processor's model.
    pub cpu: Option<String>,
    /// Guest memory.
    pub memory: Option<String>,
    /// How it is kept.
    pub policy: MemoryPolicy,
    /// The port on which a ROM reports its progress.
    pub post_port: Option<u16>,
    /// The value that it must hold at the end.
    pub expect: Option<u8>,
    /// Where the text comes from.
    pub text: TextFrom,
    /// The text, exactly.
    pub listing: Option<PathBuf>,
    /// Listings are written.
    pub bless: bool,
    /// A kernel's arguments.
    pub arguments: Option<String>,
    /// A kernel's environment.
    pub environment: Option<PathBuf>,
    /// What a triple fault does.
    pub on_crash: OnCrash,
    /// A limit of instructions.
    pub instructions: Option<u64>,
    /// A limit of wall time.
    pub timeout: Option<Duration>,
}

impl Default for GuestOptions {
    fn default() -> GuestOptions {
        GuestOptions {
            engine: Engine::Interp,
            label: None,
            cpu: None,
            memory: None,
            policy: MemoryPolicy::default(),
            post_port: None,
            expect: None,
            text: TextFrom::Serial,
            listing: None,
            bless: false,
            arguments: None,
            environment: None,
            on_crash: OnCrash::default(),
            instructions: None,
            timeout: None,
        }
    }
}

/// A test may take this long.
const TIMEOUT: Duration = Duration::from_secs(120);
/// A ROM or a kernel may retire this many instructions.
const INSTRUCTIONS: u64 = 10_000_000_000;
/// The memory of the machine for a ROM, and for a kernel.
const ROM_MEMORY: &str = "64M";
const KERNEL_MEMORY: &str = "128M";

/// The tests of one file.
pub fn tests(found: &Found, options: &GuestOptions) -> Result<Vec<GuestTest>, FormatError> {
    let path = found.path.as_path();
    match found.format {
        Format::Moo | Format::JsonLines => Ok(Vec::new()),
        Format::Rom => Ok(vec![rom_file(path, options)]),
        Format::Multiboot => {
            let unit = UnitTest { file: file_name(path), name: stem(path), ..UnitTest::default() };
            Ok(vec![kernel(path, unit, options)])
        }
        Format::UnitTests => {
            let text = read(path)?;
            let tests = unit_tests::parse(path, &text)?;
            Ok(tests.into_iter().map(|test| kernel(&path.with_file_name(&test.file), test, options)).collect())
        }
        Format::Guest => machine_file(path, options).map(|test| vec![test]),
    }
}

/// The test of a ROM that Umbra carries.
pub fn embedded(rom: &Rom, options: &GuestOptions) -> GuestTest {
    let mut test = rom_test(&format!("roms:{}", rom.name), options);
    test.suite = suite("roms", options);
    rom.name.clone_into(&mut test.name);
    rom.description.clone_into(&mut test.text);
    test
}

fn rom_file(path: &Path, options: &GuestOptions) -> GuestTest {
    let mut test = rom_test(&path.to_string_lossy(), options);
    test.suite = suite(&folder(path), options);
    test.name = stem(path);
    let beside = path.with_extension("listing");
    let listing = options.listing.clone().or_else(|| (options.bless || beside.exists()).then_some(beside));
    set_listing(&mut test, listing, options);
    test
}

fn rom_test(image: &str, options: &GuestOptions) -> GuestTest {
    let mut words = vec!["--bios".to_owned(), image.to_owned()];
    common_words(&mut words, options, options.memory.as_deref().unwrap_or(ROM_MEMORY));
    if let Some(port) = options.post_port {
        words.extend(["--post-port".to_owned(), format!("{port:#x}")]);
    }
    let verdict = options.expect.map_or(VerdictBy::ExitDevice, VerdictBy::Report);
    new_test(words, Expectations::only(verdict), "Test ROMs", options)
}

fn kernel(path: &Path, unit: UnitTest, options: &GuestOptions) -> GuestTest {
    let mut words = vec!["--kernel".to_owned(), path.to_string_lossy().into_owned(), "--test-device".to_owned()];
    let memory = options.memory.clone().or(unit.memory).unwrap_or_else(|| KERNEL_MEMORY.to_owned());
    common_words(&mut words, options, &memory);
    let arguments = options.arguments.clone().unwrap_or(unit.arguments);
    if !arguments.is_empty() {
        words.extend(["--append".to_owned(), arguments.clone()]);
    }
    if let Some(environment) = &options.environment {
        words.extend(["--initrd".to_owned(), environment.to_string_lossy().into_owned()]);
    }
    if let Some(cpus) = unit.cpus {
        words.extend(["--cpus".to_owned(), cpus.to_string()]);
    }
    let timeout = options.timeout.or(unit.timeout);
    let options = GuestOptions { timeout, ..options.clone() };
    let mut test = new_test(words, Expectations::only(VerdictBy::ExitDevice), "Multiboot test kernels", &options);
    test.suite = suite(&folder(path), &options);
    test.name = unit.name;
    test.text = arguments;
    test.skip = unit.skip;
    let beside = path.with_file_name(format!("{}.listing", test.name));
    let listing = options.listing.clone().or_else(|| (options.bless || beside.exists()).then_some(beside));
    set_listing(&mut test, listing, &options);
    test
}

/// What ROMs and kernels have alike.
fn common_words(words: &mut Vec<String>, options: &GuestOptions, memory: &str) {
    let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
    add(&["--headless", "--clock", "virtual", "--on-reset", "exit", "-m", memory]);
    add(&["--instructions", &options.instructions.unwrap_or(INSTRUCTIONS).to_string()]);
    if options.on_crash == OnCrash::Reboot {
        add(&["--on-crash", "reboot"]);
    }
    if let Some(cpu) = &options.cpu {
        add(&["--cpu", cpu]);
    }
    match options.text {
        TextFrom::Serial => add(&["--console", "none"]),
        TextFrom::Port(0xE9) => add(&["--serial", "none", "--console", "stdio"]),
        TextFrom::Port(port) => {
            add(&["--serial", "none", "--console", "stdio", "--debug-port", &format!("{port:#x}")]);
        }
    }
}

/// A test whose command line ends with what every test has.
fn new_test(mut words: Vec<String>, expect: Expectations, family: &'static str, options: &GuestOptions) -> GuestTest {
    let timeout = options.timeout.unwrap_or(TIMEOUT);
    words.extend(["--timeout".to_owned(), format!("{}ms", timeout.as_millis())]);
    if options.engine != Engine::default() {
        words.extend(["--engine".to_owned(), engine::name(options.engine).to_owned()]);
    }
    match options.policy {
        MemoryPolicy::Resident => {}
        MemoryPolicy::Pinned => words.extend(["--memory-policy".to_owned(), policy_name(options.policy).to_owned()]),
        // As little as there can be is in the host's memory.
        MemoryPolicy::Paged => words.extend(["--memory-limit".to_owned(), format!("{}M", LEAST_MEMORY_LIMIT >> 20)]),
    }
    GuestTest {
        suite: String::new(),
        name: String::new(),
        text: String::new(),
        family,
        words,
        expect,
        timeout,
        memory: None,
        skip: None,
        fails: None,
        bless: None,
    }
}

/// The policy's name on the command line.
pub const fn policy_name(policy: MemoryPolicy) -> &'static str {
    match policy {
        MemoryPolicy::Resident => "resident",
        MemoryPolicy::Pinned => "pinned",
        MemoryPolicy::Paged => "paged",
    }
}

fn machine_file(path: &Path, options: &GuestOptions) -> Result<GuestTest, FormatError> {
    let text = read(path)?;
    let config = MachineConfig::from_toml(&text, path).map_err(|error| {
        // The error names file and line itself.
        let (said, at) = (error.to_string(), format!("{}:", path.display()));
        match said.strip_prefix(&at).and_then(|rest| rest.split_once(": ")) {
            Some((line, what)) => match line.parse() {
                Ok(line) => FormatError::new(path, Position::Line(line), what),
                Err(_) => FormatError::new(path, Position::Whole, said),
            },
            None => FormatError::new(path, Position::Whole, said),
        }
    })?;
    let expect = Expectations::from_config(&config.expect).map_err(|(expression, what)| {
        let line = text.lines().position(|line| line.contains(&expression)).map(|n| Position::Line(n as u64 + 1));
        FormatError::new(path, line.unwrap_or(Position::Whole), format!("\"{expression}\" is {what}"))
    })?;
    if let Some(reason) = config.expect.fails.as_ref().filter(|reason| reason.len() < 10) {
        let line = text.lines().position(|line| line.trim_start().starts_with("fails")).unwrap_or(0) as u64 + 1;
        let what = format!("fails = \"{reason}\": the reason of an expected failure is a sentence");
        return Err(FormatError::new(path, Position::Line(line), what));
    }
    // A name that begins with a hyphen is no option.
    let named = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let shown = if path.to_string_lossy().starts_with('-') { &named } else { path };
    let mut words = vec![shown.to_string_lossy().into_owned(), "--headless".to_owned()];
    let says_clock = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("clock"));
    if !says_clock {
        words.extend(["--clock", "virtual"].map(str::to_owned));
    }
    if config.serial.first().is_some_and(|target| *target != SerialTarget::Stdio) {
        words.extend(["--serial", "stdio"].map(str::to_owned));
    }
    if config.console.is_none() {
        words.extend(["--console", "none"].map(str::to_owned));
    }
    if !expect.screen.is_empty() {
        words.push("--screen-text".to_owned());
    }
    if let Some(cpu) = &options.cpu {
        words.extend(["--cpu".to_owned(), cpu.clone()]);
    }
    // A limit on the command line is for files without one.
    let virtual_clock = !says_clock || config.clock == Clock::Virtual;
    if let Some(count) = options.instructions.filter(|_| config.run.instructions.is_none() && virtual_clock) {
        words.extend(["--instructions".to_owned(), count.to_string()]);
    }
    let timeout = config.run.timeout.map(|span| span.0).or(options.timeout);
    let options = GuestOptions { timeout, ..options.clone() };
    let mut test = new_test(words, expect, "Whole guests", &options);
    test.suite = suite(&folder(path), &options);
    test.name = stem(path);
    test.memory = config.run.process_memory.map(|size| size.0);
    test.fails = config.expect.fails.clone();
    let listing = test.expect.listing.take();
    set_listing(&mut test, listing, &options);
    Ok(test)
}

fn set_listing(test: &mut GuestTest, listing: Option<PathBuf>, options: &GuestOptions) {
    if options.bless {
        test.bless = listing;
    } else {
        test.expect.listing = listing;
    }
}

fn read(path: &Path) -> Result<String, FormatError> {
    let bytes = crate::source::read(path)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = Position::Byte(error.utf8_error().valid_up_to() as u64);
        FormatError::new(path, at, "is not text (UTF-8)")
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn stem(path: &Path) -> String {
    let whole = format::suite_name(path);
    whole.rsplit_once('/').map_or(whole.clone(), |(_, stem)| stem.to_owned())
}

fn folder(path: &Path) -> String {
    let whole = format::suite_name(path);
    whole.rsplit_once('/').map_or("guests".to_owned(), |(folder, _)| folder.to_owned())
}

fn suite(name: &str, options: &GuestOptions) -> String {
    match &options.label {
        Some(label) => format!("{name} ({label})"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, format: Format) -> Found {
        Found { path: PathBuf::from(name), format }
    }

    #[test]
    fn roms_and_kernels_become_command_lines() {
        let options = GuestOptions {
            post_port: Some(0x190),
            expect: Some(0xff),
            text: TextFrom::Port(0x402),
            instructions: Some(5000),
            ..GuestOptions::default()
        };
        let test = &tests(&found("/x/suite/a.bin", Format::Rom), &options).unwrap()[0];
        let line = test.command_line();
        for part in [
            "--bios /x/suite/a.bin",
            "--post-port 0x190",
            "--debug-port 0x402",
            "--instructions 5000",
            "--clock virtual",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert_eq!((test.full_name().as_str(), test.expect.verdict), ("suite/a", VerdictBy::Report(0xff)));
        let options = GuestOptions {
            arguments: Some("a 'b'".into()),
            environment: Some("/env".into()),
            ..GuestOptions::default()
        };
        let test = &tests(&found("/x/suite/k.flat", Format::Multiboot), &options).unwrap()[0];
        let line = test.command_line();
        for part in ["--kernel /x/suite/k.flat --test-device", r"--append 'a '\''b'\'''", "--initrd /env"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert_eq!((test.full_name().as_str(), test.expect.verdict), ("suite/k a 'b'", VerdictBy::ExitDevice));
    }

    #[test]
    fn machine_files_say_what_they_expect() {
        let folder = std::env::temp_dir().join(format!("umbra-guest-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("g.toml");
        let one = |text: &str| {
            std::fs::write(&file, text).unwrap();
            tests(&Found { path: file.clone(), format: Format::Guest }, &GuestOptions::default())
        };
        let test = one("[run]\ntimeout = \"7s\"\nprocess-memory = \"64M\"\n[expect]\nstatus = 33\nserial = [\"a\"]\n")
            .unwrap();
        assert_eq!((test[0].timeout, test[0].memory), (Duration::from_secs(7), Some(64 << 20)));
        assert_eq!((test[0].expect.verdict, test[0].expect.text.len()), (VerdictBy::End(None, Some(33)), 1));
        assert!(
            test[0].command_line().contains("--clock virtual") && test[0].command_line().contains("--timeout 7000ms")
        );
        assert!(!one("clock = \"real\"\n").unwrap()[0].command_line().contains("--clock"));
        #[rustfmt::skip]
        let bad = [
            ("cpus = \"two\"\n",                        "g.toml:1: invalid type"),
            ("[expect]\nserial = [\n\"(\"]\n",          "g.toml:3: \"(\" is no regular expression"),
            ("[expect]\nwhat = 1\n",                    "g.toml:2: unknown field"),
            ("[expect]\nstatus = 300\n",                "g.toml:2: "),
            ("[expect]\n\nfails = \"x\"\n",             "g.toml:3: fails = \"x\""),
        ];
        for (text, wanted) in bad {
            let error = one(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        std::fs::write(&file, b"cpus = \xff").unwrap();
        let error = tests(&Found { path: file.clone(), format: Format::Guest }, &GuestOptions::default()).unwrap_err();
        assert!(error.to_string().contains("g.toml: byte 0x7: is not text"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
