//! Hardware task switches through 16- and 32-bit TSSs (SDM vol. 3, chapter 8).
//!
//! A fault before the old state is saved belongs to the old task and changes nothing; a fault while the new task's
//! segments are loaded belongs to the new task, at its first instruction ([`Switched::FaultInNewTask`]).
//! Called by far JMP and CALL, by IRET with NT set, and by interrupt delivery through task gates.

use super::Flow;
use super::descriptor::{Descriptor, is_null, rpl, selector_error, system};
use super::interrupt::deliver_fault;
use super::privilege::with_ext;
use super::segment_load::kind_or_privilege;
use super::stack_frame::{Frame, Stack, stack_view};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::control::{cr0, cr4};
use crate::state::slots::RSP;
use crate::state::{Seg, Segment, flags};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::View;

/// What starts a task switch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Far JMP.
    Jump,
    /// Far CALL.
    Call,
    /// IRET with NT set.
    Iret,
    /// An interrupt or exception through a task gate.
    Event {
        /// What to push on the new task's stack.
        error_code: Option<u32>,
        /// The EXT bit of error codes.
        ext: u32,
    },
}

impl Switch {
    fn ext(self) -> u32 {
        match self {
            Switch::Event { ext, .. } => ext,
            _ => 0,
        }
    }
    /// The older task stays busy, and the new one links back to it.
    fn nests(self) -> bool {
        matches!(self, Switch::Call | Switch::Event { .. })
    }
}

/// How a task switch ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Switched {
    /// The new task runs.
    Done,
    /// The switch is made, but the new task cannot run: this exception is its first event.
    FaultInNewTask(Fault),
}

/// Bit 15 of DR6: a task switch to a task with the T flag.
const DR6_BT: u64 = 1 << 15;
/// DR7.L0–L3 and LE, which a task switch clears.
const DR7_LOCAL: u64 = 0x155;
/// The EFLAGS bits that a TSS can load.
const EFLAGS_LOADED: u64 = 0x003f_7fd5;

/// Offsets of the fields that a switch saves and loads.
struct Layout {
    width: Width,
    ip: usize,
    flags: usize,
    registers: usize,
    segments: usize,
    segment_count: usize,
    ldt: usize,
    /// The least limit, SDM vol. 3, 8.2.2.
    least_limit: u32,
}

const TSS16: Layout = Layout {
    width: Width::B2,
    ip: 0x0e,
    flags: 0x10,
    registers: 0x12,
    segments: 0x22,
    segment_count: 4,
    ldt: 0x2a,
    least_limit: 0x2b,
};
const TSS32: Layout = Layout {
    width: Width::B4,
    ip: 0x20,
    flags: 0x24,
    registers: 0x28,
    segments: 0x48,
    segment_count: 6,
    ldt: 0x60,
    least_limit: 0x67,
};
const TSS32_CR3: usize = 0x1c;
const TSS32_TRAP: usize = 0x64;
/// ES, CS, SS, DS, FS, GS: the order in a TSS, which is that of the encodings.
const TSS_SEGMENTS: [Seg; 6] = Seg::ALL;

impl Layout {
    fn of(kind: u16) -> &'static Layout {
        if kind & 8 != 0 { &TSS32 } else { &TSS16 }
    }
    fn segment_offset(&self, n: usize) -> usize {
        self.segments + n * self.width.bytes() as usize
    }
    /// Bytes from the first saved field to the end of the last.
    fn saved(&self) -> (usize, usize) {
        (self.ip, self.segment_offset(self.segment_count - 1) + 2)
    }
}

/// The task state as it was read from a TSS.
struct Image {
    bytes: [u8; 104],
    layout: &'static Layout,
}

impl Image {
    fn word(&self, at: usize) -> u16 {
        self.bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    }
    fn dword(&self, at: usize) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at + 2)) << 16
    }
    /// A field of the TSS's width.
    fn field(&self, at: usize) -> u64 {
        match self.layout.width {
            Width::B2 => u64::from(self.word(at)),
            _ => u64::from(self.dword(at)),
        }
    }
    fn selector(&self, n: usize) -> u16 {
        if n < self.layout.segment_count { self.word(self.layout.segment_offset(n)) } else { 0 }
    }
}

/// A task switch as the whole of an instruction: the new task's first fault is delivered here.
pub fn switch_task(cpu: &mut Vcpu, selector: u16, switch: Switch) -> Result<Flow, Fault> {
    if let Switched::FaultInNewTask(fault) = switch_to(cpu, selector, switch)? {
        deliver_fault(cpu, fault);
    }
    Ok(Flow::Leave)
}

