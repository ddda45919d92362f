//! XCHG with memory, XADD, CMPXCHG, and CMPXCHG8B and CMPXCHG16B, with which allocators of kernels take and give back.

use super::address::{Access, Value, Way, tag};
use super::asm::{Alu, Form, Map, Rm};
use super::block::Emitter;
use super::flags::FlagPlaces;
use super::frame::frame;
use super::registers::{S0, S1};
use super::site::Site;
use super::straddle;
use crate::mode::ModeBits;
use crate::state::slots::{T0, T1};
use crate::state::{Seg, flags};
use crate::uop::{AddrKind, Form as Shape, Mem, Op, Uop, Width};

/// ZF in the image of the flags.
const IMAGE_ZF: u8 = flags::ZF.trailing_zeros() as u8 + 8;

impl Emitter<'_> {
    /// XCHG with memory, XADD, CMPXCHG.
    pub(super) fn exchange(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        let bytes = width.bytes() as u8;
        let memory = uop.form.has_memory();
        match uop.op {
            Op::XchgMem => {
                self.protect(uop.src);
                let form = Form::sized(Map::One, 0x87, width);
                let value = Value::both(uop.src);
                let access = Access::plain(form, value, bytes, Way::Update);
                self.access(uop, access);
            }
            Op::Xadd if memory => {
                self.update(uop, Form::sized(Map::M0f, 0xc1, width).locked(uop.lock), Value::both(uop.src));
            }
            Op::Cmpxchg if memory => {
                self.update(uop, Form::sized(Map::M0f, 0xb1, width).locked(uop.lock), Value::source(uop.src));
            }
            _ => return false,
        }
        true
    }

    /// CMPXCHG8B and CMPXCHG16B: the host's own, whose registers are the guest's.
    pub(super) fn exchange_wide(&mut self, uop: &Uop) -> bool {
        let mode = self.context.key.mode;
        let (long, name) = (mode.has(ModeBits::L), uop.helper.map_or("", |helper| helper.name));
        let bytes: u8 = match name {
            "cmpxchg8b" => 8,
            "cmpxchg16b" if long => 16,
            _ => return false,
        };
        if mode.has(ModeBits::ALIGN) {
            return false;
        }
        self.save_flags();
        self.places = FlagPlaces::SAVED;
        let (width, kind) = if long { (Width::B8, AddrKind::Flat64) } else { (Width::B4, AddrKind::Flat32) };
        let mem = Mem { kind, base: T0, ..Mem::checked(T0) };
        let flat = mode.flat(uop.seg) && (long || uop.seg != Seg::Cs);
        if flat {
            self.address(&mem);
        } else {
            let check = Uop {
                op: Op::Check,
                dst: T1,
                width,
                cond: 1,
                imm: i64::from(bytes),
                helper: None,
                form: Shape::M,
                mem,
                ..*uop
            };
            if !self.check(&check) {
                return false;
            }
        }
        let [slow, odd, found, done] = [(); 4].map(|()| self.asm.label());
        if bytes == 16 {
            self.asm.op(Form::new(Map::One, 0xf6).bytes(true).with(15, 1), 0, Rm::R(S0)); // TEST
            self.asm.jcc(5, odd);
        }
        self.check_tlb(bytes, Way::Update, slow);
        self.asm.bind(found);
        let form = Form::new(Map::M0f, 0xc7).wide(bytes == 16);
        self.asm.op(form.locked(uop.lock), 1, Rm::Pair(S1, S0));
        self.asm.setcc(4, Rm::R(S0));
        self.asm.load_zero(Width::B1, S0, Rm::R(S0));
        self.asm.shift_imm(4, Width::B4, Rm::R(S0), IMAGE_ZF);
        self.asm.alu_imm(Alu::And, Width::B4, Rm::cpu(frame!(image)), !(1i64 << IMAGE_ZF));
        self.asm.op(Form::sized(Map::One, 0x09, Width::B4), S0, Rm::cpu(frame!(image))); // OR
        self.asm.bind(done);
        let live = self.live.index();
        let site = Site { bytes, ..self.site(uop) };
        let whole = self.with_step(site.clone(), uop);
        let site = self.add_site(site);
        self.behind(move |e| {
            let gates = e.context.gates;
            let asm = &mut *e.asm;
            asm.bind(slow);
            asm.alu(Alu::Xor, Width::B8, S0, Rm::Base(S1, tag(Way::Update)));
            asm.mov_imm64(S1, straddle::whole(site, bytes));
            asm.call(gates.reserve[live].0);
            asm.jcc(5, found);
            asm.jmp(odd);
        });
        self.handler_behind(whole, odd, done);
        true
    }
}
