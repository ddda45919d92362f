//! A machine with 1 MiB of RAM and nothing else, and the tables of a small kernel.

use std::sync::Arc;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Seg, Segment, State, TableRegister, slots};
use umbra_cpu::{Exit, Vcpu};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

/// Where the tables are.
pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
pub const TSS_B: u64 = 0x3100;
pub const TSS_16: u64 = 0x3200;
pub const LDT: u64 = 0x3400;
/// Where tests put their code, and the handlers of [`Guest::handlers`].
pub const CODE: u64 = 0x8000;
pub const HANDLERS: u64 = 0x9000;
/// Stacks.
pub const STACK0: u64 = 0x7000;
pub const STACK3: u64 = 0x6000;
pub const IST1: u64 = 0x5000;

/// Selectors.
pub const CODE0: u16 = 0x08;
pub const DATA0: u16 = 0x10;
pub const CODE3: u16 = 0x1b;
pub const DATA3: u16 = 0x23;
pub const TSS_SEL: u16 = 0x28;
pub const CODE16: u16 = 0x30;
pub const DATA16: u16 = 0x38;
pub const CONFORMING: u16 = 0x40;
pub const TSS_B_SEL: u16 = 0x48;
pub const TSS_16_SEL: u16 = 0x50;
pub const LDT_SEL: u16 = 0x58;
pub const GATE: u16 = 0x60;
pub const ABSENT_CODE: u16 = 0x70;
pub const ABSENT_DATA: u16 = 0x78;
pub const READ_ONLY: u16 = 0x80;
pub const LIMIT: u16 = 0x8f;

/// Rights of flat segments, as in `Segment::rights`.
pub const FLAT_CODE0: u16 = 0xc09b;
pub const FLAT_DATA0: u16 = 0xc093;

/// An exception and its error code.
pub type Coded = (u8, u32);

/// The engines of this host, by name.
pub fn engines() -> &'static [&'static str] {
    if cfg!(all(target_arch = "x86_64", not(portable))) { &["interp", "jit"] } else { &["interp"] }
}

/// A guest.
pub struct Guest {
    pub cpu: Vcpu,
}

/// A descriptor from its parts; `rights` as in `Segment::rights`.
pub fn descriptor(base: u64, limit: u64, rights: u64) -> u64 {
    (limit & 0xffff) | (base & 0xff_ffff) << 16 | rights << 40 | (limit >> 16 & 15) << 48 | (base >> 24 & 0xff) << 56
}

/// A gate.
pub fn gate(selector: u16, offset: u64, rights: u64) -> u64 {
    (offset & 0xffff) | u64::from(selector) << 16 | rights << 40 | (offset >> 16 & 0xffff) << 48
}

impl Guest {
    /// In real-address mode at [`CODE`].
    pub fn real(code: &[u8]) -> Guest {
        Guest::real_model("max", code)
    }

    /// In real-address mode at [`CODE`], with a model.
    pub fn real_model(model: &str, code: &[u8]) -> Guest {
        // With some frames more, for a ROM.
        let pool = Pool::new((1 << 20) + 0x4000).expect("a pool of one MiB");
        let memory = GuestMemory::new(pool, FrameOrder::Permuted { seed: 1 }, 40);
        crate::memory::set(&memory);
        memory.map_ram(GuestPhys(0), 1 << 20).expect("RAM");
        let model = Arc::new(CpuModel::by_name(model).expect("a model"));
        let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
        crate::engine::set(&mut cpu);
        let mut state = cpu.state.clone();
        state.seg = [Segment::real(0); 6];
        state.rip = CODE;
        state.set_gpr(slots::RSP, STACK0);
        state.control.cr0 = cr0::ET;
        state.slots.set(slots::RDX, 0);
        cpu.set_state(state);
        let mut guest = Guest { cpu };
        guest.write(CODE, code);
        guest
    }

