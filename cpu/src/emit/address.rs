//! Accesses to guest memory: a TLB hit in line, everything else behind the block.
//!
//! ```text
//! lea   r13, [address]            linear
//! rorx  r14, r13, 7
//! and   r14d, [data mask]
//! add   r14, [data TLB]           the entry
//! xor   r13, [r14 + tag]          offset in the page, if it is a hit
//! cmp   r13, 4096 − bytes
//! ja    slow                      another page, or over the end of this one
//! mov   r14, [r14 + host]
//! op    …, [r14 + r13]
//! ```
//!
//! That is the check of an access that has no memo (`memo`). Behind the block a gate fills the TLB and `op` goes on. Where
//! there is no entry (devices, tracked pages, straddling accesses), a load is made by Rust into `Frame::buffer`, where `op`
//! finds it, and a store or read-modify-write does its `op` on the buffer, which Rust then stores. The interpreter's handler
//! does it whole where `op` alone leaves out what must be there if the block ends here: locked accesses, x87 stores, and
//! updates whose flags nobody wants.

use super::asm::{Alu, Asm, Form, Label, Reg, Rm};
use super::block::Emitter;
use super::flags::{self, FlagPlaces};
use super::frame::{self, frame};
use super::gate::Status;
use super::memo::Reach;
use super::registers::{S0, S1, SP, pinned, slot, slot_offset};
use super::site::Site;
use super::straddle;
use crate::mode::ModeBits;
use crate::state::slots::ZERO;
use crate::state::{Seg, Segment, State};
use crate::uop::{AddrKind, FlagUse, Mem, Op, Uop, Width};
use crate::vcpu::Vcpu;
use std::mem::offset_of;
use umbra_mmu::tlb::DataEntry;

/// The register operand of an access.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A host register, or an opcode extension.
    Reg(Reg),
    /// A slot in memory that is read.
    In(u8),
    /// A slot in memory that is written.
    Out(u8),
    /// Both.
    InOut(u8),
}

impl Value {
    /// A slot that the access reads.
    pub fn source(n: u8) -> Value {
        pinned(n).map_or(Value::In(n), Value::Reg)
    }
    /// A slot that the access writes at `width`: narrow writes keep the rest.
    pub fn target(n: u8, width: Width) -> Value {
        match pinned(n) {
            Some(reg) => Value::Reg(reg),
            None if width < Width::B4 => Value::InOut(n),
            None => Value::Out(n),
        }
    }
    /// A slot that the access reads and writes.
    pub fn both(n: u8) -> Value {
        pinned(n).map_or(Value::InOut(n), Value::Reg)
    }
}

/// What the access does to memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Reads and writes.
    Update,
}

/// One access.
#[derive(Copy, Clone, Debug)]
pub struct Access {
    /// The instruction.
    pub form: Form,
    /// Its register operand.
    pub value: Value,
    /// Bytes of memory.
    pub bytes: u8,
    /// What it does to memory.
    pub way: Way,
    /// It reads CF from the image first.
    pub carry: bool,
    /// What is added to the guest's RSP once the store is made.
    pub sp: i8,
    /// The width of the stack pointer.
    pub sp_width: Width,
    /// Where the flags are afterwards, if it changes them.
    pub flags: Option<FlagPlaces>,
    /// The address, if it is a register and a displacement, and not yet in the first scratch register.
    pub at: Option<At>,
}

/// An address: a register and a displacement.
#[derive(Copy, Clone, Debug)]
pub struct At {
    /// The register.
    pub base: Reg,
    /// The displacement.
    pub disp: i32,
    /// The width of their sum.
    pub width: Width,
}

/// What the cold path of an access has to know beside the access.
#[derive(Copy, Clone, Debug)]
struct ColdAccess {
    slow_way: SlowWay,
    memo: Option<(u8, Reach)>,
    /// The access's site; what the second gate that it may come to is told of is `then`.
    site: u32,
    then: u32,
    /// Whether the flags are the host's afterwards.
    restore: bool,
    /// Which units are the host's ([`Live::index`]).
    live: usize,
    /// Where the cold path begins.
    slow: Label,
    /// Where the access is made.
    found: Label,
    /// What comes after it.
    done: Label,
}

/// How an access is made to what is in no entry of the TLB.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum SlowWay {
    /// From the buffer that Rust has filled.
    Load,
    /// To the buffer, which Rust then stores.
    Store,
    /// By the interpreter's handler.
    Handler,
}

