//! The guest of `execute`: little memory with the tables of a small kernel, a mode, and whatever the input puts into registers,
//! flags, control registers, page tables and code.

use arbitrary::{Result, Unstructured};
use std::sync::Arc;
use umbra_cpu::Vcpu;
use umbra_cpu::bus::{Bus, MsrRefused, Retired};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Seg, Segment, State, TableRegister, flags, slots};
use umbra_mmu::addr::{GuestPhys, RegionId};
use umbra_mmu::attention::{Attention, bits};
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

/// RAM, and at its end a page under a device.
const RAM: u64 = 0x2_4000;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const OTHER_TSS: u64 = 0x3400;
const LDT: u64 = 0x3800;
const STACK3: u64 = 0x6000;
const STACK0: u64 = 0x7000;
/// Two pages of code.
pub const CODE: u64 = 0x8000;
const HANDLERS: u64 = 0xA000;
/// Page tables: one page for each level.
const TABLES: u64 = 0x1_0000;
/// A page of device memory.
const DEVICE: u64 = 0x2_0000;

const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const CODE3: u16 = 0x1B;
const DATA3: u16 = 0x23;
const TSS_SELECTOR: u16 = 0x28;
const GDT_LIMIT: u16 = 0xAF;

/// A mode that a case starts in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Mode {
    Real,
    V86,
    Protected16,
    Protected,
    ProtectedUser,
    Paged,
    PagedUser,
    Pae,
    PaeUser,
    Long,
    LongUser,
    Compatibility,
}

const MODES: [Mode; 12] = [
    Mode::Real,
    Mode::V86,
    Mode::Protected16,
    Mode::Protected,
    Mode::ProtectedUser,
    Mode::Paged,
    Mode::PagedUser,
    Mode::Pae,
    Mode::PaeUser,
    Mode::Long,
    Mode::LongUser,
    Mode::Compatibility,
];

impl Mode {
    fn is_user(self) -> bool {
        matches!(
            self,
            Mode::V86 | Mode::ProtectedUser | Mode::PagedUser | Mode::PaeUser | Mode::LongUser | Mode::Compatibility
        )
    }
    fn is_long(self) -> bool {
        matches!(self, Mode::Long | Mode::LongUser | Mode::Compatibility)
    }
}

/// What the input says.
#[derive(Clone, Debug)]
pub struct Case {
    mode: Mode,
    model: &'static str,
    gprs: [u64; 16],
    rflags: u64,
    cr0: u64,
    cr4: u64,
    dr: [u64; 5],
    mxcsr: u32,
    handler: [u8; 6],
    /// Bits to flip in memory: address, bit.
    flips: Vec<(u64, u8)>,
    offset: u64,
    /// The code.
    pub code: Vec<u8>,
}

impl Case {
    /// Reads a case.
    pub fn read(input: &mut Unstructured<'_>) -> Result<Case> {
        let mode = *input.choose(&MODES)?;
        let model = *input.choose(&["max", "max", "max", "x86-64-v2", "core2", "pentium3", "486"])?;
        let model = if mode.is_long() && matches!(model, "pentium3" | "486") { "max" } else { model };
        let mut gprs = [0; 16];
        for gpr in &mut gprs {
            *gpr = register(input)?;
        }
        let mut rflags = 2;
        if input.ratio(1u8, 2u8)? {
            // VM stays as the mode has it.
            rflags |=
                input.arbitrary::<u64>()? & (flags::STATUS | flags::DF | flags::AC | flags::NT | 0x3000 | flags::IF);
        }
        if input.ratio(1u8, 16u8)? {
            rflags |= flags::TF;
        }
        let (cr0, cr4) = if input.ratio(1u8, 2u8)? {
            (
                input.arbitrary::<u64>()? & (cr0::WP | cr0::AM | cr0::NE | cr0::TS | cr0::EM | cr0::MP),
                input.arbitrary()?,
            )
        } else {
            (0, cr4::OSFXSR | cr4::OSXSAVE)
        };
        let mut dr = [0; 5];
        if input.ratio(1u8, 8u8)? {
            for address in &mut dr {
                *address = register(input)?;
            }
            dr[4] = input.arbitrary::<u32>()?.into();
        }
        let mxcsr = if input.ratio(1u8, 4u8)? { input.arbitrary::<u32>()? & 0xFFFF } else { 0x1F80 };
        // HLT, or IRET (32- or 64-bit), or anything.
        let handler = match input.int_in_range(0..=3u8)? {
            0 | 1 => [0xF4; 6],
            2 if mode.is_long() => [0x48, 0xCF, 0xF4, 0xF4, 0xF4, 0xF4],
            2 => [0xCF, 0xF4, 0xF4, 0xF4, 0xF4, 0xF4],
            _ => input.arbitrary()?,
        };
        let mut flips = Vec::new();
        for _ in 0..input.int_in_range(0..=6u8)? {
            let place = *input.choose(&[GDT, IDT, TSS, TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000])?;
            flips.push((place + u64::from(input.arbitrary::<u16>()? & 0xFF), input.arbitrary::<u8>()? & 7));
        }
        // Beginning a page, or across the border of two.
        let offset = if input.ratio(1u8, 4u8)? { 0x1000 - u64::from(input.arbitrary::<u8>()? & 31) } else { 0 };
        let length = input.len().min(512);
        let code = input.bytes(length)?.to_vec();
        Ok(Case { mode, model, gprs, rflags, cr0, cr4, dr, mxcsr, handler, flips, offset, code })
    }

