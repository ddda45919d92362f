//! Runs cases, one after another, on one virtual processor and compares what is left exactly.
//!
//! A [`Runner`] keeps its memory and its page tables between cases: only the pages that a case touches are written again.
//! Real mode uses guest-physical addresses below 16 MiB; the pages of flat cases are taken from the memory above, behind
//! page tables that map exactly what the case names (4-level paging; 16- and 32-bit cases run in compatibility mode, as the
//! recordings did). Left out: devices (an open bus) and interrupts.

use crate::case::{Case, End, Environment, Mapping, Register, Rights, Span, Width};
use crate::watchdog::{PATIENCE, Watchdog};
use crate::{compare, engine};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::cache::{Alone, BlockKey};
use umbra_cpu::decode::Encoding;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit, SLACK};
use umbra_cpu::lift::block::{Lifted, dump, lift_bytes};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Segment, State, TableRegister};
use umbra_cpu::vcpu::LONGEST_BLOCK;
use umbra_cpu::{Exit, Fault, Vcpu};
use umbra_machine::config::{Engine, MemoryPolicy};
use umbra_mmu::addr::{GuestPhys, Linear, PAGE_SIZE, PhysPage};
use umbra_mmu::attention::{Attention, bits};
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT, Paging};

/// Real mode sees this much.
const REAL_MEMORY: u64 = 16 << 20;
/// Page tables and pages of flat cases lie above it.
const FLAT_MEMORY: u64 = 80 << 20;

/// Why a runner cannot be made.
#[derive(Debug)]
pub struct SetUpError(String);

impl std::fmt::Display for SetUpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SetUpError {}

/// What a case did wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(pub String);

/// Address line 20 for real-mode cases.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum A20 {
    /// Addresses wrap at 1 MiB, as on an 8086.
    Masked,
    /// They do not.
    Open,
}

/// Cases give small budgets; emitted code wants to see one that no block can exceed.
const JIT_MARGIN: u64 = 2 * SLACK;

/// One virtual processor with memory, used for case after case.
pub struct Runner {
    /// The model that was asked for, and the one in use: a recording of a 286 has its own.
    asked: Arc<CpuModel>,
    model: Arc<CpuModel>,
    engine: Engine,
    policy: MemoryPolicy,
    memory: GuestMemory,
    cpu: Vcpu,
    reset: State,
    /// The map that the page tables hold now, and where its pages are: linear page → guest-physical address.
    map: Vec<Mapping>,
    pages: BTreeMap<u64, u64>,
    /// The next free guest-physical page above real mode's.
    free: u64,
    root: u64,
    watchdog: Watchdog,
    /// Instructions that all cases together retired.
    pub retired: u64,
}

/// How a case came to its end.
enum Ended {
    Halt { rip: u64 },
    Fault(u64, Fault),
    OneInstruction,
}

impl Runner {
    /// A runner for a processor model, on the interpreter.
    pub fn new(model: &str) -> Result<Runner, SetUpError> {
        Runner::with_engine(model, Engine::Interp, MemoryPolicy::default())
    }

    /// A runner on an engine, which must be one and there ([`engine::engines`]). Paged memory has 16 pages in the host's at a time;
    /// pinned memory is an error where the host refuses to lock it.
    pub fn with_engine(model: &str, engine: Engine, memory: MemoryPolicy) -> Result<Runner, SetUpError> {
        let [engine] = engine::engines(engine).map_err(SetUpError)?[..] else {
            return Err(SetUpError("a runner has one engine; try interp or jit".to_owned()));
        };
        let model =
            CpuModel::by_name(model).ok_or_else(|| SetUpError(format!("no processor model is called {model}")))?;
        Runner::with_model(Arc::new(model), engine, memory)
    }