/// The checks of the new TSS descriptor.
fn new_descriptor(cpu: &mut Vcpu, selector: u16, switch: Switch) -> Result<Descriptor, Fault> {
    let error = selector_error(selector) | switch.ext();
    let refuse = if switch == Switch::Iret { Fault::ts } else { Fault::gp };
    if is_null(selector) || selector & 4 != 0 {
        return Err(refuse(error).because(if is_null(selector) { Check::Null } else { Check::NotInGdt }));
    }
    let descriptor = cpu.descriptor(selector)?.ok_or(refuse(error).because(Check::BeyondTable))?;
    let fits = match descriptor.kind() {
        system::TSS16 | system::TSS32 => switch != Switch::Iret,
        system::TSS16_BUSY | system::TSS32_BUSY => switch == Switch::Iret,
        _ => false,
    };
    if descriptor.is_segment() || !fits {
        return Err(refuse(error).because(Check::Kind));
    }
    if !descriptor.present() {
        return Err(Fault::np(error).because(Check::Present));
    }
    if descriptor.limit() < Layout::of(descriptor.kind()).least_limit {
        return Err(Fault::ts(error).because(Check::ShortTss));
    }
    Ok(descriptor)
}

/// Switches to the task of TSS `selector`.
pub fn switch_to(cpu: &mut Vcpu, selector: u16, switch: Switch) -> Result<Switched, Fault> {
    // After the switch there is no way back, whatever memory the tables are in.
    cpu.runs_alone()?;
    let descriptor = new_descriptor(cpu, selector, switch)?;
    let ext = switch.ext();
    cpu.materialise_flags();
    let older = cpu.state.tr;
    let older_layout = Layout::of(older.kind());
    let (from, to) = older_layout.saved();
    if older.limit < to as u32 - 1 {
        return Err(Fault::ts(selector_error(older.selector) | ext).because(Check::ShortTss));
    }
    let layout = Layout::of(descriptor.kind());
    let mut image = Image { bytes: [0; 104], layout };
    let size = layout.least_limit as usize + 1;
    cpu.load_bytes(Linear(descriptor.base()), &mut image.bytes[..size], View::Supervisor)?;
    let save_at = Linear(cpu.table_address(older.base, from as u64)?);
    cpu.reserve_linear(save_at, (to - from) as u64, View::Supervisor)?;
    if switch.nests() {
        cpu.reserve_linear(Linear(descriptor.base()), 2, View::Supervisor)?;
    }
    // Busy bits: their descriptors were readable; a table that is not writable faults here, before anything is saved.
    if switch != Switch::Iret {
        cpu.mark_busy(selector, descriptor)?;
    }
    if !switch.nests() {
        cpu.clear_busy(older.selector)?;
    }
    save(cpu, older_layout, save_at, switch)?;
    if switch.nests() {
        cpu.store_system(descriptor.base(), older.selector)?;
    }
    // Again: a task that returns to itself, or whose TSS overlaps the old one, finds what was just saved.
    cpu.load_bytes(Linear(descriptor.base()), &mut image.bytes[..size], View::Supervisor)?;
    cpu.state.tr = descriptor.segment(selector);
    cpu.state.tr.rights |= 2;
    let loaded = load(cpu, &image, switch).and_then(|()| match switch {
        Switch::Event { error_code: Some(code), .. } => push_error_code(cpu, layout.width, code, ext),
        _ => Ok(()),
    });
    let ended = loaded.and_then(|()| {
        let limit = u64::from(cpu.state.segment(Seg::Cs).limit);
        if cpu.state.rip > limit { Err(Fault::gp(0).because(Check::Target)) } else { Ok(()) }
    });
    if layout.width == Width::B4 && image.word(TSS32_TRAP) & 1 != 0 {
        cpu.state.pending_debug |= DR6_BT;
    }
    Ok(match ended {
        Ok(()) => Switched::Done,
        Err(fault) => Switched::FaultInNewTask(with_ext(fault, ext)),
    })
}

