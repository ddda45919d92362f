//! Debian's gdb, driven by a script, against a guest of two processors: it attaches at power-on, breaks and steps in real and
//! protected mode, watches data, reads and writes memory and registers, and sees processors as threads.
//!
//! Where gdb is not installed the test says so and ends; with UMBRA_NEED_GDB set (as in .ci/run) it fails instead.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The application processor begins here: a start-up message's vector is F0h.
const AP_LOOP: usize = 0x0003;
#[rustfmt::skip]
const AP: &[u8] = &[
    0xB8, 0x34, 0x12,                         // mov ax, 1234h
    0xFF, 0x06, 0x00, 0x06,                   // again: inc word [600h]
    0xEB, 0xFA,                               // jmp again
];

/// Real mode at F000:0100.
const REAL: usize = 0x0100;
const REAL_LOAD: usize = REAL + 16;
#[rustfmt::skip]
const REAL_CODE: &[u8] = &[
    0xFA,                                     // cli
    0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xD0,       // xor ax, ax; mov ds, ax; mov ss, ax
    0xBC, 0x00, 0x70,                         // mov sp, 7000h
    0xC7, 0x06, 0x00, 0x05, 0xEF, 0xBE,       // mov word [500h], BEEFh
    0xA1, 0x00, 0x05,                         // mov ax, [500h]
    0xE8, 0x10, 0x00,                         // call nothing
    0x2E, 0x0F, 0x01, 0x16, 0x00, 0x03,       // lgdt [cs:300h]
    0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0, // mov eax, cr0; or al, 1; mov cr0, eax
    0xEB, 0x01,                               // jmp on
    0xC3,                                     // nothing: ret
    0x66, 0xEA, 0x00, 0x02, 0x0F, 0x00, 0x08, 0x00, // on: jmp dword 8:F0200h
];

/// 32-bit protected mode at F0200h.
const PROTECTED: usize = 0x0200;
#[rustfmt::skip]
const PROTECTED_CODE: &[u8] = &[
    0x66, 0xB8, 0x10, 0x00, 0x8E, 0xD8, 0x8E, 0xD0, // mov ax, 10h; mov ds, ax; mov ss, ax
    0xC7, 0x05, 0xF0, 0x00, 0xE0, 0xFE, 0xFF, 0x01, 0x00, 0x00, // mov dword [FEE000F0h], 1FFh
    0xC7, 0x05, 0x00, 0x03, 0xE0, 0xFE, 0x00, 0x45, 0x0C, 0x00, // mov dword [FEE00300h], C4500h: INIT
    0xB9, 0x10, 0x27, 0x00, 0x00, 0xE2, 0xFE,       // mov ecx, 10000; loop $
    0xC7, 0x05, 0x00, 0x03, 0xE0, 0xFE, 0xF0, 0x46, 0x0C, 0x00, // mov dword [FEE00300h], C46F0h: start-up at F0000h
];
const COUNT: usize = PROTECTED + PROTECTED_CODE.len();
#[rustfmt::skip]
const COUNT_CODE: &[u8] = &[
    0x83, 0x05, 0x00, 0x07, 0x00, 0x00, 0x01, // count: add dword [700h], 1
    0x83, 0x3D, 0x04, 0x07, 0x00, 0x00, 0x00, // cmp dword [704h], 0
    0x74, 0xF0,                               // je count
    0xB0, 0x10, 0xE6, 0xF4, 0xF4,             // mov al, 10h; out F4h, al; hlt
];

/// The GDT's limit and base, then the GDT: flat code and data.
const GDT: usize = 0x0300;
#[rustfmt::skip]
const GDT_BYTES: &[u8] = &[
    0x17, 0x00, 0x08, 0x03, 0x0F, 0x00, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0x9B, 0xCF, 0, 0xFF, 0xFF, 0, 0, 0, 0x93, 0xCF, 0,
];

fn rom() -> Vec<u8> {
    let mut rom = vec![0xF4; 0x1_0000];
    // The reset vector: jmp F000:0100.
    let parts: [(usize, &[u8]); 6] = [
        (0, AP),
        (REAL, REAL_CODE),
        (PROTECTED, PROTECTED_CODE),
        (COUNT, COUNT_CODE),
        (GDT, GDT_BYTES),
        (0xFFF0, &[0xEA, 0x00, 0x01, 0x00, 0xF0]),
    ];
    for (at, bytes) in parts {
        rom[at..at + bytes.len()].copy_from_slice(bytes);
    }
    rom
}