impl Access {
    /// Neither CF, nor the stack pointer, nor flags have to do with it.
    pub fn plain(form: Form, value: Value, bytes: u8, way: Way) -> Access {
        Access { form, value, bytes, way, carry: false, sp: 0, sp_width: Width::B8, flags: None, at: None }
    }
}

impl Emitter<'_> {
    /// The address of a memory operand, in the first scratch register.
    pub(super) fn address(&mut self, mem: &Mem) {
        self.address_to(S0, mem);
    }

    /// The address of a memory operand. Changes both scratch registers.
    pub(super) fn address_to(&mut self, to: Reg, mem: &Mem) {
        let asm = &mut *self.asm;
        let width = if mem.kind == AddrKind::Flat32 { Width::B4 } else { Width::B8 };
        if mem.kind == AddrKind::Checked {
            return asm.load(Width::B8, to, slot(mem.base));
        }
        let (base, index) = (mem.base, mem.index);
        let Some(disp) = displacement(mem) else {
            // Whole addresses: RIP-relative ones.
            asm.mov_imm(S0, mem.disp as u64);
            for (n, scale) in [(base, 0), (index, mem.scale)] {
                if n != ZERO {
                    asm.load(Width::B8, S1, slot(n));
                    asm.lea(width, S0, Rm::Full { base: S0, index: S1, scale, disp: 0 });
                }
            }
            if to != S0 {
                asm.mov(to, S0);
            }
            return;
        };
        let base = (base != ZERO).then(|| {
            pinned(base).unwrap_or_else(|| {
                asm.load(Width::B8, S0, slot(base));
                S0
            })
        });
        let index = (index != ZERO).then(|| {
            pinned(index).unwrap_or_else(|| {
                asm.load(Width::B8, S1, slot(index));
                S1
            })
        });
        match (base, index) {
            (Some(base), Some(index)) => asm.lea(width, to, Rm::Full { base, index, scale: mem.scale, disp }),
            (None, Some(index)) => asm.lea(width, to, Rm::Scaled { index, scale: mem.scale, disp }),
            (Some(base), None) => lea(asm, to, At { base, disp, width }),
            (None, None) if width == Width::B4 => asm.mov_imm(to, u64::from(disp as u32)),
            (None, None) => asm.mov_imm(to, i64::from(disp) as u64),
        }
    }

    /// Like [`Self::address`] for an access that comes next; what it can address by itself is left to it.
    pub(super) fn address_of(&mut self, mem: &Mem, access: Access) -> Access {
        let width = if mem.kind == AddrKind::Flat32 { Width::B4 } else { Width::B8 };
        let at = match (mem.kind, pinned(mem.base), mem.index, displacement(mem)) {
            (AddrKind::Flat64 | AddrKind::Flat32, Some(base), ZERO, Some(disp)) => Some(At { base, disp, width }),
            _ => None,
        };
        if at.is_none() {
            self.address(mem);
        }
        Access { at, ..access }
    }

    /// The TLB check of the address in the first scratch register. Afterwards [S1 + S0] is the operand; on a miss `slow` is
    /// jumped to, with S0 = address XOR tag and S1 = the entry.
    pub(super) fn check_tlb(&mut self, bytes: u8, way: Way, slow: Label) {
        let check = &self.context.gates.check_tlb[usize::from(way != Way::Load)];
        self.asm.fixed(check, 4096 - u32::from(bytes), slow);
    }

    /// An access to a uop's memory operand.
    pub(super) fn access(&mut self, uop: &Uop, access: Access) {
        self.clobber();
        let access = self.address_of(&uop.mem, access);
        self.access_at(uop, access);
    }

    /// An access to the linear address in the first scratch register, or to [`Access::at`]; the host's flags hold nothing.
    pub(super) fn access_at(&mut self, uop: &Uop, mut access: Access) {
        let reach = Reach::of(access.bytes);
        let number = self.memo(reach, access.way);
        let memo = number.map(|number| (number, reach));
        let site = Site { bytes: access.bytes, sp: access.sp, ..self.site(uop) }.with_memo(number);
        let [slow, found, done] = [(); 3].map(|()| self.asm.label());
        match memo {
            Some((number, _)) => self.check_memo(number, access.at, slow),
            None => {
                if let Some(at) = access.at.take() {
                    lea(self.asm, S0, at);
                }
                self.check_tlb(access.bytes, access.way, slow);
            }
        }
        self.asm.bind(found);
        touch(self.asm, &access, access.at);
        self.asm.bind(done);
        let slow_way = self.slow_way(uop, &access);
        let restore = access.flags.is_some_and(|places| places.host);
        let (site, then) = match slow_way {
            SlowWay::Load => (self.add_site(site), 0),
            SlowWay::Store if access.flags.is_none() => {
                let both = self.add_site(site);
                (both, both)
            }
            SlowWay::Store => {
                // After the store the flags are what the instruction made of them.
                let flags = match access.flags {
                    Some(places) if !places.host => places.at_site(),
                    _ => flags::SiteFlags::Saved,
                };
                let commit = Site { flags, ..site.clone() };
                (self.add_site(site), self.add_site(commit))
            }
            SlowWay::Handler => {
                let whole = self.with_step(site.clone(), &Uop { flags: FlagUse::Wanted, ..*uop });
                let whole = self.add_site(whole);
                (self.add_site(site), whole)
            }
        };
        let live = self.live.index();
        let cold = ColdAccess { slow_way, memo, site, then, restore, live, slow, found, done };
        if self.asm.is_cold() {
            self.behind(move |e| e.slow_access(&access, &cold));
        } else {
            // The same without a copy of both.
            let kept = self.asm.go_cold();
            self.slow_access(&access, &cold);
            self.asm.go_hot(kept);
        }
        if let Some(places) = access.flags {
            self.places = places;
        }
    }

    /// Begins the cold path of an access: the address is in the first scratch register, and no memo helps.
    fn missed(&mut self, memo: Option<(u8, Reach)>, access: &Access, slow: Label, found: Label, done: Label) {
        let (asm, way) = (&mut *self.asm, access.way);
        asm.bind(slow);
        match memo {
            Some((number, reach)) => {
                if let Some(at) = access.at {
                    lea(asm, S0, at);
                }
                asm.mov_imm(S1, super::memo::request(number, access.bytes));
                asm.call(self.context.gates.fill_memo[reach as usize][usize::from(way != Way::Load)].0);
                match access.at {
                    // The sum may be another one without the wrap at 4 GiB, which no check in line takes for the page.
                    Some(At { width: Width::B4, .. }) => {
                        let other = asm.label();
                        asm.jcc(5, other);
                        self.touch_found(access, found, done);
                        self.asm.bind(other);
                    }
                    _ => asm.jcc(4, found),
                }
            }
            None => {
                const { assert!(S0 == 13 && S1 == 14) };
                match tag(way) as u64 {
                    0 => asm.word(0x2e_334d, 3), // XOR r13, [r14]
                    tag => asm.word(0x6e_334d | tag << 24, 4),
                }
            }
        }
    }

    /// The access to [S1 + S0], where a gate has found the operand.
    fn touch_found(&mut self, access: &Access, found: Label, done: Label) {
        if access.at.is_none() {
            return self.asm.jmp(found);
        }
        touch(self.asm, access, None);
        self.asm.jmp(done);
    }

    /// After a gate that says by ZF clear that the operand is in the TLB: the access is made, and the way goes on from it.
    fn unless_found(&mut self, access: &Access, found: Label, done: Label) {
        if access.at.is_none() {
            return self.asm.jcc(5, found);
        }
        let other = self.asm.label();
        self.asm.jcc(4, other);
        self.touch_found(access, found, done);
        self.asm.bind(other);
    }

    fn slow_way(&self, uop: &Uop, access: &Access) -> SlowWay {
        match access.way {
            Way::Load => SlowWay::Load,
            _ if access.form.is_locked() || uop.op == Op::XchgMem => SlowWay::Handler,
            // Of their flags the host's form tells CF alone.
            Way::Update if matches!(uop.op, Op::Bts | Op::Btr | Op::Btc) => SlowWay::Handler,
            // A store of the x87 unit that turns out to be the last instruction of its block has noted its pointers.
            Way::Store if uop.helper.is_some() => SlowWay::Handler,
            // Nobody wants the flags, unless this turns out to be the last instruction: then its handler has made them.
            Way::Update if uop.op != Op::Not && !self.wanted() => SlowWay::Handler,
            Way::Store | Way::Update => SlowWay::Store,
        }
    }

    /// The ways on of an access that is no hit.
    fn slow_access(&mut self, access: &Access, cold: &ColdAccess) {
        let &ColdAccess { slow_way, memo, site, then, restore, live, slow, found, done } = cold;
        self.missed(memo, access, slow, found, done);
        let gates = self.context.gates;
        let request = match slow_way {
            SlowWay::Load | SlowWay::Store => straddle::request(site, access.bytes),
            SlowWay::Handler => straddle::whole(site, access.bytes),
        };
        self.asm.mov_imm64(S1, request);
        if slow_way == SlowWay::Load {
            self.asm.call(gates.load[live].0);
            return self.touch_found(access, found, done);
        }
        let reads = slow_way == SlowWay::Store && access.way == Way::Update;
        self.asm.call(if reads { gates.load_for_update[live].0 } else { gates.reserve[live].0 });
        self.unless_found(access, found, done);
        let asm = &mut *self.asm;
        if slow_way == SlowWay::Store {
            touch(asm, access, None);
            if restore {
                flags::save(asm);
            }
        }
        asm.mov_imm32(S1, then);
        asm.call(if slow_way == SlowWay::Store { gates.commit[live].0 } else { gates.step[live].0 });
        if restore {
            flags::load(asm);
        }
        asm.jmp(done);
    }

    /// [`Op::Check`]: the linear address of an operand after its segment's checks.
    pub(super) fn check(&mut self, uop: &Uop) -> bool {
        let seg = offset_of!(Vcpu, state) + offset_of!(State, seg) + uop.seg as usize * size_of::<Segment>();
        let offset = Mem { kind: if uop.width == Width::B8 { AddrKind::Flat64 } else { AddrKind::Flat32 }, ..uop.mem };
        let long = self.context.key.mode.has(ModeBits::L);
        if self.context.key.mode.has(ModeBits::ALIGN) {
            return false;
        }
        if long {
            if uop.width == Width::B2 {
                return false;
            }
            self.clobber();
            self.protect(uop.dst);
            self.address(&offset);
            // An address that is not canonical never hits the TLB: the access finds it.
            if matches!(uop.seg, Seg::Fs | Seg::Gs) {
                self.asm.alu(Alu::Add, Width::B8, S0, Rm::cpu(seg + offset_of!(Segment, base)));
            }
        } else {
            self.protect(uop.dst);
            self.checked_segment(uop, &offset, seg);
        }
        self.asm.store(Width::B8, Rm::cpu(slot_offset(uop.dst)), S0);
        true
    }

    /// A segment outside 64-bit mode: present, of the right kind, expand-up, within the limit; anything else is the handler's.
    fn checked_segment(&mut self, uop: &Uop, offset: &Mem, seg: usize) {
        use crate::state::segment::rights;
        self.clobber();
        let slow = self.asm.label();
        let done = self.asm.label();
        self.address(offset);
        if uop.width == Width::B2 {
            self.asm.load_zero(Width::B2, S0, Rm::R(S0));
        }
        let asm = &mut *self.asm;
        // Expand-up data; for writes also writable.
        let (mask, value) = match uop.cond {
            0 => (rights::CODE | rights::DOWN_CONFORMING | rights::S, rights::S),
            _ => (
                rights::CODE | rights::DOWN_CONFORMING | rights::S | rights::READ_WRITE,
                rights::S | rights::READ_WRITE,
            ),
        };
        asm.load_zero(Width::B2, S1, Rm::cpu(seg + offset_of!(Segment, rights)));
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S1), i64::from(mask));
        asm.alu_imm(Alu::Cmp, Width::B4, Rm::R(S1), i64::from(value));
        asm.jcc(5, slow);
        asm.load(Width::B4, S1, Rm::cpu(seg + offset_of!(Segment, limit)));
        if uop.imm > 1 {
            asm.alu_imm(Alu::Sub, Width::B8, Rm::R(S1), uop.imm - 1);
            asm.jcc(8, slow);
        }
        asm.alu(Alu::Cmp, Width::B8, S0, Rm::R(S1));
        asm.jcc(7, slow);
        asm.alu(Alu::Add, Width::B4, S0, Rm::cpu(seg + offset_of!(Segment, base)));
        asm.bind(done);
        let site = self.step_site(uop);
        let site = self.add_site(site);
        let live = self.live.index();
        let dst = uop.dst;
        self.behind(move |e| {
            e.asm.bind(slow);
            e.asm.mov_imm32(S1, site);
            e.asm.call(e.context.gates.step[live].0);
            e.asm.load(Width::B8, S0, Rm::cpu(slot_offset(dst)));
            e.asm.jmp(done);
        });
    }

    /// The fault exit of an instruction, for conditions found in line.
    pub(super) fn fault_label(&mut self, uop: &Uop, status: Status) -> Label {
        let site = self.site(uop);
        let site = self.add_site(site);
        self.exit_label(status, site)
    }

    /// A load into the second scratch register, zero-extended.
    pub(super) fn load_to_scratch(&mut self, uop: &Uop, width: Width) {
        let form = match width {
            Width::B1 => Form::new(super::asm::Map::M0f, 0xb6),
            Width::B2 => Form::new(super::asm::Map::M0f, 0xb7),
            Width::B4 | Width::B8 => Form::sized(super::asm::Map::One, 0x8b, width),
        };
        let bytes = width.bytes() as u8;
        let access = Access::plain(form, Value::Reg(S1), bytes, Way::Load);
        self.access(uop, access);
    }

    /// The value to compare or combine a recipe with, kept in the frame.
    pub(super) fn hold(&mut self, reg: Reg) {
        self.asm.store(Width::B8, Rm::cpu(frame!(held)), reg);
    }
}

