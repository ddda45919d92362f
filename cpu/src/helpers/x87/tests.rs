//! x87 instructions from their bytes to their effect. `recorded.txt` holds results of an AMD family 19h processor, one case
//! a line: `bytes rax rflags cw sw tags st0..st7 operand = rax rflags cw sw tags st0..st7 operand`, all in hexadecimal,
//! registers and the 16-byte memory operand (at RDI) in memory order, the tag word abridged.

use crate::bus::{Bus, MsrRefused, OpenBus, Retired};
use crate::fault::{Fault, vector};
use crate::model::CpuModel;
use crate::softfloat::F80;
use crate::state::control::{cr0, efer};
use crate::state::segment::rights;
use crate::state::slots::{RAX, RDI};
use crate::state::{Seg, Segment, flags};
use crate::vcpu::Vcpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use umbra_mmu::addr::{GuestPhys, RegionId};
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

const CODE: u64 = 0x10100;
const OPERAND: u64 = 0x21080;

/// A board with nothing on it but FERR#.
struct FerrLine(Arc<AtomicBool>);

impl Bus for FerrLine {
    fn port_read(&mut self, _: Retired, _: u16, _: u8) -> u32 {
        0
    }
    fn port_write(&mut self, _: Retired, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: Retired, _: RegionId, _: u64, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: Retired, _: RegionId, _: u64, _: u8, _: u64) {}
    fn acknowledge_interrupt(&mut self, _: Retired) -> Option<u8> {
        None
    }
    fn take_startup_vector(&mut self) -> u8 {
        0
    }
    fn tsc(&mut self, _: Retired) -> u64 {
        0
    }
    fn msr_read(&mut self, _: Retired, _: u32) -> Result<u64, MsrRefused> {
        Err(MsrRefused)
    }
    fn msr_write(&mut self, _: Retired, _: u32, _: u64) -> Result<(), MsrRefused> {
        Err(MsrRefused)
    }
    fn cr8(&mut self, _: Retired) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: Retired, _: u8) {}
    fn set_ferr(&mut self, _: Retired, asserted: bool) {
        self.0.store(asserted, Ordering::Relaxed);
    }
    fn apic_id(&self) -> u32 {
        0
    }
}

/// A vCPU with flat segments and 256 KiB of RAM, without paging: `bits` is 16 (real mode), 32 or 64.
fn machine(bits: u32) -> Vcpu {
    let pool = Pool::new(1 << 20).expect("a pool");
    let memory = GuestMemory::new(pool, FrameOrder::Identity, 40);
    memory.map_ram(GuestPhys(0), 1 << 18).expect("RAM");
    let model = CpuModel::by_name("max").expect("a model");
    let bus: Box<dyn Bus> = Box::new(OpenBus);
    let mut cpu = Vcpu::new(Arc::new(model), &memory, bus, Arc::new(Attention::default()));
    let mut state = cpu.state.clone();
    let size = if bits == 64 { rights::L } else { rights::DB };
    let flat = Segment { selector: 0x2b, rights: 0x93 | rights::DB | rights::G, limit: u32::MAX, base: 0 };
    state.control.cr0 = cr0::NE | if bits == 16 { 0 } else { cr0::PE };
    state.seg = [flat; 6];
    state.seg[Seg::Cs as usize] = Segment { selector: 0x23, rights: 0x9b | rights::G | size, ..flat };
    if bits == 16 {
        state.seg = [Segment { limit: u32::MAX, ..Segment::real(0x1000) }; 6];
        state.seg[Seg::Ds as usize] = Segment { limit: u32::MAX, ..Segment::real(0x2000) };
    }
    if bits == 64 {
        state.control.efer = efer::LMA | efer::LME;
    }
    state.slots.set(RDI, OPERAND);
    state.fpu.initialize();
    cpu.set_state(state);
    cpu
}

/// Runs `count` instructions from `bytes`.
fn run(cpu: &mut Vcpu, bytes: &[u8], count: u64) -> Result<(), Fault> {
    let base = cpu.state.segment(Seg::Cs).base;
    cpu.link.memory.write(GuestPhys(CODE), bytes);
    let mut state = cpu.state.clone();
    state.rip = CODE - base;
    cpu.set_state(state);
    match cpu.run_until_fault(count) {
        Ok(_) => Ok(()),
        Err((_, fault)) => Err(fault),
    }
}