    /// A vCPU about to run the case.
    pub fn vcpu(&self) -> Vcpu {
        let Ok(pool) = Pool::new(RAM) else { unreachable!("the host has no memory for so little") };
        let memory = GuestMemory::new(pool, FrameOrder::Permuted { seed: 7 }, 40);
        let mapped =
            memory.map_ram(GuestPhys(0), RAM).and_then(|()| memory.map_mmio(GuestPhys(DEVICE), 0x1000, RegionId(1)));
        assert!(mapped.is_ok(), "{mapped:?}");
        self.fill(&memory);
        let Some(model) = CpuModel::by_name(self.model) else { unreachable!("a model of the table") };
        let attention = Arc::new(Attention::default());
        let bus = NoisyBus { attention: attention.clone(), vector: 0x20 };
        let mut vcpu = Vcpu::new(Arc::new(model), &memory, Box::new(bus), attention);
        let state = self.state(&vcpu);
        vcpu.set_state(state);
        vcpu
    }

    fn fill(&self, memory: &GuestMemory) {
        let put = |at: u64, value: u64| memory.write(GuestPhys(at), &value.to_le_bytes());
        let long = self.mode.is_long();
        let (code0, code3) = if long { (0xA09B, 0xA0FB) } else { (0xC09B, 0xC0FB) };
        #[rustfmt::skip]
        let descriptors = [
            0, descriptor(0, 0xF_FFFF, code0), descriptor(0, 0xF_FFFF, 0xC093), descriptor(0, 0xF_FFFF, code3),
            descriptor(0, 0xF_FFFF, 0xC0F3), descriptor(TSS, 0xFF, 0x8B), if long { 0 } else { descriptor(0, 0xFFFF, 0x9B) },
            descriptor(0, 0xFFFF, 0x93), descriptor(0, 0xF_FFFF, 0xC09F), descriptor(OTHER_TSS, 0x67, 0x89),
            descriptor(LDT, 0xFF, 0x82), descriptor(0, 0xF_FFFF, 0xC0FB), descriptor(0, 0xFFF, 0xC097),
            // Call gates to level 0 from level 3, 32- and 16-bit; a task gate; no segment.
            gate(CODE0, CODE, 0xEC), 0, gate(CODE0, CODE, 0xE4), gate(0x48, 0, 0xE5), descriptor(0, 0xF_FFFF, 0xC01B),
        ];
        for (descriptor, n) in descriptors.into_iter().zip(0..) {
            put(GDT + 8 * n, descriptor);
        }
        for vector in 0..64u64 {
            let raw = gate(CODE0, HANDLERS + 16 * (vector & 31), if vector % 3 == 0 { 0xEF } else { 0x8E });
            match (self.mode, long) {
                (Mode::Real, _) => put(4 * vector, HANDLERS + 16 * (vector & 31)),
                (_, true) => put(IDT + 16 * vector, raw),
                _ => put(IDT + 8 * vector, raw),
            }
            memory.write(GuestPhys(HANDLERS + 16 * (vector & 31)), &self.handler);
        }
        if long {
            put(TSS + 4, STACK0);
            put(TSS + 0x24, STACK0 - 0x400);
        } else {
            put(TSS + 4, STACK0 | u64::from(DATA0) << 32);
            put(OTHER_TSS + 0x20, CODE << 32);
            put(OTHER_TSS + 0x48, u64::from(DATA0) | u64::from(CODE0) << 32);
            put(OTHER_TSS + 0x50, u64::from(DATA0) | u64::from(DATA0) << 32);
        }
        put(TSS + 0x66, 0x88);
        memory.write(GuestPhys(TSS + 0x88), &[0xF0; 0x78]);
        self.fill_tables(memory);
        for &(at, bit) in &self.flips {
            let mut byte = [0];
            memory.read(GuestPhys(at), &mut byte);
            memory.write(GuestPhys(at), &[byte[0] ^ 1 << bit]);
        }
        memory.write(GuestPhys(CODE + self.offset), &self.code);
    }