    /// In 32-bit protected mode at CPL 0 with all tables, paging off.
    pub fn protected(code: &[u8]) -> Guest {
        let mut guest = Guest::real(code);
        guest.tables();
        let mut state = guest.cpu.state.clone();
        state.control.cr0 |= cr0::PE;
        let data = Segment { selector: DATA0, base: 0, limit: u32::MAX, rights: FLAT_DATA0 };
        state.seg = [data; 6];
        state.seg[Seg::Cs as usize] = Segment { selector: CODE0, base: 0, limit: u32::MAX, rights: FLAT_CODE0 };
        state.tr = Segment { selector: TSS_SEL, base: TSS, limit: 0xff, rights: 0x8b };
        state.gdtr = TableRegister { base: GDT, limit: LIMIT };
        state.idtr = TableRegister { base: IDT, limit: 0x7ff };
        guest.cpu.set_state(state);
        guest
    }

    /// In 32-bit protected mode at CPL 3.
    pub fn user(code: &[u8]) -> Guest {
        let mut guest = Guest::protected(code);
        guest.edit(|state| {
            let data = Segment { selector: DATA3, base: 0, limit: u32::MAX, rights: 0xc0f3 };
            state.seg = [data; 6];
            state.seg[Seg::Cs as usize] = Segment { selector: CODE3, base: 0, limit: u32::MAX, rights: 0xc0fb };
            state.cpl = 3;
            state.set_gpr(slots::RSP, STACK3);
        });
        guest
    }

    /// In virtual-8086 mode, flat at segment 0.
    pub fn v86(code: &[u8]) -> Guest {
        let mut guest = Guest::protected(code);
        guest.edit(|state| {
            state.seg = [Segment { selector: 0, base: 0, limit: 0xffff, rights: 0xf3 }; 6];
            state.cpl = 3;
            state.rflags |= 1 << 17;
            state.set_gpr(slots::RSP, STACK3);
        });
        guest
    }

    /// In 64-bit mode at CPL 0, the first 2 MiB identity-mapped for everybody. Code segment [`CODE0`] is 64-bit,
    /// [`CODE3`] too, [`CODE16`] is 32-bit code.
    pub fn long(code: &[u8]) -> Guest {
        let mut guest = Guest::protected(code);
        guest.put(0x10000, 0x11007u64);
        guest.put(0x11000, 0x12007u64);
        guest.put(0x12000, 0x87u64);
        guest.put(GDT + 8, 0x00af_9b00_0000_ffffu64);
        guest.put(GDT + 0x18, 0x00af_fb00_0000_ffffu64);
        guest.put(GDT + 0x28, descriptor(TSS, 0xff, 0x8b));
        guest.put(GDT + 0x30, 0x00cf_9b00_0000_ffffu64);
        guest.put(TSS + 4, STACK0);
        guest.put(TSS + 0x24, IST1);
        guest.edit(|state| {
            state.control.cr0 |= cr0::PG;
            state.control.cr3 = 0x10000;
            state.control.cr4 = cr4::PAE | cr4::OSFXSR;
            state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
            state.seg[Seg::Cs as usize].rights = 0xa09b;
            state.idtr.limit = 0xfff;
        });
        guest
    }

    /// In 64-bit mode at CPL 3.
    pub fn long_user(code: &[u8]) -> Guest {
        let mut guest = Guest::long(code);
        guest.edit(|state| {
            let data = Segment { selector: DATA3, base: 0, limit: u32::MAX, rights: 0xc0f3 };
            state.seg = [data; 6];
            state.seg[Seg::Cs as usize] = Segment { selector: CODE3, base: 0, limit: u32::MAX, rights: 0xa0fb };
            state.cpl = 3;
            state.set_gpr(slots::RSP, STACK3);
        });
        guest
    }

