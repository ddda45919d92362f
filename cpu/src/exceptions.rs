//! The exceptions that a guest met last, for people: which check failed, in which entry of which table, and who wrote that entry.
//!
//! What costs nothing to know is always kept: where, which vector, which check. The entries and their writers are looked up at the time of the
//! exception, and only while somebody wants to know ([`umbra_mmu::GuestMemory::note_writers`]). Page faults have a list of their own: a
//! system that works meets thousands. INT n and its like fail no check and are left out.

use crate::fault::{Fault, vector};
use crate::helpers::descriptor::Descriptor;
use crate::vcpu::Vcpu;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use umbra_mmu::addr::{GuestPhys, Linear};
use umbra_mmu::attention::bits;
use umbra_mmu::explain::Refused;
use umbra_mmu::fault::{Access, View, error_code};
use umbra_mmu::writers::Writer;

/// Exceptions that are kept, page faults and others each.
const KEPT: usize = 32;
/// Error code bits: the entry is the IDT's, the LDT's.
const IDT: u32 = 2;
const LDT: u32 = 4;

/// A descriptor table.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the manual's")]
pub enum Table {
    Gdt,
    Ldt,
    Idt,
}

/// An entry of a descriptor table as it was when the exception was met.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Whose.
    pub table: Table,
    /// Its offset in the table.
    pub offset: u32,
    /// Its linear address.
    pub linear: Linear,
    /// Its bytes, 4 to 16; 0: it is beyond the table's limit, or not mapped.
    pub len: u8,
    /// What they are.
    pub bytes: [u64; 2],
    /// Its guest-physical address, if it is mapped.
    pub at: Option<GuestPhys>,
    /// Who was seen to write each four bytes of it last.
    pub writers: [Writer; 4],
}

/// What was found in the guest's tables.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// The page walk that refused.
    Walk(Refused),
    /// The entry that refused.
    Entry(TableEntry),
}

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its number among those that this vCPU has met.
    pub number: u64,
    /// Instructions retired before it.
    pub retired: u64,
    /// CS and RIP of its instruction.
    pub cs: u16,
    /// RIP.
    pub rip: u64,
    /// The privilege level.
    pub cpl: u8,
    /// What the guest gets to see, and the check.
    pub fault: Fault,
    /// What the tables said; `None`: nobody wanted to know, or no table has to do with it.
    pub evidence: Option<Box<Evidence>>,
}

/// The last ones.
#[derive(Debug, Default)]
pub struct Exceptions {
    pages: VecDeque<Met>,
    others: VecDeque<Met>,
    count: u64,
}

impl Exceptions {
    /// Oldest first.
    pub fn all(&self) -> Vec<&Met> {
        let mut all: Vec<_> = self.others.iter().chain(&self.pages).collect();
        all.sort_by_key(|met| met.number);
        all
    }
    fn put(&mut self, met: Met) {
        let met = Met { number: self.count, ..met };
        self.count += 1;
        let list = if met.fault.vector == vector::PF { &mut self.pages } else { &mut self.others };
        if list.len() >= KEPT {
            list.pop_front();
        }
        list.push_back(met);
    }
}

impl Vcpu {
    /// Notes an exception that is about to be delivered, or that its delivery has met.
    pub(crate) fn note_exception(&mut self, fault: Fault) {
        let evidence = if self.link.mmu.notes_writers() { self.evidence(&fault).map(Box::new) } else { None };
        let state = &self.state;
        let (retired, cs, rip) = (state.retired, state.seg[crate::state::Seg::Cs as usize].selector, state.rip);
        self.exceptions.put(Met { number: 0, retired, cs, rip, cpl: state.cpl, fault, evidence });
    }

    fn evidence(&mut self, fault: &Fault) -> Option<Evidence> {
        let code = fault.error_code?;
        match fault.vector {
            vector::PF => {
                let access = match code {
                    code if code & error_code::WRITE != 0 => Access::Write,
                    code if code & error_code::FETCH != 0 => Access::Fetch,
                    _ => Access::Read,
                };
                let views = match code & error_code::USER {
                    0 if self.state.cpl != 3 => [self.view(), View::Supervisor],
                    0 => [View::Supervisor; 2],
                    _ => [View::User; 2],
                };
                let look = |view| self.link.mmu.why_refused(fault.linear, access, view);
                let first = look(views[0]);
                Some(Evidence::Walk(if first.check.is_some() { first } else { look(views[1]) }))
            }
            vector::TS | vector::NP | vector::SS | vector::GP if code & 0xfffe != 0 && code & 0xfffe != LDT => {
                self.table_entry(code).map(Evidence::Entry)
            }
            _ => None,
        }
    }