fn operand(cpu: &Vcpu, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    cpu.link.memory.read(GuestPhys(OPERAND), &mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("a hexadecimal number")
}

/// The part of the state that `recorded.txt` shows.
fn describe(cpu: &Vcpu) -> String {
    let fpu = &cpu.state.fpu;
    let registers: Vec<String> = (0..8).map(|register| hex(&fpu.read(register).to_bytes())).collect();
    format!(
        "{:x} {:x} {:04x} {:04x} {:02x} {} {}",
        cpu.state.slots.get(RAX),
        cpu.flags(),
        fpu.cw,
        fpu.sw,
        fpu.tags,
        registers.join(" "),
        hex(&operand(cpu, 16))
    )
}

#[test]
fn matches_recorded_results() {
    let mut cpu = machine(64);
    for line in include_str!("recorded.txt").lines() {
        let (input, want) = line.split_once(" = ").expect("an equals sign");
        let words: Vec<&str> = input.split(' ').collect();
        let mut state = cpu.state.clone();
        state.slots.set(RAX, number(words[1]));
        state.rflags = number(words[2]);
        state.fpu.cw = number(words[3]) as u16;
        state.fpu.sw = number(words[4]) as u16;
        for (register, word) in (0..8).zip(&words[6..14]) {
            let ten = bytes(word).try_into().expect("ten bytes");
            state.fpu.set(register, F80::from_bytes(ten));
        }
        state.fpu.tags = number(words[5]) as u8;
        cpu.set_state(state);
        cpu.link.memory.write(GuestPhys(OPERAND), &bytes(words[14]));
        assert_eq!(run(&mut cpu, &bytes(words[0]), 1), Ok(()), "{line}");
        assert_eq!(describe(&cpu), want, "{line}");
    }
}

/// FLD1; FLDZ; FDIVP with ZE unmasked, then what a pending error does to the next instruction.
#[test]
fn unmasked_errors_wait_for_the_next_instruction() {
    let divide = [0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9];
    let mut cpu = machine(32);
    cpu.state.fpu.cw = 0x37b;
    assert_eq!(run(&mut cpu, &divide, 3), Ok(()));
    assert_eq!(cpu.state.fpu.sw & 0x80ff, 0x8084, "ES, B and ZE");
    assert_eq!(cpu.state.fpu.read(0), F80::ZERO, "no result, no pop");
    let before = cpu.state.fpu.clone();
    for waiting in [&[0x9b][..], &[0xd9, 0xe8], &[0xd9, 0xd0], &[0xdf, 0xf1], &[0xd9, 0x2f]] {
        assert_eq!(run(&mut cpu, waiting, 1), Err(Fault::mf()), "{waiting:x?}");
        assert_eq!(cpu.state.fpu, before, "{waiting:x?}");
    }
    // FNSTSW AX, FNSTCW, FNCLEX do not wait.
    assert_eq!(run(&mut cpu, &[0xdf, 0xe0, 0xd9, 0x3f, 0xdb, 0xe2], 3), Ok(()));
    assert_eq!(cpu.state.gpr(RAX) & 0x80ff, 0x8084);
    assert_eq!(cpu.state.fpu.sw & 0x80ff, 0);
    assert_eq!(run(&mut cpu, &[0x9b], 1), Ok(()));
}

/// With CR0.NE = 0 an error asserts FERR# when it is found, and no instruction faults; FNCLEX and FNINIT withdraw it.
#[test]
fn errors_go_to_ferr_without_ne() {
    use crate::state::control::cr0::NE;
    let divide = [0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xd9, 0xe8];
    for clear in [&[0xdb, 0xe2][..], &[0xdb, 0xe3]] {
        let line = Arc::new(AtomicBool::new(false));
        let mut cpu = machine(32);
        cpu.connect(Box::new(FerrLine(line.clone())));
        cpu.state.control.cr0 &= !NE;
        cpu.state.fpu.cw = 0x37b;
        assert_eq!(run(&mut cpu, &divide[..4], 2), Ok(()));
        assert!(!line.load(Ordering::Relaxed));
        assert_eq!(run(&mut cpu, &divide[4..], 2), Ok(()));
        assert!(line.load(Ordering::Relaxed));
        assert_eq!(run(&mut cpu, clear, 1), Ok(()));
        assert!(!line.load(Ordering::Relaxed));
    }
}

#[test]
fn em_and_ts_make_the_unit_unavailable() {
    let cases: [(u64, &[u8], Option<u8>); 6] = [
        (cr0::EM, &[0xd9, 0xe8], Some(vector::NM)),
        (cr0::TS, &[0xdb, 0xe3], Some(vector::NM)),
        (cr0::EM, &[0x9b], None),
        (cr0::TS, &[0x9b], None),
        (cr0::MP | cr0::TS, &[0x9b], Some(vector::NM)),
        (cr0::MP, &[0xd9, 0xe8], None),
    ];
    for (bits, code, want) in cases {
        let mut cpu = machine(32);
        cpu.state.control.cr0 |= bits;
        cpu.update_paging();
        let fault = run(&mut cpu, code, 1).err().map(|fault| fault.vector);
        assert_eq!(fault, want, "CR0 bits {bits:x}, {code:x?}");
    }
}

/// FLD dword \[rdi\] and a push, then FNSTENV in each layout.
#[test]
fn environments_have_four_layouts() {
    let protected = "7f03ffff 0030ffff ff4fffff 02010100 23000701 80100200 2b00ffff";
    let cases: [(u32, &[u8], &str); 5] = [
        (32, &[0xd9, 0x37], protected),
        (64, &[0xd9, 0x37], protected),
        (32, &[0x66, 0xd9, 0x37], "7f03 0030 ff4f 0201 2300 8010 2b00"),
        (16, &[0x67, 0xd9, 0x37], "7f03 0030 ff4f 0101 0711 8010 0020"),
        (16, &[0x66, 0x67, 0xd9, 0x37], "7f03ffff 0030ffff ff4fffff 0101ffff 07110000 8010ffff 00200000"),
    ];
    for (bits, store, want) in cases {
        let mut cpu = machine(bits);
        let code: &[u8] = match bits {
            16 => &[0x90, 0x67, 0xd9, 0x07],
            _ => &[0x90, 0x90, 0xd9, 0x07],
        };
        let count = if bits == 16 { 2 } else { 3 };
        cpu.state.slots.set(RDI, OPERAND - cpu.state.segment(Seg::Ds).base);
        assert_eq!(run(&mut cpu, code, count), Ok(()));
        cpu.state.fpu.push(F80::ONE);
        let want = want.replace(' ', "");
        assert_eq!(run(&mut cpu, store, 1), Ok(()));
        assert_eq!(hex(&operand(&cpu, want.len() / 2)), want, "{bits} {store:x?}");
        assert_eq!(cpu.state.fpu.cw & 0x3f, 0x3f);
    }
}

/// FNSAVE, then FRSTOR gives everything back, in both operand sizes.
#[test]
fn saved_state_comes_back() {
    for (save, restore) in [(&[0xdd, 0x37][..], &[0xdd, 0x27][..]), (&[0x66, 0xdd, 0x37], &[0x66, 0xdd, 0x27])] {
        let mut cpu = machine(32);
        let values = [0xd9, 0xe8, 0xd9, 0xeb, 0xd9, 0xec, 0xd9, 0xe1];
        assert_eq!(run(&mut cpu, &values, 4), Ok(()));
        cpu.state.fpu.fip &= 0xffff;
        cpu.state.fpu.fdp &= 0xffff;
        let before = cpu.state.fpu.clone();
        assert_eq!(run(&mut cpu, save, 1), Ok(()));
        assert_eq!((cpu.state.fpu.cw, cpu.state.fpu.sw, cpu.state.fpu.tags), (0x37f, 0, 0));
        assert_eq!(run(&mut cpu, restore, 1), Ok(()));
        let fop = if save.len() == 3 { 0 } else { before.fop };
        assert_eq!(cpu.state.fpu, crate::state::Fpu { fop, ..before });
    }
}

#[test]
fn comparisons_set_flags_for_branches() {
    // FLD1; FLDZ; FCOMI: 0 < 1 is below.
    let mut cpu = machine(32);
    assert_eq!(run(&mut cpu, &[0xd9, 0xe8, 0xd9, 0xee, 0xdb, 0xf1], 3), Ok(()));
    assert_eq!(cpu.flags() & flags::STATUS, flags::CF);
}