    fn tables(&mut self) {
        let entries = [
            (CODE0, descriptor(0, 0xf_ffff, 0xc09b)),
            (DATA0, descriptor(0, 0xf_ffff, 0xc093)),
            (CODE3, descriptor(0, 0xf_ffff, 0xc0fb)),
            (DATA3, descriptor(0, 0xf_ffff, 0xc0f3)),
            (TSS_SEL, descriptor(TSS, 0xff, 0x8b)),
            (CODE16, descriptor(0, 0xffff, 0x009b)),
            (DATA16, descriptor(0, 0xffff, 0x0093)),
            (CONFORMING, descriptor(0, 0xf_ffff, 0xc09f)),
            (TSS_B_SEL, descriptor(TSS_B, 0x67, 0x89)),
            (TSS_16_SEL, descriptor(TSS_16, 0x2b, 0x81)),
            (LDT_SEL, descriptor(LDT, 0xff, 0x82)),
            (ABSENT_CODE, descriptor(0, 0xf_ffff, 0xc01b)),
            (ABSENT_DATA, descriptor(0, 0xf_ffff, 0xc013)),
            (READ_ONLY, descriptor(0, 0xf_ffff, 0xc091)),
        ];
        for (selector, raw) in entries {
            self.put(GDT + u64::from(selector & 0xfff8), raw);
        }
        self.put(TSS + 4, STACK0 as u32);
        self.put(TSS + 8, u32::from(DATA0));
        self.put(TSS + 0x66, 0x88u16);
        // The I/O permission bitmap: everything forbidden.
        self.write(TSS + 0x88, &[0xff; 0x78]);
    }

    /// Points vectors 0–31 at [`HANDLERS`] + 16 × vector: 32-bit interrupt gates (64-bit ones in long mode), DPL 0.
    pub fn handlers(&mut self) {
        for vector in 0..32u64 {
            self.gate(vector, gate(CODE0, HANDLERS + 16 * vector, 0x8e));
        }
    }

    /// Sets one IDT entry.
    pub fn gate(&mut self, vector: u64, raw: u64) {
        if self.cpu.state.long_mode() {
            self.put(IDT + 16 * vector, raw);
            self.put(IDT + 16 * vector + 8, 0u64);
        } else {
            self.put(IDT + 8 * vector, raw);
        }
    }

    /// Changes the state.
    pub fn edit(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.cpu.state.clone();
        change(&mut state);
        self.cpu.set_state(state);
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.cpu.link.memory.write(GuestPhys(at), bytes);
    }

    /// Stores a little-endian number.
    pub fn put<T: Bytes>(&mut self, at: u64, value: T) {
        self.write(at, &value.bytes());
    }

    pub fn word(&self, at: u64) -> u16 {
        self.quad(at) as u16
    }
    pub fn dword(&self, at: u64) -> u32 {
        self.quad(at) as u32
    }
    pub fn quad(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.cpu.link.memory.read(GuestPhys(at), &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Runs `n` instructions (delivered exceptions count none).
    pub fn step(&mut self, n: u64) -> Exit {
        let exceptions = |guest: &Guest| guest.cpu.link.counters.exceptions.iter().sum::<u64>();
        self.cpu.link.memory.evict(u64::MAX);
        let end = self.cpu.state.retired + n - exceptions(self);
        loop {
            let left = end - (self.cpu.state.retired - exceptions(self));
            let exit = self.cpu.run(left);
            if exit != Exit::BudgetSpent || self.cpu.state.retired - exceptions(self) >= end {
                return exit;
            }
        }
    }

    /// Runs until the first exception and gives vector and error code.
    pub fn fault(&mut self) -> (u8, Option<u32>) {
        self.cpu.link.memory.evict(u64::MAX);
        let (_, fault) = self.cpu.run_until_fault(100).expect_err("an exception");
        (fault.vector, fault.error_code)
    }

    pub fn gpr(&self, n: u8) -> u64 {
        self.cpu.state.gpr(n)
    }
    pub fn rsp(&self) -> u64 {
        self.gpr(slots::RSP)
    }
    pub fn selector(&self, seg: Seg) -> u16 {
        self.cpu.state.segment(seg).selector
    }
    /// CS and RIP.
    pub fn at(&self) -> (u16, u64) {
        (self.selector(Seg::Cs), self.cpu.state.rip)
    }
}

/// Numbers that [`Guest::put`] takes.
pub trait Bytes {
    fn bytes(self) -> Vec<u8>;
}
macro_rules! bytes {
    ($($t:ty)*) => {$(impl Bytes for $t { fn bytes(self) -> Vec<u8> { self.to_le_bytes().to_vec() } })*};
}
bytes! { u8 u16 u32 u64 }