/// The entry of the TLB for the address in the first scratch register, and where in its page the address is, compared with a
/// number to be put in; where it is not above that, what the entry adds. Gives the offsets of the number and of the jump's
/// displacement.
pub(super) fn fixed_check(asm: &mut Asm, way: Way) -> (usize, usize) {
    asm.rorx(Width::B8, S1, Rm::R(S0), 7);
    asm.alu(Alu::And, Width::B4, S1, Rm::cpu(frame::DATA_MASK));
    asm.alu(Alu::Add, Width::B8, S1, Rm::cpu(frame::DATA));
    asm.alu(Alu::Xor, Width::B8, S0, Rm::Base(S1, tag(way)));
    asm.alu_imm(Alu::Cmp, Width::B8, Rm::R(S0), 4096);
    let imm = asm.len() - 4;
    asm.raw(&[0x0f, 0x87, 0, 0, 0, 0]); // JA
    let displacement = asm.len() - 4;
    asm.load(Width::B8, S1, Rm::Base(S1, offset_of!(DataEntry, host) as i32));
    (imm, displacement)
}

/// Offset in an entry of the TLB of the tag for a way.
pub(super) fn tag(way: Way) -> i32 {
    match way {
        Way::Load => offset_of!(DataEntry, read) as i32,
        Way::Store | Way::Update => offset_of!(DataEntry, write) as i32,
    }
}

