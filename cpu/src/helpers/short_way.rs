//! The short way into a handler and back: an interrupt or trap gate to a flat kernel, and the return from it, when everything
//! about them is known and usual. Both either do all of it, or nothing and answer `false`: then the general code (`interrupt`,
//! `iret`) does it, from the first check on, with whatever fault there is.
//!
//! What makes it short: gate, code and stack segments are good entries of the monitor tables (`tables`), decoded and with their
//! accessed bits set; the stacks are flat; a frame lies in one page that the TLB has. Left out: task gates, conforming code,
//! handlers at level 3, virtual-8086 mode, 16-bit gates, returns with NT. SDM vol. 3, 6.12 and 6.14; vol. 2, IRET.

use super::descriptor::{is_null, rpl};
use super::gate::{Gate, GateKind};
use super::interrupt::{Class, Event};
use crate::mode::ModeBits;
use crate::state::segment::rights;
use crate::state::slots::RSP;
use crate::state::{Seg, Segment, flags};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::{Linear, PAGE_OFFSET, PAGE_SIZE};

/// Where the 64-bit TSS has RSP0 and IST1.
const TSS64: (u64, u64) = (4, 0x24);

/// Present code that is not conforming, and was accessed.
const CODE: (u16, u16) = {
    let set = rights::P | rights::S | rights::CODE | rights::ACCESSED;
    (set | rights::DOWN_CONFORMING, set)
};
/// Present writable data, accessed.
const STACK: (u16, u16) = {
    let set = rights::P | rights::S | rights::READ_WRITE | rights::ACCESSED;
    (set | rights::CODE, set)
};

/// Whether `bytes` from an aligned address on lie in one page.
fn together(at: u64, bytes: u64, item: u64) -> bool {
    at & (item - 1) == 0 && (at & PAGE_OFFSET) + bytes <= PAGE_SIZE
}

impl Vcpu {
    /// The segment that loading a known selector gives, if it has these rights: (mask, value).
    fn known(&self, selector: u16, (mask, value): (u16, u16)) -> Option<Segment> {
        if is_null(selector) {
            return None;
        }
        let segment = self.known_segment(selector)?.segment;
        (segment.rights & mask == value).then_some(Segment { selector, ..segment })
    }

    /// The code segment of a transfer to `offset`, which is valid in it.
    fn known_code(&self, selector: u16, offset: u64) -> Option<Segment> {
        let code = self.known(selector, CODE)?;
        let valid = if self.state.long_mode() && code.long() {
            !code.big() && Linear(offset).is_canonical_48()
        } else {
            offset <= u64::from(code.limit)
        };
        valid.then_some(code)
    }

    /// A flat 32-bit stack segment of a level.
    fn known_flat_stack(&self, selector: u16, level: u8) -> Option<Segment> {
        let ss = self.known(selector, STACK)?;
        (rpl(selector) == level && ss.dpl() == level && ss.big() && ss.flat()).then_some(ss)
    }

    /// A field of the TSS in a page that the TLB has.
    fn known_tss<T: umbra_mmu::Word>(&self, offset: u64) -> Option<T> {
        if offset + T::BYTES as u64 - 1 > u64::from(self.state.tr.limit) {
            return None;
        }
        self.link.mmu.load(self.table_address(self.state.tr.base, offset).ok()?)
    }

    /// The gate of an event that may go through it, if it is known.
    fn usual_gate(&self, event: Event) -> Option<Gate> {
        let len = if self.state.long_mode() { 16 } else { 8 };
        let offset = u64::from(event.vector) * len;
        if offset + len - 1 > u64::from(self.state.idtr.limit) || self.state.v86() {
            return None;
        }
        let at = self.table_address(self.state.idtr.base, offset).ok()?;
        let gate = self.known_gate(event.vector, at, len)??;
        let software = matches!(event.class, Class::Software | Class::SoftwareTrap);
        let usual = gate.kind != GateKind::Task && gate.width != Width::B2 && gate.present;
        (usual && !(software && gate.dpl < self.state.cpl)).then_some(gate)
    }
}

/// Where an event goes to: all that is needed to be there.
struct Entry {
    code: Segment,
    /// Of an inner stack.
    ss: Option<Segment>,
    /// Before the first item is pushed.
    sp: u64,
}

/// Code and stack of the handler behind a gate.
fn entry(cpu: &Vcpu, gate: &Gate) -> Option<Entry> {
    let code = cpu.known_code(gate.selector, gate.offset)?;
    let (level, cpl, rsp) = (code.dpl(), cpu.state.cpl, cpu.state.gpr(RSP));
    if level > cpl || level == 3 {
        return None;
    }
    let inner = level < cpl;
    if gate.width == Width::B8 {
        let sp = match gate.ist() {
            0 if !inner => rsp,
            0 => cpu.known_tss(TSS64.0 + 8 * u64::from(level))?,
            ist => cpu.known_tss(TSS64.1 + 8 * u64::from(ist - 1))?,
        };
        let ss = inner.then_some(Segment { selector: u16::from(level), ..Segment::default() });
        let usual = code.long() && Linear(sp).is_canonical_48();
        return usual.then_some(Entry { code, ss, sp: sp & !0xf });
    }
    if !inner {
        let ss = cpu.state.segment(Seg::Ss);
        return (ss.big() && ss.flat() && ss.writable()).then_some(Entry { code, ss: None, sp: rsp & 0xffff_ffff });
    }
    if cpu.state.tr.kind() & 8 == 0 {
        return None;
    }
    let at = 8 * u64::from(level) + 4;
    let sp: u32 = cpu.known_tss(at)?;
    let ss = cpu.known_flat_stack(cpu.known_tss(at + 4)?, level)?;
    Some(Entry { code, ss: Some(ss), sp: sp.into() })
}