/// What gdb is told, and what it must answer: each command that answers is led by its own mark.
fn script(port: &str) -> (String, Vec<(&'static str, String)>) {
    let at = |offset: usize| format!("{:x}", 0xF_0000 + offset);
    let mut text = format!("set pagination off\nset confirm off\nset width 0\ntarget remote 127.0.0.1:{port}\n");
    let mut expected = Vec::new();
    let mut ask = |commands: String, mark: &'static str, answer: String| {
        text.push_str(&format!("echo \\n<{mark}>\\n\n{commands}\n"));
        expected.push((mark, answer));
    };
    let where_am_i = "printf \"at %lx\\n\", $pc";
    ask(format!("{where_am_i}\nprintf \"%x:%lx\\n\", $cs, $ip_offset"), "power-on", "at fffffff0\nf000:fff0".into());
    ask(format!("stepi\n{where_am_i}"), "first step", format!("at {}", at(REAL)));
    ask(
        format!("break *0x{}\ncontinue\n{where_am_i}", at(REAL + 10)),
        "break in real mode",
        format!("at {}", at(REAL + 10)),
    );
    ask("printf \"%x\\n\", $sp".into(), "real stack", "7000".into());
    ask(
        format!("watch *(unsigned short *)0x500\ncontinue\n{where_am_i}"),
        "watch",
        format!("Old value = 0\nNew value = 48879\n~at {}", at(REAL_LOAD)),
    );
    ask(
        format!("delete\nrwatch *(unsigned short *)0x500\ncontinue\n{where_am_i}"),
        "rwatch",
        format!("Value = 48879\n~at {}", at(REAL_LOAD + 3)),
    );
    ask(
        format!("delete\nawatch *(unsigned short *)0x6ffe\ncontinue\n{where_am_i}"),
        "awatch",
        // The call's push; the callee is next.
        format!("New value = 278\n~at {}", at(REAL + 38)),
    );
    ask(
        format!("delete\nhbreak *0x{}\ncontinue\n{where_am_i}\nprintf \"%x %lx\\n\", $cs, $cr0 & 1", at(COUNT)),
        "break in protected mode",
        format!("at {}\n8 1", at(COUNT)),
    );
    ask(
        "set var *(int *)0x700 = 100\nstepi\nprintf \"%d\\n\", *(int *)0x700\nx/2xb 0xf0000".into(),
        "memory",
        "101\n~0xf0000:\t0xb8\t0x34".into(),
    );
    ask("set $ax = 0x4321\nprintf \"%x %x\\n\", $ax, $gdt_limit".into(), "registers", "4321 17".into());
    ask("info threads".into(), "threads", "* 1~Thread 1.1~2~Thread 1.2".into());
    ask(
        format!("delete\nbreak *0x{}\ncontinue\n{where_am_i}\nprintf \"thread %d, %x\\n\", $_thread, $ax", at(AP_LOOP)),
        "break on the other processor",
        format!("at {}\nthread 2, 1234", at(AP_LOOP)),
    );
    ask(
        format!("stepi\n{where_am_i}\nthread 1\nprintf \"%x\\n\", $cs"),
        "step on the other processor",
        format!("at {}~8", at(AP_LOOP + 4)),
    );
    ask("delete\nset var *(int *)0x704 = 1\ncontinue".into(), "end", "exited with code 041".into());
    (text, expected)
}

/// Ends what still runs when a test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the parts, divided by ~, come one after the other.
fn in_order(text: &str, parts: &str) -> bool {
    let mut rest = text;
    parts.split('~').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

fn debug_with(width: &str, clock: &str, engine: &str) {
    if Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("UMBRA_NEED_GDB").is_none(), "gdb is not installed");
        eprintln!("gdb is not installed: nothing was tried");
        return;
    }
    let folder = std::env::temp_dir().join(format!("umbra-gdb-{width}-{clock}-{engine}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(file("rom.bin"), rom()).unwrap();
    let mut umbra = Command::new(env!("CARGO_BIN_EXE_umbra"));
    umbra.args(["run", "--headless", "--serial", "none", "--cpus", "2", "-m", "16M", "--timeout", "100s"]);
    umbra
        .args(["--engine", engine, "--clock", clock, "--gdb", &format!("127.0.0.1:0,{width}"), "--bios"])
        .arg(file("rom.bin"));
    let mut umbra = Killed(umbra.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(umbra.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().unwrap();
    let (text, expected) = script(port);
    std::fs::write(file("script"), text).unwrap();
    let mut gdb = Command::new("gdb");
    let gdb = gdb.args(["-nx", "-batch", "-x"]).arg(file("script")).stdin(Stdio::null());
    let answer = gdb.output().unwrap();
    let heard = String::from_utf8_lossy(&answer.stdout).into_owned();
    for (mark, wanted) in expected {
        let section = heard.split(&format!("<{mark}>")).nth(1).unwrap_or("").split('<').next().unwrap_or("");
        let errors = String::from_utf8_lossy(&answer.stderr);
        assert!(in_order(section, &wanted), "{width}, {clock} clock, {mark}: no {wanted:?} in\n{heard}\n{errors}");
    }
    let status = umbra.0.wait().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(status.code(), Some(0x21), "the guest's own exit status: {rest}");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_session_with_16_bit_registers_on_threads() {
    debug_with("i8086", "real", "interp");
}

#[test]
fn a_session_with_64_bit_registers_in_turns() {
    debug_with("x86-64", "virtual", "interp");
}

#[test]
#[cfg(all(target_arch = "x86_64", not(portable)))]
fn a_session_with_emitted_code() {
    debug_with("i386", "real", "jit");
}