/// The displacement as the host's instructions take it, if they can.
pub(super) fn displacement(mem: &Mem) -> Option<i32> {
    match mem.kind {
        AddrKind::Flat32 => Some(mem.disp as i32),
        _ => i32::try_from(mem.disp).ok(),
    }
}

/// `to` = a register and a displacement.
pub(super) fn lea(asm: &mut Asm, to: Reg, At { base, disp, width }: At) {
    match (disp, width) {
        (0, Width::B8) => asm.mov(to, base),
        (0, _) => asm.load(width, to, Rm::R(base)),
        _ => asm.lea(width, to, Rm::Base(base, disp)),
    }
}

/// The operand on the host: what the second scratch register adds, and the address.
fn place_of(at: Option<At>) -> Rm {
    match at {
        Some(At { base, disp, .. }) => Rm::Full { base: S1, index: base, scale: 0, disp },
        None => Rm::Pair(S1, S0),
    }
}

/// The access itself, to `place_of`, and what goes with it.
fn touch(asm: &mut Asm, access: &Access, at: Option<At>) {
    operate(asm, access, place_of(at));
    if access.sp != 0 {
        asm.lea(access.sp_width, SP, Rm::Base(SP, i32::from(access.sp)));
    }
}

fn operate(asm: &mut Asm, access: &Access, operand: Rm) {
    if let Value::Reg(reg) = access.value {
        if access.carry {
            flags::load_carry(asm);
        }
        return asm.op(access.form, reg, operand);
    }
    let (Value::In(n) | Value::Out(n) | Value::InOut(n) | Value::Reg(n)) = access.value;
    let place = Rm::cpu(slot_offset(n));
    asm.lea(Width::B8, S0, operand);
    if !matches!(access.value, Value::Out(_)) {
        asm.load(Width::B8, S1, place);
    }
    if access.carry {
        flags::load_carry(asm);
    }
    asm.op(access.form, S1, Rm::Base(S0, 0));
    if !matches!(access.value, Value::In(_)) {
        asm.store(Width::B8, place, S1);
    }
}
