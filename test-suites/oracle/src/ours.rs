//! Runs programs in Umbra's processor: one vCPU, page tables with the rights of the host's child, state as an operating
//! system would leave it. The engine is a parameter, chosen in `Engine::select` and nowhere else.

use crate::layout::{ARENA, DATA_PAGES, ENTRY, End, Mode, Outcome, PAGE, Registers, STACK_AT};
use crate::program::Start;
use std::sync::Arc;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Segment, State, TableRegister};
use umbra_cpu::{Exit, Vcpu};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

/// Guest memory: the image from 0, page tables above.
const MEMORY: u64 = 4 << 20;
/// The page tables: PML4, PDPT, page directory, page table; one set for 16-bit programs, one for all others.
const TABLES: u64 = 2 << 20;

/// The root of a mode's tables.
fn root(mode: Mode) -> u64 {
    if mode == Mode::Bits16 { TABLES + (1 << 20) } else { TABLES }
}
/// No program runs longer.
const MOST_INSTRUCTIONS: u64 = 3_000_000;

/// What executes guest instructions.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The interpreter.
    Interpreter,
    /// Emitted code.
    Jit,
}

impl Engine {
    /// The engine with this name.
    pub fn by_name(name: &str) -> Option<Engine> {
        match name {
            "interp" => Some(Engine::Interpreter),
            "jit" => Some(Engine::Jit),
            _ => None,
        }
    }

    /// Makes a vCPU use it. The error is one sentence.
    fn select(self, cpu: &mut Vcpu) -> Result<(), String> {
        match self {
            Engine::Interpreter => {}
            Engine::Jit => {
                cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).map_err(|e| e.to_string())?));
                // Each block is emitted before it runs for the first time.
                cpu.link.hot = 1;
            }
        }
        Ok(())
    }
}

/// A vCPU for program after program.
pub struct Ours {
    memory: GuestMemory,
    cpu: Vcpu,
    reset: State,
    /// Instructions and elements of repeated ones that all programs together retired.
    pub retired: u64,
}

impl Ours {
    /// A vCPU of this model. The error is one sentence.
    pub fn new(model: &str, engine: Engine) -> Result<Ours, String> {
        let model = Arc::new(CpuModel::by_name(model).ok_or_else(|| format!("no processor model is called {model}"))?);
        let pool = Pool::new(MEMORY).map_err(|e| e.to_string())?;
        let memory = GuestMemory::new(pool, FrameOrder::Identity, 40);
        memory.map_ram(GuestPhys(0), MEMORY).map_err(|e| e.to_string())?;
        let mut cpu = Vcpu::new(Arc::clone(&model), &memory, Box::new(OpenBus), Arc::new(Attention::default()));
        engine.select(&mut cpu)?;
        let ours = Ours { memory, cpu, reset: State::power_on(model.signature()), retired: 0 };
        ours.write_tables();
        Ok(ours)
    }

    /// An identity map of each layout.
    fn write_tables(&self) {
        const PRESENT: u64 = 1;
        const WRITE: u64 = 2;
        const USER: u64 = 4;
        const NO_EXECUTE: u64 = 1 << 63;
        let page = PAGE as u64;
        let put = |at: u64, entry: u64| self.memory.write(GuestPhys(at), &entry.to_le_bytes());
        for mode in [Mode::Bits64, Mode::Bits16] {
            let root = root(mode);
            for level in 0..3 {
                put(root + level * page, (root + (level + 1) * page) | PRESENT | WRITE | USER);
            }
            let data = (0..DATA_PAGES as u64).map(|n| (mode.data() + n * page, WRITE | NO_EXECUTE));
            let others = [
                (mode.code(), 0),
                (mode.data() + DATA_PAGES as u64 * page, NO_EXECUTE),
                (mode.stack(), WRITE | NO_EXECUTE),
            ];
            for (linear, rights) in data.chain(others) {
                put(root + 3 * page + linear / page * 8, linear | PRESENT | USER | rights);
            }
        }
    }