    fn with_model(model: Arc<CpuModel>, engine: Engine, policy: MemoryPolicy) -> Result<Runner, SetUpError> {
        let pool = Pool::new(REAL_MEMORY + FLAT_MEMORY).map_err(|e| SetUpError(e.to_string()))?;
        let memory = GuestMemory::new(pool, FrameOrder::Identity, 40);
        match policy {
            MemoryPolicy::Resident => {}
            MemoryPolicy::Pinned => memory.pin().map_err(|e| SetUpError(e.to_string()))?,
            MemoryPolicy::Paged => {
                let (policy, store) = (Policy::default(), Box::<Vec<u8>>::default());
                memory.set_paging(Paging { limit: LEAST_LIMIT, policy, store, freed: Freed::Poisoned });
            }
        }
        memory.map_ram(GuestPhys(0), REAL_MEMORY + FLAT_MEMORY).map_err(|e| SetUpError(e.to_string()))?;
        let attention = Arc::new(Attention::default());
        let mut cpu = Vcpu::new(Arc::clone(&model), &memory, Box::new(OpenBus), Arc::clone(&attention));
        if engine == Engine::Jit {
            cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).map_err(|e| SetUpError(e.to_string()))?));
            // A case runs once: it is compiled before it does.
            cpu.link.hot = 1;
        }
        let watchdog = Watchdog::new(attention);
        let reset = State::power_on(model.signature());
        let (map, pages) = (Vec::new(), BTreeMap::new());
        let (asked, free, root, retired) = (Arc::clone(&model), REAL_MEMORY, 0, 0);
        Ok(Runner { asked, model, engine, policy, memory, cpu, reset, map, pages, free, root, watchdog, retired })
    }

    /// Takes as instructions what a generation of processors did: a 286's model, or the one that was asked for.
    pub fn set_encoding(&mut self, encoding: Encoding) -> Result<(), SetUpError> {
        let model = match encoding {
            Encoding::I80286 => Arc::new(CpuModel::i80286()),
            Encoding::I80386 => Arc::clone(&self.asked),
        };
        if model.name() != self.model.name() {
            *self = Runner {
                asked: Arc::clone(&self.asked),
                retired: self.retired,
                ..Runner::with_model(model, self.engine, self.policy)?
            };
        }
        Ok(())
    }

    /// The budget of a case: for emitted code more than it says, so that all of it is emitted.
    fn budget(&self, case: &Case) -> u64 {
        case.max + if self.engine == Engine::Jit { JIT_MARGIN } else { 0 }
    }

    /// Masks or opens address line 20.
    pub fn set_a20(&mut self, a20: A20) {
        self.memory.set_a20(a20 == A20::Open);
    }

    /// Runs one case. A panic of the processor is a difference too, and does not end the run.
    pub fn run(&mut self, case: &Case) -> Result<(), Difference> {
        match catch_unwind(AssertUnwindSafe(|| self.run_inside(case))) {
            Ok(result) => result,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
                let difference = Difference(format!("the processor panicked: {text}\n"));
                match Runner::with_model(Arc::clone(&self.model), self.engine, self.policy) {
                    Ok(fresh) => {
                        *self = Runner { asked: Arc::clone(&self.asked), retired: self.retired, ..fresh };
                    }
                    Err(error) => return Err(Difference(format!("{}and {error}\n", difference.0))),
                }
                Err(difference)
            }
        }
    }

    fn run_inside(&mut self, case: &Case) -> Result<(), Difference> {
        let images = self.set_up(case)?;
        let before = self.cpu.state.retired;
        self.watchdog.start();
        let ended = self.execute(case);
        self.watchdog.end();
        self.cpu.materialise_flags();
        self.cpu.link.attention.clear(bits::STOP);
        self.retired += self.cpu.state.retired.wrapping_sub(before);
        let mut out = String::new();
        match ended {
            Ok(ended) => {
                self.check_end(case, &ended, &mut out);
                compare::registers(case, &self.cpu.state, &mut out);
                self.check_memory(case, &images, &mut out);
            }
            Err(Difference(why)) => {
                let _ = writeln!(out, "{why}");
                compare::registers(case, &self.cpu.state, &mut out);
            }
        }
        if !out.is_empty() {
            self.append_uops(case, &mut out);
        }
        self.clear(&images);
        if out.is_empty() { Ok(()) } else { Err(Difference(out)) }
    }

    /// What the instruction under test was lifted to; of a program, the instruction where it stands.
    fn append_uops(&self, case: &Case, out: &mut String) {
        let rip =
            if case.code.is_empty() { self.cpu.state.rip } else { case.initial(Register::Rip).map_or(0, |v| v.low()) };
        let linear = self.cpu.state.seg[1].base.wrapping_add(rip);
        let mut bytes = [0; 16];
        if case.code.is_empty() {
            let Ok(()) = self.cpu.link.mmu.peek(Linear(linear), &mut bytes) else { return };
        } else {
            let count = case.code.len().min(bytes.len());
            bytes[..count].copy_from_slice(&case.code[..count]);
        }
        let key = BlockKey { page: PhysPage(0), linear, rip, mode: self.cpu.link.mode, alone: Alone::Yes };
        let mut lifted = Lifted::default();
        lift_bytes(&self.cpu, &bytes, &key, &mut lifted);
        for line in dump(&lifted.uops).lines() {
            let _ = writeln!(out, "uop {}", line.trim_start());
        }
    }

    /// Loads memory and registers; gives what the touched pages held then.
    fn set_up(&mut self, case: &Case) -> Result<Vec<Span>, Difference> {
        if case.environment != Environment::Real {
            self.build_map(&case.map)?;
        }
        let mut images = self.touched_pages(case);
        for image in &mut images {
            overlay(image, &case.load);
            self.memory.write(GuestPhys(self.place(case, image.at)), &image.bytes);
        }
        let mut state = self.reset.clone();
        for n in 0..16 {
            state.set_gpr(n, 0);
        }
        match case.environment {
            Environment::Real => {
                state.seg = [Segment::real(0); 6];
                state.fpu.cw = 0x37f;
            }
            Environment::Flat { width, cpl } => flat_state(&mut state, width, cpl, self.root),
        }
        // The x87 status word first: where ST(n) lies follows from its TOP.
        for (register, value) in &case.registers {
            if *register == Register::FpuStatus {
                compare::set_register(&mut state, *register, value, case.environment);
            }
        }
        for (register, value) in &case.registers {
            compare::set_register(&mut state, *register, value, case.environment);
        }
        self.cpu.set_state(state);
        Ok(images)
    }

    /// Every page that the case loads or expects, zeroed.
    fn touched_pages(&self, case: &Case) -> Vec<Span> {
        let mut pages: Vec<u64> = Vec::new();
        let spans = case.load.iter().chain(&case.expect.memory);
        for span in spans.filter(|s| !s.bytes.is_empty()) {
            let last = span.at.saturating_add(span.bytes.len() as u64 - 1);
            pages.extend((span.at / PAGE_SIZE..=last / PAGE_SIZE).map(|n| n * PAGE_SIZE));
        }
        if case.environment != Environment::Real {
            pages.extend(self.pages.keys());
        }
        pages.sort_unstable();
        pages.dedup();
        pages.into_iter().map(|at| Span { at, bytes: vec![0; PAGE_SIZE as usize] }).collect()
    }

    /// Where a page of the case lies in guest-physical memory.
    fn place(&self, case: &Case, page: u64) -> u64 {
        match case.environment {
            Environment::Real => page,
            // A page that is loaded but not mapped goes nowhere: past all memory.
            Environment::Flat { .. } => self.pages.get(&page).copied().unwrap_or(REAL_MEMORY + FLAT_MEMORY),
        }
    }

    fn execute(&mut self, case: &Case) -> Result<Ended, Difference> {
        let start = self.cpu.state.rip;
        match (case.environment, case.expect.end) {
            (Environment::Real, End::OneInstruction) => self.one_instruction(case, start),
            (Environment::Real, End::AfterHalt | End::OnHalt) => {
                let exit = self.cpu.run(self.budget(case));
                self.halted(case, exit)
            }
            _ => match self.cpu.run_until_fault(self.budget(case)) {
                Ok(exit) => self.halted(case, exit),
                Err((rip, fault)) if self.halts_at(rip, &fault) => Ok(Ended::Halt { rip }),
                Err((rip, fault)) => Ok(self.software_interrupt(rip, &fault).unwrap_or(Ended::Fault(rip, fault))),
            },
        }
    }

    /// The empty IDT turns a software interrupt into #GP(vector × 8 + 2). Those that an operating system lets user code
    /// raise (1 by INT1, 3, 4) are told as themselves, with RIP after the instruction, as a signal handler sees them.
    fn software_interrupt(&self, rip: u64, fault: &Fault) -> Option<Ended> {
        let code = fault.error_code.filter(|code| fault.vector == 13 && code & 7 == 2)?;
        let mut opcode = [0];
        let linear = self.cpu.state.seg[1].base.wrapping_add(rip);
        self.cpu.link.mmu.peek(Linear(linear), &mut opcode).ok()?;
        let length = match (opcode[0], code >> 3) {
            (0xcc, 3) | (0xce, 4) | (0xf1, 1) => 1,
            (0xcd, 3 | 4) => 2,
            _ => return None,
        };
        let trap = Fault { vector: (code >> 3) as u8, error_code: None, ..*fault };
        Some(Ended::Fault(rip.wrapping_add(length), trap))
    }

    fn halted(&self, case: &Case, exit: Exit) -> Result<Ended, Difference> {
        match exit {
            Exit::Halted => Ok(Ended::Halt { rip: self.cpu.state.rip.wrapping_sub(1) }),
            Exit::BudgetSpent => Err(Difference(format!("met no HLT within {} instructions", case.max))),
            Exit::Shutdown => {
                let chain: Vec<String> = self
                    .cpu
                    .link
                    .fault_chain
                    .iter()
                    .map(|(rip, fault)| format!("{} at {rip:x}", describe(fault)))
                    .collect();
                Err(Difference(format!("shut down: {}", chain.join(", then "))))
            }
            Exit::Stopped => {
                Err(Difference(format!("did not end within {PATIENCE} s, raising exceptions without an end")))
            }
            other => Err(Difference(format!("stopped for {other:?}"))),
        }
    }

    /// At CPL 1–3 the HLT that ends a case is met as its #GP(0).
    fn halts_at(&self, rip: u64, fault: &Fault) -> bool {
        let mut byte = [0];
        let linear = self.cpu.state.seg[1].base.wrapping_add(rip);
        fault.vector == 13
            && self.cpu.state.cpl != 0
            && self.cpu.link.mmu.peek(Linear(linear), &mut byte).is_ok()
            && byte == [0xf4]
    }

    /// One instruction, counting a repeated string instruction as one.
    fn one_instruction(&mut self, case: &Case, start: u64) -> Result<Ended, Difference> {
        // Blocks of one instruction, which emitted code is not left before.
        let link = &mut self.cpu.link;
        (link.longest_block, link.slack) = (1, 0);
        let result = self.one_instruction_at_a_time(case, start);
        let link = &mut self.cpu.link;
        (link.longest_block, link.slack) = (LONGEST_BLOCK, SLACK);
        result
    }

    fn one_instruction_at_a_time(&mut self, case: &Case, start: u64) -> Result<Ended, Difference> {
        let repeated = case.code.iter().any(|b| matches!(b, 0xf2 | 0xf3));
        for _ in 0..case.max {
            match self.cpu.run_until_fault(1) {
                Ok(_) => {}
                Err((rip, fault)) => return Ok(Ended::Fault(rip, fault)),
            }
            if !repeated || self.cpu.state.rip != start {
                return Ok(Ended::OneInstruction);
            }
        }
        Err(Difference(format!("one instruction did not end within {} elements", case.max)))
    }

    fn check_end(&mut self, case: &Case, ended: &Ended, out: &mut String) {
        match (case.expect.end, ended) {
            (End::AfterHalt, Ended::Halt { rip }) => self.cpu.state.rip = rip.wrapping_add(1),
            (End::OnHalt, Ended::Halt { rip }) => self.cpu.state.rip = *rip,
            (End::OneInstruction, Ended::OneInstruction) => {}
            (End::Fault { vector, error_code, cr2 }, Ended::Fault(rip, fault)) => {
                self.cpu.state.rip = *rip;
                if vector != fault.vector {
                    let _ = writeln!(out, "raised {}, should be {}", describe(fault), vector_name(vector));
                }
                if let Some(wanted) = error_code.filter(|w| fault.error_code != Some(*w)) {
                    let _ = writeln!(out, "error code {:x?}, should be {wanted:x}", fault.error_code);
                }
                if let Some(wanted) = cr2.filter(|w| fault.linear.0 != *w) {
                    let _ = writeln!(out, "cr2 {:x}, should be {wanted:x}", fault.linear.0);
                }
            }
            (End::Fault { vector, .. }, _) => {
                let _ = writeln!(out, "raised nothing, should be {}", vector_name(vector));
            }
            (_, Ended::Fault(rip, fault)) => {
                let _ = writeln!(out, "raised {} at {rip:x}", describe(fault));
            }
            (_, Ended::Halt { .. } | Ended::OneInstruction) => {}
        }
    }

    /// In real mode and the fixed layout every byte of a touched page counts; in the free layout what the case names.
    fn check_memory(&self, case: &Case, images: &[Span], out: &mut String) {
        for image in images {
            let mut found = vec![0; image.bytes.len()];
            self.memory.read(GuestPhys(self.place(case, image.at)), &mut found);
            let mut wanted = image.clone();
            if case.named_memory_only {
                wanted.bytes.copy_from_slice(&found);
            }
            overlay(&mut wanted, &case.expect.memory);
            compare::bytes(case, image.at, &found, &wanted.bytes, out);
        }
    }

    /// Leaves zeroed pages behind in real mode; flat pages are written whole by each case.
    fn clear(&mut self, images: &[Span]) {
        if self.cpu.state.control.cr0 & cr0::PG == 0 {
            let zero = [0; PAGE_SIZE as usize];
            images.iter().for_each(|image| self.memory.write(GuestPhys(image.at), &zero));
        }
    }

    /// Builds 4-level page tables for a map, unless they are there already.
    fn build_map(&mut self, map: &[Mapping]) -> Result<(), Difference> {
        if self.map == map && self.root != 0 {
            return Ok(());
        }
        // Everything above real mode's memory starts again from zero.
        let zero = vec![0; PAGE_SIZE as usize];
        (REAL_MEMORY..self.free).step_by(PAGE_SIZE as usize).for_each(|at| self.memory.write(GuestPhys(at), &zero));
        self.free = REAL_MEMORY;
        self.pages.clear();
        self.map = map.to_vec();
        self.root = self.take_page()?;
        for mapping in map.iter().filter(|m| m.length > 0) {
            let last = mapping.linear.saturating_add(mapping.length - 1);
            for number in mapping.linear / PAGE_SIZE..=last / PAGE_SIZE {
                self.map_page(number * PAGE_SIZE, mapping.rights)?;
            }
        }
        Ok(())
    }

    fn take_page(&mut self) -> Result<u64, Difference> {
        let page = self.free;
        if page + PAGE_SIZE > REAL_MEMORY + FLAT_MEMORY {
            self.root = 0;
            return Err(Difference(format!("the case maps more than {} MiB\n", FLAT_MEMORY >> 20)));
        }
        self.free += PAGE_SIZE;
        Ok(page)
    }

    /// Puts one page into the tables (SDM vol. 3, 4.5); a page that is mapped twice gets the rights of both.
    fn map_page(&mut self, linear: u64, rights: Rights) -> Result<(), Difference> {
        const PRESENT: u64 = 1;
        const WRITE: u64 = 2;
        const USER: u64 = 4;
        const NO_EXECUTE: u64 = 1 << 63;
        let mut table = self.root;
        for level in [39, 30, 21] {
            let slot = table + (linear >> level & 0x1ff) * 8;
            let mut entry = self.read_entry(slot);
            if entry & PRESENT == 0 {
                entry = self.take_page()? | PRESENT | WRITE | USER;
                self.memory.write(GuestPhys(slot), &entry.to_le_bytes());
            }
            table = entry & 0x000f_ffff_ffff_f000;
        }
        let slot = table + (linear >> 12 & 0x1ff) * 8;
        let mut entry = self.read_entry(slot);
        if entry & PRESENT == 0 {
            let page = self.take_page()?;
            self.pages.insert(linear, page);
            entry = page | PRESENT | NO_EXECUTE;
        }
        if rights.has(Rights::WRITE) {
            entry |= WRITE;
        }
        if rights.has(Rights::USER) {
            entry |= USER;
        }
        if rights.has(Rights::EXECUTE) {
            entry &= !NO_EXECUTE;
        }
        self.memory.write(GuestPhys(slot), &entry.to_le_bytes());
        Ok(())
    }

    fn read_entry(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(GuestPhys(at), &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// Copies what of `spans` lies in `image` into it.
fn overlay(image: &mut Span, spans: &[Span]) {
    let end = image.at.wrapping_add(image.bytes.len() as u64);
    for span in spans {
        let span_end = span.at.saturating_add(span.bytes.len() as u64);
        let from = span.at.max(image.at);
        let to = span_end.min(end);
        if from >= to {
            continue;
        }
        let target = image.bytes.get_mut((from - image.at) as usize..(to - image.at) as usize);
        let source = span.bytes.get((from - span.at) as usize..(to - span.at) as usize);
        if let (Some(target), Some(source)) = (target, source) {
            target.copy_from_slice(source);
        }
    }
}

/// Flat segments, paging and floating point as an operating system leaves them.
fn flat_state(state: &mut State, width: Width, cpl: u8, root: u64) {
    const CODE: u16 = 0x9b;
    const DATA: u16 = 0x93;
    const LONG: u16 = 0x2000;
    const BIG: u16 = 0x4000;
    const PAGES: u16 = 0x8000;
    let control = &mut state.control;
    control.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::PG;
    control.cr3 = root;
    control.cr4 = cr4::PAE | cr4::PGE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    control.efer = efer::SCE | efer::LME | efer::LMA | efer::NXE;
    control.xcr0 = 7;
    let dpl = u16::from(cpl) << 5;
    let rpl = u16::from(cpl);
    let flat = |selector: u16, rights: u16| Segment {
        selector: selector | rpl,
        rights: rights | dpl,
        limit: u32::MAX,
        base: 0,
    };
    let (code, stack) = match width {
        Width::Bits16 => (CODE | PAGES, DATA | PAGES),
        Width::Bits32 => (CODE | PAGES | BIG, DATA | PAGES | BIG),
        Width::Bits64 => (CODE | PAGES | LONG, DATA | PAGES | BIG),
    };
    let data = flat(0x28, DATA | PAGES | BIG);
    // ES, CS, SS, DS, FS, GS.
    state.seg = [data, flat(0x30, code), flat(0x28, stack), data, data, data];
    state.idtr = TableRegister { base: 0, limit: 0 };
    state.cpl = cpl;
    state.rflags = 0x202;
    state.fpu.cw = 0x37f;
    state.fpu.tags = 0;
}

fn vector_name(vector: u8) -> String {
    let name = match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        19 => "#XM",
        other => return format!("vector {other}"),
    };
    name.to_owned()
}

fn describe(fault: &Fault) -> String {
    let mut text = vector_name(fault.vector);
    if let Some(code) = fault.error_code {
        let _ = write!(text, "({code:x})");
    }
    if fault.vector == 14 {
        let _ = write!(text, " at linear {:x}", fault.linear.0);
    }
    text
}