    /// Identity tables: 4 KiB pages for the first MiB, at [`TABLES`], their structure pages after them.
    fn fill_tables(&self, memory: &GuestMemory) {
        let put = |at: u64, value: u64| memory.write(GuestPhys(at), &value.to_le_bytes());
        let next = |n: u64| TABLES + 0x1000 * n;
        match self.mode {
            Mode::Paged | Mode::PagedUser => {
                memory.write(GuestPhys(TABLES), &(next(1) as u32 | 7).to_le_bytes());
                // A large page of the same memory at 4 MiB.
                memory.write(GuestPhys(TABLES + 4), &0x87u32.to_le_bytes());
                for page in 0..256u64 {
                    let entry = (page << 12 | if page == 5 { 3 } else { 7 }) as u32;
                    memory.write(GuestPhys(next(1) + 4 * page), &entry.to_le_bytes());
                }
            }
            Mode::Pae | Mode::PaeUser => {
                put(TABLES, next(1) | 1);
                put(next(1), next(2) | 7);
                put(next(1) + 8, 0x87);
                (0..256).for_each(|page| put(next(2) + 8 * page, page << 12 | 7));
            }
            Mode::Long | Mode::LongUser | Mode::Compatibility => {
                put(TABLES, next(1) | 7);
                put(next(1), next(2) | 7);
                put(next(2), next(3) | 7);
                put(next(2) + 8, 0x87);
                (0..256).for_each(|page| put(next(3) + 8 * page, page << 12 | 7));
            }
            _ => {}
        }
    }

    fn state(&self, vcpu: &Vcpu) -> State {
        let mut state = vcpu.state.clone();
        let model = &vcpu.link.model;
        let code_offset = CODE + self.offset;
        for (n, &gpr) in (0..).zip(&self.gprs) {
            let wide = self.mode.is_long() && self.mode != Mode::Compatibility;
            state.set_gpr(n, if wide { gpr } else { gpr & 0xFFFF_FFFF });
        }
        if self.gprs[4] & 3 != 3 {
            state.set_gpr(slots::RSP, if self.mode.is_user() { STACK3 } else { STACK0 } - (self.gprs[4] & 15));
        }
        state.rip = code_offset;
        state.rflags = self.rflags;
        state.control.cr0 = cr0::ET | self.cr0;
        state.control.cr4 = self.cr4 & model.cr4_mask() & !cr4::PAE & !cr4::PCIDE;
        state.control.xcr0 = if model.xcr0_mask() == 0 { 1 } else { model.xcr0_mask() };
        state.vectors.mxcsr = self.mxcsr;
        state.dr[..4].copy_from_slice(&self.dr[..4]);
        state.dr[7] = 0x400 | self.dr[4] & 0xFFFF_2BFF;
        if self.mode == Mode::Real {
            state.seg = [Segment::real(0); 6];
            return state;
        }
        state.control.cr0 |= cr0::PE;
        state.gdtr = TableRegister { base: GDT, limit: GDT_LIMIT };
        state.idtr = TableRegister { base: IDT, limit: 0x3FF };
        state.tr = Segment { selector: TSS_SELECTOR, base: TSS, limit: 0xFF, rights: 0x8B };
        let (code, data, cpl) = if self.mode.is_user() { (CODE3, DATA3, 3) } else { (CODE0, DATA0, 0) };
        let dpl = u16::from(cpl) << 5;
        let flat = |selector, rights| Segment { selector, base: 0, limit: u32::MAX, rights };
        state.cpl = cpl;
        state.seg = [flat(data, 0xC093 | dpl); 6];
        let code_rights = match self.mode {
            Mode::Protected16 => 0x009B,
            Mode::Long | Mode::LongUser => 0xA09B | dpl,
            _ => 0xC09B | dpl,
        };
        state.seg[Seg::Cs as usize] = flat(code, code_rights);
        match self.mode {
            Mode::V86 => {
                state.seg = [Segment { selector: 0, base: 0, limit: 0xFFFF, rights: 0xF3 }; 6];
                state.rflags |= flags::VM;
            }
            Mode::Protected16 => {
                state.seg[Seg::Cs as usize].limit = 0xFFFF;
                state.seg[Seg::Ss as usize] = Segment { selector: 0x38, base: 0, limit: 0xFFFF, rights: 0x93 };
            }
            Mode::Paged | Mode::PagedUser => state.control.cr0 |= cr0::PG,
            Mode::Pae | Mode::PaeUser => {
                state.control.cr0 |= cr0::PG;
                state.control.cr4 |= cr4::PAE & model.cr4_mask();
                state.control.pdptes = [TABLES + 0x1001, 0, 0, 0];
                state.control.efer = efer::NXE & model.efer_mask();
            }
            Mode::Long | Mode::LongUser | Mode::Compatibility => {
                state.control.cr0 |= cr0::PG;
                state.control.cr4 |= cr4::PAE;
                state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
            }
            Mode::Real | Mode::Protected | Mode::ProtectedUser => {}
        }
        if state.control.cr0 & cr0::PG != 0 {
            state.control.cr3 = TABLES;
        }
        state
    }
}