fn save(cpu: &mut Vcpu, layout: &Layout, at: Linear, switch: Switch) -> Result<(), Fault> {
    let mut bytes = [0; 104];
    let state = &cpu.state;
    let eflags = if switch == Switch::Iret { state.rflags & !flags::NT } else { state.rflags };
    let width = layout.width.bytes() as usize;
    let mut put = |offset: usize, value: u64, len: usize| {
        let at = offset - layout.ip;
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    put(layout.ip, state.rip, width);
    put(layout.flags, eflags, width);
    for n in 0..8u8 {
        put(layout.registers + usize::from(n) * width, state.gpr(n), width);
    }
    let from = layout.ip;
    let segments = layout.segments - from;
    // The upper halves of the selector fields of a 32-bit TSS stay as they are: segments are stored one by one.
    let selectors = TSS_SEGMENTS.map(|seg| state.segment(seg).selector);
    cpu.store_bytes(at, &bytes[..segments], View::Supervisor)?;
    for (n, selector) in selectors.iter().take(layout.segment_count).enumerate() {
        let offset = (layout.segment_offset(n) - from) as u64;
        cpu.store_bytes(at.wrapping_add(offset), &selector.to_le_bytes(), View::Supervisor)?;
    }
    Ok(())
}

/// Loads the new task's state. From here on faults belong to the new task.
fn load(cpu: &mut Vcpu, image: &Image, switch: Switch) -> Result<(), Fault> {
    let layout = image.layout;
    cpu.state.control.cr0 |= cr0::TS;
    cpu.state.dr[7] &= !DR7_LOCAL;
    cpu.state.rip = image.field(layout.ip);
    let nested = if switch.nests() { flags::NT } else { 0 };
    cpu.state.rflags = image.field(layout.flags) & EFLAGS_LOADED | flags::FIXED | nested;
    for n in 0..8u8 {
        let value = image.field(layout.registers + usize::from(n) * layout.width.bytes() as usize);
        cpu.state.set_gpr(n, if layout.width == Width::B2 { value | 0xffff_0000 } else { value });
    }
    for (n, seg) in TSS_SEGMENTS.into_iter().enumerate() {
        cpu.state.seg[seg as usize] = Segment { selector: image.selector(n), ..Segment::default() };
    }
    let cs = image.selector(Seg::Cs as usize);
    cpu.state.cpl = if cpu.state.v86() { 3 } else { rpl(cs) };
    let ldt = image.word(layout.ldt);
    cpu.state.ldtr = Segment { selector: ldt, ..Segment::default() };
    let loaded = load_tables_and_segments(cpu, image, ldt);
    cpu.update_mode();
    loaded
}

fn load_tables_and_segments(cpu: &mut Vcpu, image: &Image, ldt: u16) -> Result<(), Fault> {
    if image.layout.width == Width::B4 && cpu.paging() {
        load_cr3(cpu, u64::from(image.dword(TSS32_CR3)))?;
    }
    cpu.state.ldtr = cpu.local_table(ldt, Fault::ts)?;
    if cpu.state.v86() {
        for (n, seg) in TSS_SEGMENTS.into_iter().enumerate() {
            cpu.set_v86_segment(seg, image.selector(n));
        }
        return Ok(());
    }
    load_code(cpu, image.selector(Seg::Cs as usize))?;
    for seg in [Seg::Ss, Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
        load_data(cpu, seg, image.selector(seg as usize))?;
    }
    Ok(())
}

fn load_cr3(cpu: &mut Vcpu, cr3: u64) -> Result<(), Fault> {
    if cpu.state.control.cr4 & cr4::PAE != 0 {
        cpu.load_pdptes(cr3)?;
    }
    cpu.state.control.cr3 = cr3;
    cpu.update_paging();
    Ok(())
}

fn load_code(cpu: &mut Vcpu, selector: u16) -> Result<(), Fault> {
    let error = selector_error(selector);
    if is_null(selector) {
        return Err(Fault::ts(error).because(Check::Null));
    }
    let code = cpu.descriptor(selector)?.ok_or(Fault::ts(error).because(Check::BeyondTable))?;
    let level = rpl(selector);
    let matching = if code.is_conforming() { code.dpl() <= level } else { code.dpl() == level };
    if !code.is_code() || !matching {
        return Err(Fault::ts(error).because(kind_or_privilege(code.is_code())));
    }
    if !code.present() {
        return Err(Fault::np(error).because(Check::Present));
    }
    cpu.state.seg[Seg::Cs as usize] = cpu.mark_accessed(selector, code)?.segment(selector);
    Ok(())
}

fn load_data(cpu: &mut Vcpu, seg: Seg, selector: u16) -> Result<(), Fault> {
    if is_null(selector) && seg == Seg::Ss {
        return Err(Fault::ts(selector_error(selector)).because(Check::Null));
    }
    cpu.load_segment(seg, selector).map_err(|fault| match fault.vector {
        crate::fault::vector::GP => Fault::ts(fault.error_code.unwrap_or(0)).because(fault.check),
        _ => fault,
    })
}

fn push_error_code(cpu: &mut Vcpu, width: Width, code: u32, ext: u32) -> Result<(), Fault> {
    let sp = cpu.state.gpr(RSP);
    let ss = *cpu.state.segment(Seg::Ss);
    let mut frame = Frame::on(Stack::segmented(ss, sp, stack_view(cpu.state.cpl), ext), width);
    frame.push(u64::from(code))?;
    frame.commit(cpu)?;
    cpu.state.set_gpr(RSP, frame.stack.new_rsp(sp));
    Ok(())
}