    /// The entry that an error code names.
    fn table_entry(&mut self, code: u32) -> Option<TableEntry> {
        let state = &self.state;
        let long = state.long_mode();
        let (table, offset, base, limit, mut len) = match code {
            code if code & IDT != 0 => {
                let len = if long { 16 } else { 8 };
                (Table::Idt, (code >> 3 & 0xff) * len, state.idtr.base, u32::from(state.idtr.limit), len)
            }
            code if code & LDT != 0 => (Table::Ldt, code & 0xfff8, state.ldtr.base, state.ldtr.limit, 8),
            _ => (Table::Gdt, code & 0xfff8, state.gdtr.base, u32::from(state.gdtr.limit), 8),
        };
        if !state.protected() {
            // An interrupt vector of real-address mode.
            len = 4;
        }
        let offset = if len == 4 { offset / 2 } else { offset };
        let linear = Linear(self.table_address(base, offset.into()).ok()?);
        let mut entry = TableEntry {
            table,
            offset,
            linear,
            len: 0,
            bytes: [0; 2],
            at: self.link.mmu.peek_phys(linear),
            writers: [Writer::Unknown; 4],
        };
        if offset + len - 1 > limit {
            return Some(entry);
        }
        let mut bytes = [0; 16];
        self.link.mmu.peek(linear, &mut bytes[..len as usize]).ok()?;
        entry.bytes = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n])));
        if long && table != Table::Idt && !Descriptor(entry.bytes[0]).is_segment() && offset + 15 <= limit {
            len = 16;
            self.link.mmu.peek(linear, &mut bytes).ok()?;
            entry.bytes[1] = u64::from_le_bytes(std::array::from_fn(|n| bytes[8 + n]));
        }
        entry.len = len as u8;
        for (n, writer) in entry.writers.iter_mut().enumerate().take(len as usize / 4) {
            if let Some(at) = self.link.mmu.peek_phys(linear.wrapping_add(4 * n as u64)) {
                *writer = self.link.mmu.writer_of(at);
            }
        }
        Some(entry)
    }

    /// Has the writers of this vCPU's descriptor tables noted from now on.
    pub fn watch_descriptor_tables(&mut self) {
        let state = &self.state;
        let tables = [
            (state.gdtr.base, u32::from(state.gdtr.limit)),
            (state.idtr.base, u32::from(state.idtr.limit)),
            (state.ldtr.base, if state.ldtr.usable() { state.ldtr.limit.min(0xffff) } else { 0 }),
        ];
        for (base, limit) in tables.into_iter().filter(|(_, limit)| *limit != 0) {
            for offset in (0..=limit + 4095).step_by(4096) {
                let linear = base.wrapping_add(u64::from(offset.min(limit)));
                if let Some(at) = self.link.mmu.peek_phys(Linear(linear)) {
                    self.link.mmu.watch_writes(at.page());
                }
            }
        }
        // Blocks and entries go on only after what was dropped is seen.
        self.link.attention.set(bits::DRAIN);
    }

    /// Tells the mmu which instruction stores, for those who want to know; `false`: it knows already. The executor is the interpreter:
    /// emitted code's gates know their site.
    pub(crate) fn name_store(&mut self) -> bool {
        if self.link.mmu.storing().is_some() {
            return false;
        }
        let rip = self.interpreted_rip();
        self.link.mmu.set_storing(rip);
        true
    }

    /// RIP of the instruction that the interpreter is in.
    fn interpreted_rip(&mut self) -> Option<u64> {
        use crate::cache::{Alone, BlockKey};
        let rip = self.link.trail.newest();
        if self.link.current == 0 {
            return Some(rip);
        }
        let state = &self.state;
        let base = state.seg[crate::state::Seg::Cs as usize].base;
        let linear = if state.code64() { rip } else { u64::from(base.wrapping_add(rip) as u32) };
        let page = self.link.mmu.fetch_page(linear)?;
        let key = BlockKey { page, linear, rip, mode: self.link.mode, alone: Alone::No };
        Some(self.link.cache.find(&key)?.get().rip_of(self.link.current))
    }
}
