//! Guest tables for the directed tests: two chains of tables, A and B, for one linear address, in each paging mode.
#![allow(dead_code, reason = "each test binary uses its part")]

use super::store;
use std::sync::Arc;
use umbra_mmu::*;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    TwoLevel,
    Pae,
    Long,
}

pub const KINDS: [Kind; 3] = [Kind::TwoLevel, Kind::Pae, Kind::Long];

/// The address that both chains translate.
pub const LINEAR: u64 = 0x0040_3000;
/// Tables of chain A and B: the level-k table lies in page base + k. The pages that they lead to: base + 0.
pub const CHAINS: [u64; 2] = [0x10, 0x18];
const FLAGS: u64 = 0x67;

/// Guest memory of 256 pages with both chains; a vCPU on chain A.
pub struct Guest {
    pub memory: GuestMemory,
    pub vcpu: VcpuMmu,
    pub kind: Kind,
}

impl Guest {
    pub fn new(kind: Kind) -> Guest {
        let memory = GuestMemory::new(Pool::new(512 * 4096).unwrap(), FrameOrder::Permuted { seed: 3 }, 40);
        store::keep_as_asked(&memory);
        Guest::of(kind, memory)
    }
    /// In memory that has nothing mapped yet.
    pub fn of(kind: Kind, memory: GuestMemory) -> Guest {
        memory.map_ram(GuestPhys(0), 256 << 12).unwrap();
        let mut vcpu = memory.vcpu(Arc::default());
        for (chain, name) in CHAINS.into_iter().zip([*b"AAAAAAAA", *b"BBBBBBBB"]) {
            memory.write(GuestPhys(chain << 12), &name);
            for level in 1..=levels(kind) {
                poke(&memory, kind, chain + level, index(kind, level), (chain + level - 1) << 12 | FLAGS);
            }
            // All pages again, from the next entry of level 2 on: page p at alias(p).
            for page in 0..256 {
                let entries = entries(kind);
                let table = 0x20 + (chain - CHAINS[0]) + page / entries;
                poke(&memory, kind, table, page % entries, page << 12 | FLAGS);
                poke(&memory, kind, chain + 2, index(kind, 2) + 1 + page / entries, table << 12 | FLAGS);
            }
        }
        vcpu.set_paging(&regs(kind, &memory, CHAINS[0]));
        Guest { memory, vcpu, kind }
    }
    /// Guest-physical address of chain A's entry for [`LINEAR`] at a level.
    pub fn entry_at(&self, level: u64) -> u64 {
        ((CHAINS[0] + level) << 12) + index(self.kind, level) * width(self.kind)
    }
    pub fn read(&mut self, linear: u64) -> Result<u64, PageFault> {
        read(&mut self.vcpu, linear)
    }
    pub fn phys(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        let width = width(self.kind) as usize;
        self.memory.read(GuestPhys(at), &mut bytes[..width]);
        u64::from_le_bytes(bytes)
    }
    pub fn audit(&mut self, what: &str) {
        self.vcpu.drain();
        let (monitor, tlb) = (self.memory.audit(), self.vcpu.audit());
        assert!(monitor.is_clean() && tlb.is_clean(), "{what}: {monitor:#?} {tlb:#?}");
    }
}

/// A supervisor read as an engine makes it: TLB first.
pub fn read(vcpu: &mut VcpuMmu, linear: u64) -> Result<u64, PageFault> {
    if let Some(value) = vcpu.load::<u64>(linear) {
        return Ok(value);
    }
    let place = vcpu.resolve(Linear(linear), Access::Read, vcpu.view())?;
    let mut bytes = [0; 8];
    vcpu.read_place(&place, &mut bytes);
    Ok(u64::from_le_bytes(bytes))
}

/// A supervisor write within a page as an engine makes it.
pub fn write(vcpu: &mut VcpuMmu, linear: u64, bytes: &[u8]) -> Result<WriteNote, PageFault> {
    let done = match *bytes {
        [a] => vcpu.store(linear, a),
        [a, b] => vcpu.store(linear, u16::from_le_bytes([a, b])),
        [a, b, c, d] => vcpu.store(linear, u32::from_le_bytes([a, b, c, d])),
        _ => <[u8; 8]>::try_from(bytes).is_ok_and(|bytes| vcpu.store(linear, u64::from_le_bytes(bytes))),
    };
    if done {
        return Ok(WriteNote::default());
    }
    let place = vcpu.resolve(Linear(linear), Access::Write, vcpu.view())?;
    Ok(vcpu.write_place(&place, bytes))
}

pub fn levels(kind: Kind) -> u64 {
    match kind {
        Kind::TwoLevel => 2,
        Kind::Pae => 3,
        Kind::Long => 4,
    }
}
pub fn width(kind: Kind) -> u64 {
    if kind == Kind::TwoLevel { 4 } else { 8 }
}
pub fn entries(kind: Kind) -> u64 {
    4096 / width(kind)
}
pub fn index(kind: Kind, level: u64) -> u64 {
    let bits = if kind == Kind::TwoLevel { 10 } else { 9 };
    LINEAR >> (12 + bits * (level - 1)) & (entries(kind) - 1)
}
/// The linear address at which page `page` lies, beside the chains' own address.
pub fn alias(kind: Kind, page: u64) -> u64 {
    let bits = if kind == Kind::TwoLevel { 22 } else { 21 };
    (((LINEAR >> bits) + 1) << bits) + (page << 12)
}
pub fn poke(memory: &GuestMemory, kind: Kind, table: u64, index: u64, entry: u64) {
    let width = width(kind);
    memory.write(GuestPhys((table << 12) + index * width), &entry.to_le_bytes()[..width as usize]);
}
/// Registers for a chain.
pub fn regs(kind: Kind, memory: &GuestMemory, chain: u64) -> PagingRegs {
    let cr3 = (chain + levels(kind)) << 12;
    let mut regs = PagingRegs { cr0: 0x8001_0001, cr3, ..PagingRegs::default() };
    match kind {
        Kind::TwoLevel => regs.cr4 = 0x10,
        Kind::Pae => {
            regs.cr4 = 0x20;
            let mut bytes = [0; 32];
            memory.read(GuestPhys(cr3), &mut bytes);
            for (register, bytes) in regs.pdptes.iter_mut().zip(bytes.as_chunks::<8>().0) {
                // A PDPTE register has neither rights nor an A bit: reserved.
                *register = u64::from_le_bytes(*bytes) & !0x1e6;
            }
        }
        Kind::Long => (regs.cr4, regs.efer) = (0x20, 0xd00),
    }
    regs
}