    /// Runs one program.
    pub fn run(&mut self, mode: Mode, code: &[u8], start: &Start) -> Outcome {
        let mut page = [0xf4; PAGE];
        page[ENTRY as usize..ENTRY as usize + code.len()].copy_from_slice(code);
        self.memory.write(GuestPhys(mode.code()), &page);
        self.memory.write(GuestPhys(mode.data()), &start.memory[..STACK_AT]);
        self.memory.write(GuestPhys(mode.stack()), &start.memory[STACK_AT..]);
        let mut state = self.reset.clone();
        user_state(&mut state, mode);
        set_registers(&mut state, &start.registers);
        self.cpu.set_state(state);
        let before = self.cpu.state.retired;
        let ended = self.cpu.run_until_fault(MOST_INSTRUCTIONS);
        self.cpu.materialise_flags();
        self.retired += self.cpu.state.retired.wrapping_sub(before);
        let mut registers = registers(&self.cpu.state);
        let end = match ended {
            Err((rip, fault)) => {
                registers.rip = rip;
                let cr2 = if fault.vector == 14 { fault.linear.0 } else { 0 };
                End { vector: fault.vector.into(), error: fault.error_code.unwrap_or(0), cr2 }
            }
            Ok(Exit::BudgetSpent) => End { vector: End::TIMEOUT, error: 0, cr2: 0 },
            Ok(exit) => End { vector: End::TIMEOUT + 1 + exit as u32, error: 0, cr2: 0 },
        };
        let mut memory = vec![0; ARENA];
        self.memory.read(GuestPhys(mode.data()), &mut memory[..STACK_AT]);
        self.memory.read(GuestPhys(mode.stack()), &mut memory[STACK_AT..]);
        Outcome { registers, end, memory }
    }
}

/// User mode under a 64-bit operating system.
fn user_state(state: &mut State, mode: Mode) {
    const CODE: u16 = 0x80fb;
    const DATA: u16 = 0x80f3;
    const LONG: u16 = 0x2000;
    const BIG: u16 = 0x4000;
    let control = &mut state.control;
    control.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG;
    control.cr3 = root(mode);
    control.cr4 = cr4::PAE | cr4::PGE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    control.efer = efer::SCE | efer::LME | efer::LMA | efer::NXE;
    control.xcr0 = 7;
    let (code, stack) = match mode {
        Mode::Bits16 => (CODE, DATA),
        Mode::Bits32 => (CODE | BIG, DATA | BIG),
        Mode::Bits64 => (CODE | LONG, DATA | BIG),
    };
    let segment = |selector, rights| Segment { selector, rights, limit: u32::MAX, base: 0 };
    let data = segment(0x2b, DATA | BIG);
    state.seg = [data, segment(0x33, code), segment(0x2b, stack), data, data, data];
    state.idtr = TableRegister { base: 0, limit: 0 };
    state.cpl = 3;
}

fn set_registers(state: &mut State, from: &Registers) {
    for (n, value) in from.gpr.iter().enumerate() {
        state.set_gpr(n as u8, *value);
    }
    state.rip = from.rip;
    state.rflags = from.rflags;
    state.vectors.mxcsr = from.mxcsr;
    state.vectors.regs[..16].copy_from_slice(&from.vectors);
    (state.fpu.cw, state.fpu.sw, state.fpu.tags) = (from.cw, from.sw, from.tags as u8);
    let top = usize::from(from.sw >> 11 & 7);
    for (n, (significand, sign_exponent)) in from.st.iter().enumerate() {
        let physical = &mut state.fpu.regs[(n + top) & 7];
        (physical.significand, physical.sign_exponent) = (*significand, *sign_exponent);
    }
}

fn registers(state: &State) -> Registers {
    let fpu = &state.fpu;
    let top = usize::from(fpu.sw >> 11 & 7);
    let mut registers = Registers {
        rip: state.rip,
        rflags: state.rflags,
        mxcsr: state.vectors.mxcsr,
        cw: fpu.cw,
        sw: fpu.sw,
        tags: u16::from(fpu.tags),
        ..Registers::ZERO
    };
    registers.vectors.copy_from_slice(&state.vectors.regs[..16]);
    for n in 0..16 {
        registers.gpr[n] = state.gpr(n as u8);
        let st = fpu.regs[(n + top) & 7];
        registers.st[n & 7] = (st.significand, st.sign_exponent);
    }
    registers
}