/// Delivers an event in protected or long mode; the view is the supervisor's.
pub(super) fn deliver(cpu: &mut Vcpu, event: Event) -> bool {
    let Some(gate) = cpu.usual_gate(event) else { return false };
    let Some(to) = entry(cpu, &gate) else { return false };
    let level = to.code.dpl();
    let state = &cpu.state;
    // From the lowest address up.
    let items = [
        u64::from(event.error_code.unwrap_or(0)),
        state.rip,
        u64::from(state.segment(Seg::Cs).selector),
        event.pushed_flags(state.rflags),
        state.gpr(RSP),
        u64::from(state.segment(Seg::Ss).selector),
    ];
    let first = usize::from(event.error_code.is_none());
    let last = if gate.width == Width::B8 || to.ss.is_some() { items.len() } else { 4 };
    let Some(items) = items.get(first..last) else { return false };
    let item = gate.width.bytes();
    let bytes = item * items.len() as u64;
    let sp = to.sp.wrapping_sub(bytes);
    if !together(sp, bytes, item) {
        return false;
    }
    // If the first hits the TLB, so do all.
    let mmu = &cpu.link.mmu;
    let pushed = items.iter().zip(0..).all(|(&value, n)| match item {
        4 => mmu.store(sp + 4 * n, value as u32),
        _ => mmu.store(sp + 8 * n, value),
    });
    if !pushed {
        return false;
    }
    if let Some(ss) = to.ss {
        cpu.state.seg[Seg::Ss as usize] = ss;
    }
    cpu.state.set_gpr(RSP, sp);
    arrive(cpu, to.code, gate.selector, level, gate.offset);
    cpu.state.rflags &= !(flags::TF | flags::NT | flags::RF | flags::VM | gate.clears());
    true
}

fn arrive(cpu: &mut Vcpu, code: Segment, selector: u16, level: u8, offset: u64) {
    cpu.state.seg[Seg::Cs as usize] = Segment { selector: selector & 0xfffc | u16::from(level), ..code };
    cpu.state.cpl = level;
    cpu.state.rip = offset;
}

/// IRET in protected mode with NT clear; `mask` are the flags that it loads.
pub(super) fn iret(cpu: &mut Vcpu, width: Width, mask: u64) -> bool {
    let mode = cpu.link.mode;
    let (cpl, rsp, long) = (cpu.state.cpl, cpu.state.gpr(RSP), mode.has(ModeBits::L));
    let flat = long || mode.has(ModeBits::SS_B) && mode.flat(Seg::Ss) && !cpu.state.long_mode();
    if mode.has(ModeBits::ALIGN) || !flat || width != if long { Width::B8 } else { Width::B4 } {
        return false;
    }
    let item = width.bytes();
    let sp = if long { rsp } else { rsp & 0xffff_ffff };
    if !together(sp, 3 * item, item) {
        return false;
    }
    let mmu = &cpu.link.mmu;
    let read = |n: u64| match item {
        4 => mmu.load::<u32>(sp + 4 * n).map(u64::from),
        _ => mmu.load::<u64>(sp + 8 * n),
    };
    let (Some(rip), Some(cs), Some(popped)) = (read(0), read(1), read(2)) else { return false };
    let level = rpl(cs as u16);
    if level < cpl || !long && popped & flags::VM != 0 {
        return false;
    }
    let stays = !long && level == cpl;
    let outer = if stays {
        None
    } else if together(sp, 5 * item, item) {
        read(3).zip(read(4))
    } else {
        None
    };
    let Some(code) = cpu.known_code(cs as u16, rip).filter(|code| code.dpl() == level) else { return false };
    let (ss, sp) = match outer {
        None if stays => (None, sp.wrapping_add(3 * item) & 0xffff_ffff),
        None => return false,
        Some((sp, ss)) => {
            let (ss, to_64bit) = (ss as u16, long && code.long());
            let segment = if is_null(ss) {
                if !to_64bit || level == 3 || rpl(ss) != level {
                    return false;
                }
                Segment { selector: ss, ..Segment::default() }
            } else {
                match cpu.known(ss, STACK) {
                    Some(segment) if rpl(ss) == level && segment.dpl() == level => segment,
                    _ => return false,
                }
            };
            if !to_64bit && !segment.big() {
                return false;
            }
            (Some(segment), if to_64bit { sp } else { sp & 0xffff_ffff })
        }
    };
    if let Some(ss) = ss {
        cpu.state.seg[Seg::Ss as usize] = ss;
    }
    cpu.state.set_gpr(RSP, sp);
    arrive(cpu, code, cs as u16, level, rip);
    if level != cpl {
        cpu.drop_inner_segments();
    }
    cpu.set_flags(mask, popped);
    cpu.update_mode();
    true
}