/// A number such as registers hold: an address in memory, a small one, or any.
fn register(input: &mut Unstructured<'_>) -> Result<u64> {
    let word: u64 = input.arbitrary()?;
    Ok(match word & 7 {
        0..=2 => (word >> 8) % RAM,
        3 => CODE + (word >> 8) % 0x2000,
        4 => (word >> 8) & 0xFF,
        5 => DEVICE + (word >> 8) % 0x1000,
        6 => (word >> 8 & 0x1F) << 12 | 0xFF8 | word >> 32 & 7,
        _ => word,
    })
}

/// A descriptor from its parts; `rights` as in `Segment::rights`.
fn descriptor(base: u64, limit: u64, rights: u64) -> u64 {
    (limit & 0xFFFF) | (base & 0xFF_FFFF) << 16 | rights << 40 | (limit >> 16 & 15) << 48 | (base >> 24 & 0xFF) << 56
}

fn gate(selector: u16, offset: u64, rights: u64) -> u64 {
    (offset & 0xFFFF) | u64::from(selector) << 16 | rights << 40 | (offset >> 16 & 0xFFFF) << 48
}

/// A board that answers every access with a number made of the access, and interrupts after some writes.
struct NoisyBus {
    attention: Arc<Attention>,
    vector: u8,
}

impl NoisyBus {
    fn answer(at: Retired, place: u64) -> u64 {
        (at.0 ^ place << 17).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
    }
    fn interrupt(&mut self, value: u64) {
        if value & 7 == 3 {
            self.vector = 0x20 | (value >> 3 & 31) as u8;
            self.attention.set(if value & 0x1000 == 0 { bits::INTR } else { bits::NMI });
        }
    }
}

impl Bus for NoisyBus {
    fn port_read(&mut self, at: Retired, port: u16, width: u8) -> u32 {
        NoisyBus::answer(at, port.into()) as u32 >> (32 - 8 * u32::from(width))
    }
    fn port_write(&mut self, _: Retired, _: u16, _: u8, value: u32) {
        self.interrupt(value.into());
    }
    fn mmio_read(&mut self, at: Retired, _: RegionId, offset: u64, _: u8) -> u64 {
        NoisyBus::answer(at, offset)
    }
    fn mmio_write(&mut self, _: Retired, _: RegionId, _: u64, _: u8, value: u64) {
        self.interrupt(value);
    }
    fn acknowledge_interrupt(&mut self, _: Retired) -> Option<u8> {
        self.attention.clear(bits::INTR);
        Some(self.vector)
    }
    fn take_startup_vector(&mut self) -> u8 {
        0
    }
    fn tsc(&mut self, at: Retired) -> u64 {
        at.0
    }
    fn msr_read(&mut self, _: Retired, msr: u32) -> std::result::Result<u64, MsrRefused> {
        if msr == 0x1B { Ok(0xFEE0_0900) } else { Err(MsrRefused) }
    }
    fn msr_write(&mut self, _: Retired, _: u32, _: u64) -> std::result::Result<(), MsrRefused> {
        Err(MsrRefused)
    }
    fn cr8(&mut self, _: Retired) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: Retired, _: u8) {}
    fn set_ferr(&mut self, _: Retired, _: bool) {}
    fn apic_id(&self) -> u32 {
        0
    }
}
