//! One block to host code: walks its uops, and keeps track of where flags and vector registers are.

use super::asm::{Alu, Asm, Rm};
use super::behind::Nested;
use super::flags::{FlagPlaces, Recipe};
use super::gate::{Gates, Status};
use super::registers::{FUEL, S0, S1};
use super::site::{Extra, Marks, Place, Site, Sites, X87};
use super::{Disable, frame, memo, vector_run};
use crate::cache::{BlockKey, Leave, Step};
use crate::mode::ModeBits;
use crate::state::flags;
use crate::uop::list::Effect;
use crate::uop::{FlagUse, Op, Uop, Width};
use crate::vcpu::Vcpu;
use umbra_mmu::addr::PhysPage;
use umbra_mmu::tlb::{FetchEntry, fetch_id};

/// Which floating-point units hold the guest's registers in the host's.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Live(u8);

impl Live {
    /// XMM, YMM and MXCSR.
    pub const VECTORS: Live = Live(1);
    /// The x87 unit.
    pub const X87: Live = Live(2);
    /// The number of combinations.
    pub const ALL: usize = 4;
    /// Both.
    pub const fn with(self, other: Live) -> Live {
        Live(self.0 | other.0)
    }
    /// Whether these are among them.
    pub const fn has(self, other: Live) -> bool {
        self.0 & other.0 != 0
    }
    /// A number below [`Live::ALL`].
    pub const fn index(self) -> usize {
        (self.0 & 3) as usize
    }
    /// From its number.
    pub const fn of(index: usize) -> Live {
        Live(index as u8 & 3)
    }
}

/// What a unit of code was made for, beside its block.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which units are the host's at entry.
    pub live: Live,
    /// The flags at entry, if they are not in the image.
    pub recipe: Option<Recipe>,
}

/// Facts about the block that is being emitted.
pub struct Context<'a> {
    /// Its key.
    pub key: BlockKey,
    /// Its uops.
    pub uops: &'a [Uop],
    /// Offset of each instruction, and of the end.
    pub offsets: &'a [u16],
    /// The page that its last instruction runs into, by linear address.
    pub second: Option<(u64, PhysPage)>,
    /// The common code.
    pub gates: &'a Gates,
    /// What is switched off.
    pub disable: Disable,
    /// Number of the unit.
    pub unit: u32,
    /// Makes the interpreter's step of a uop.
    pub step: &'a mut dyn FnMut(&Uop) -> Step,
    /// How many memos were given out.
    pub memos: memo::Given,
    /// Uops whose accesses get none.
    pub far: &'a [u16],
}

/// Where emission is, and what it knows there.
#[derive(Copy, Clone, Debug)]
pub(super) struct Point {
    at: usize,
    places: FlagPlaces,
    live: Live,
    x87: Option<X87>,
}

/// What emitting a block fills, kept from one to the next: to allocate it anew took longer than to fill it.
#[derive(Default)]
pub struct Workspace {
    nested: Nested,
    needed: Vec<u64>,
}

/// The state of emitting one block.
pub struct Emitter<'a> {
    pub(super) asm: &'a mut Asm,
    pub(super) context: Context<'a>,
    /// All sites.
    pub(super) sites: &'a mut Sites,
    /// What is to go behind the block beside what is there.
    pub(super) nested: &'a mut Nested,
    /// Where the flags are now.
    pub(super) places: FlagPlaces,
    /// Which units are the host's now.
    pub(super) live: Live,
    /// The last x87 instruction of this block so far, if its pointers are not noted yet.
    pub(super) x87: Option<X87>,
    /// What the sites behind an x87 instruction have.
    noted: Option<(X87, Extra)>,
    /// The status flags that are needed before each uop.
    needed: &'a [u64],
    /// Accesses get no memos for now: they are those of a run that has one.
    pub(super) without_memos: bool,
    /// Index of the current uop.
    at: usize,
}

impl<'a> Emitter<'a> {
    /// Emits a block. Gives whether it needs the flags at its start, and how many memos were given out.
    pub fn run(
        asm: &'a mut Asm,
        sites: &'a mut Sites,
        workspace: &'a mut Workspace,
        context: Context<'a>,
        variant: Variant,
    ) -> (bool, memo::Given) {
        let Workspace { nested, needed } = workspace;
        nested.clear();
        find_needed(context.uops, needed);
        let places = match variant.recipe {
            recipe @ Some(_) => FlagPlaces { recipe, ..FlagPlaces::default() },
            None => FlagPlaces::SAVED,
        };
        let mut emitter = Emitter {
            asm,
            context,
            sites,
            nested,
            places,
            live: variant.live,
            x87: None,
            noted: None,
            needed,
            without_memos: false,
            at: 0,
        };
        emitter.take_fuel();
        emitter.check_second_page();
        emitter.load_x87_first();
        emitter.load_vectors_first();
        let uops = emitter.context.uops;
        let mut at = 0;
        while let Some(uop) = uops.get(at) {
            emitter.at = at;
            if let Some(run) = emitter.vector_run(&uops[at..]) {
                at += emitter.run_of_vectors(at, run);
                continue;
            }
            match uop.native {
                Some(native) if emitter.is_native(uop) => {
                    let group = vector_run::group(&uops[at..]);
                    let len = group.len();
                    for check in group.iter().filter(|u| u.op == Op::Check) {
                        emitter.uop(check);
                    }
                    emitter.at = at + len - 1;
                    emitter.native(&native, group);
                    at += len;
                }
                _ => match emitter.stack_run(&uops[at..]) {
                    Some(run) => at += emitter.run_of_stack(at, run),
                    None => {
                        emitter.uop(uop);
                        at += 1;
                    }
                },
            }
        }
        emitter.make_nested();
        (emitter.needed.first() != Some(&0), emitter.context.memos)
    }

    /// Fuel for the whole block, before anything of it is done. Where it runs out, the vCPU's attention is looked at, and the
    /// block goes on with more of it, or emitted code is left.
    fn take_fuel(&mut self) {
        let [short, on] = [(); 2].map(|()| self.asm.label());
        const { assert!(FUEL == 11 && super::SLACK < 0x80) };
        self.asm.word(0xeb_8349 | u64::from(self.insns()) << 24, 4); // SUB r11, imm8
        // Less, not negative: the host makes one operation of a subtraction and this jump.
        self.asm.jcc(12, short);
        self.asm.bind(on);
        let (live, start) = (self.live.index(), self.start());
        self.behind(move |e| {
            e.asm.bind(short);
            e.asm.mov_imm32(S1, start);
            e.asm.call(e.context.gates.refuel_or_stop[live].0);
            e.asm.jmp(on);
        });
    }

    /// The second page must still be mapped where the block's last bytes came from.
    fn check_second_page(&mut self) {
        let Some(second) = self.context.second else { return };
        let (cold, found) = (self.asm.label(), self.asm.label());
        look_at_page(self.asm, second);
        self.asm.jcc(5, cold);
        self.asm.bind(found);
        let (live, start) = (self.live, self.start());
        self.behind(move |e| {
            e.asm.bind(cold);
            e.asm.mov_imm(S0, second.0);
            e.asm.mov_imm32(S1, start);
            e.asm.call(e.context.gates.fetch[live.index()].0);
            look_at_page(e.asm, second);
            e.asm.jcc(4, found);
            e.exit(Status::Stop, start, live);
        });
    }

    /// Whether the current uop's access is known to go from page to page.
    pub(super) fn is_far(&self) -> bool {
        self.is_listed(self.at as u16)
    }

    /// Whether the run of stack accesses at the current uop is known to fail its check.
    pub(super) fn is_broken(&self) -> bool {
        self.is_listed(self.at as u16 | super::stack_run::BROKEN)
    }

    fn is_listed(&self, place: u16) -> bool {
        !self.context.far.is_empty() && self.context.far.contains(&place)
    }

    /// Whether any flags before the current uop are needed: it may leave the block by a fault, or read them.
    pub(super) fn needed_here(&self) -> bool {
        self.needed.get(self.at) != Some(&0)
    }

    /// Whether any flags after the current uop are needed.
    pub(super) fn needed_after(&self) -> bool {
        self.needed.get(self.at + 1) != Some(&0)
    }

    /// Whether any flags that the current uop sets are needed.
    pub(super) fn wanted(&self) -> bool {
        self.wanted_flags() != 0
    }

    /// The status flags that are needed after the current uop; where its own are not, those that it keeps.
    pub(super) fn wanted_flags(&self) -> u64 {
        let needed = self.needed.get(self.at + 1).copied().unwrap_or(flags::STATUS);
        let uop = &self.context.uops[self.at];
        let partial = matches!(effect(uop), (_, mask) if mask != 0 && mask != flags::STATUS);
        match uop.flags {
            FlagUse::Wanted => needed,
            FlagUse::Dead if partial => needed & !effect(uop).1,
            FlagUse::Dead => 0,
        }
    }

    /// Whether the host's flags are right after the current uop if only those in `exact` are as Umbra defines them.
    pub(super) fn suffices(&self, exact: u64) -> bool {
        self.wanted_flags() & !exact == 0
    }

    /// A site for the current uop, at its instruction's start.
    #[inline(always)]
    pub(super) fn site(&mut self, uop: &Uop) -> Site {
        let marks = Marks::new(self.live, uop.seg == crate::state::Seg::Ss, uop.op.effect() == Effect::Ends);
        Site {
            insn: uop.insn,
            charged: self.insns(),
            uop: self.at as u16,
            offset: self.offset_of(uop.insn),
            next: self.offset_of(uop.insn + 1),
            extra: if self.x87.is_some() { self.x87_extra() } else { Extra::default() },
            ..Site::new(self.context.unit, self.places.at_site(), marks)
        }
    }

    /// That of sites behind the last x87 instruction.
    fn x87_extra(&mut self) -> Extra {
        match self.noted {
            Some((x87, extra)) if Some(x87) == self.x87 => extra,
            _ => {
                let extra = self.sites.push_extra(self.context.unit, self.x87, None);
                self.noted = self.x87.map(|x87| (x87, extra));
                extra
            }
        }
    }

    /// The start of the block.
    pub(super) fn start(&self) -> u32 {
        Place::Start(self.context.unit).number()
    }

    /// The number of instructions.
    fn insns(&self) -> u8 {
        self.context.offsets.len() as u8 - 1
    }

    /// Offset of an instruction in the block.
    fn offset_of(&self, insn: u8) -> u16 {
        self.context.offsets.get(usize::from(insn)).copied().unwrap_or(0)
    }

    /// RIP at an offset from the block's start.
    pub(super) fn rip_at(&self, offset: u16) -> u64 {
        rip_at(&self.context.key, offset)
    }

    /// The uop before this one.
    pub(super) fn before(&self) -> Option<&Uop> {
        self.context.uops.get(self.at.checked_sub(1)?)
    }

    /// Goes on with another uop.
    pub(super) fn set_at(&mut self, at: usize) {
        self.at = at;
    }

    /// Where emission is.
    pub(super) fn point(&self) -> Point {
        Point { at: self.at, places: self.places, live: self.live, x87: self.x87 }
    }

    /// Goes on, in a cold path, from another point; gives where it was.
    pub(super) fn go_to(&mut self, point: Point) -> Point {
        let before = self.point();
        (self.at, self.places, self.live, self.x87) = (point.at, point.places, point.live, point.x87);
        before
    }

    /// Registers a site and gives its number. (It is made where it stays: a copy would wait for all its fields.)
    #[inline(always)]
    pub(super) fn add_site(&mut self, site: Site) -> u32 {
        self.sites.push(site)
    }

    /// A site at which the interpreter's handler runs the current uop.
    pub(super) fn step_site(&mut self, uop: &Uop) -> Site {
        let site = self.site(uop);
        self.with_step(site, uop)
    }

    /// The same place, at which the interpreter's handler runs a uop.
    pub(super) fn with_step(&mut self, site: Site, uop: &Uop) -> Site {
        let first = (self.context.step)(uop);
        let x87 = self.sites.rare(&site).and_then(|rare| rare.x87);
        Site { extra: self.sites.push_extra(site.unit, x87, Some([first, Step { run: end, ..first }])), ..site }
    }

    /// Leaves emitted code at a place where these units are the host's.
    pub(super) fn exit(&mut self, status: Status, place: u32, live: Live) {
        self.asm.mov_imm32(S0, status as u32);
        self.asm.mov_imm32(S1, place);
        self.asm.jmp_to(self.context.gates.exit[live.index()].0);
    }

    /// Runs the current uop by the interpreter's handler.
    pub(super) fn by_interpreter(&mut self, uop: &Uop) {
        self.clobber();
        let site = self.step_site(uop);
        let site = self.add_site(site);
        self.asm.mov_imm32(S1, site);
        let live = self.live.index();
        if uop.op.effect() == Effect::Ends {
            self.note_x87();
            return self.asm.jmp_to(self.context.gates.step_end[live].0);
        }
        self.asm.call(self.context.gates.step[live].0);
        self.places = FlagPlaces::SAVED;
    }

    /// A uop; those that only need what its predecessors left destroyed are kept first.
    pub(super) fn uop(&mut self, uop: &Uop) {
        if leaves_flags(uop) && self.needed_after() {
            // The host's form destroys what somebody still needs.
            self.save_flags();
            self.places = FlagPlaces::SAVED;
            self.by_kind(uop);
            self.places = FlagPlaces::SAVED;
            return;
        }
        self.by_kind(uop);
    }

    fn by_kind(&mut self, uop: &Uop) {
        if self.context.disable.has(Disable::NATIVE) && uop.op.effect() != Effect::Ends {
            return self.by_interpreter(uop);
        }
        let done = match uop.op {
            Op::Call if self.x87_call(uop) || self.bmi_call(uop) => true,
            Op::Call => {
                self.system_call(uop) || self.segment_call(uop) || self.time_stamp(uop) || self.exchange_wide(uop)
            }
            Op::VCall if self.zero_upper(uop) => true,
            Op::CallEnd if self.repeat(uop) => true,
            Op::Nop => true,
            Op::Mov | Op::Movzx8 | Op::Movzx16 | Op::Movsx8 | Op::Movsx16 | Op::Movsx32 => self.transfer(uop),
            Op::Clc | Op::Stc | Op::Cmc => self.carry(uop),
            Op::Lea | Op::ExtractHigh | Op::InsertHigh | Op::Xchg | Op::Bswap => self.rearrange(uop),
            Op::Cmov | Op::Set => self.conditional(uop),
            Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor | Op::Cmp | Op::Test | Op::Adc | Op::Sbb => self.binary(uop),
            Op::Inc | Op::Dec | Op::Neg | Op::Not => self.unary(uop),
            Op::Shl | Op::Shr | Op::Sar | Op::Rol | Op::Ror | Op::Rcl | Op::Rcr | Op::Shld | Op::Shrd => {
                self.shift(uop)
            }
            Op::Imul | Op::Imul3 | Op::MulWide | Op::ImulWide | Op::Div | Op::Idiv => self.multiply(uop),
            Op::Bt | Op::Bts | Op::Btr | Op::Btc => self.bit_test(uop),
            Op::Bsf | Op::Bsr | Op::Tzcnt | Op::Lzcnt | Op::Popcnt => self.scan(uop),
            Op::XchgMem | Op::Xadd | Op::Cmpxchg => self.exchange(uop),
            Op::Push | Op::Pop | Op::Leave | Op::AddSp => self.stack(uop),
            Op::Selector => self.selector(uop),
            Op::Rflags => self.rflags(uop),
            Op::Cld | Op::Std => self.direction(uop),
            Op::Check => self.check(uop),
            Op::Jmp | Op::End | Op::Jcc | Op::CmpJcc | Op::TestJcc | Op::CallNear => self.direct(uop),
            Op::JmpInd | Op::CallInd | Op::Ret => self.indirect(uop),
            _ => false,
        };
        if !done {
            self.by_interpreter(uop);
        }
    }
}

/// Ends the steps of a single uop.
fn end(_: &mut Vcpu, _: &Step) -> Leave {
    Leave::NotTaken
}

/// RIP at an offset from a block's start.
pub(super) fn rip_at(key: &BlockKey, offset: u16) -> u64 {
    let rip = key.rip.wrapping_add(u64::from(offset));
    if key.mode.has(ModeBits::L) { rip } else { rip & 0xffff_ffff }
}

/// Compares the fetch TLB's identity for a linear page with the one that code was made for; equal: it still is there.
pub(super) fn look_at_page(asm: &mut Asm, (linear, page): (u64, PhysPage)) {
    asm.mov_imm(S1, linear >> 7 & 0x1fff_ffe0);
    asm.alu(Alu::And, Width::B8, S1, Rm::cpu(frame::FETCH_MASK));
    asm.alu(Alu::Add, Width::B8, S1, Rm::cpu(frame::FETCH));
    asm.mov_imm(S0, fetch_id(linear, page));
    asm.alu(Alu::Cmp, Width::B8, S0, Rm::Base(S1, std::mem::offset_of!(FetchEntry, id) as i32));
}

/// The flags that are needed before each uop: somebody reads them, or may see them, before they are replaced.
fn find_needed(uops: &[Uop], needed: &mut Vec<u64>) {
    needed.clear();
    needed.resize(uops.len() + 1, flags::STATUS);
    for (at, uop) in uops.iter().enumerate().rev() {
        let (sees, replaces) = effect(uop);
        // What does not show its flags leaves those before it alone (CDQ's shift).
        let replaces = if leaves_flags(uop) { 0 } else { replaces };
        needed[at] = sees | needed[at + 1] & !replaces;
    }
}

/// Whether a uop that would replace all flags leaves them as they are, since nobody reads its own.
fn leaves_flags(uop: &Uop) -> bool {
    uop.flags == FlagUse::Dead && effect(uop).1 == flags::STATUS
}

/// Which flags a uop reads or may show by leaving the block, and which it replaces whatever its operands are.
fn effect(uop: &Uop) -> (u64, u64) {
    use flags::{CF, OF, STATUS, ZF};
    if uop.form.has_memory() && uop.op != Op::Lea {
        return (STATUS, 0);
    }
    // A count in CL may be zero; so may a masked immediate.
    let counted = |mask| if uop.imm > 0 && uop.imm & 31 != 0 { mask } else { 0 };
    match uop.op {
        Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor | Op::Cmp | Op::Test | Op::Neg => (0, STATUS),
        Op::CmpJcc | Op::TestJcc => (0, STATUS),
        Op::Imul | Op::Imul3 | Op::MulWide | Op::ImulWide | Op::Popcnt | Op::Xadd | Op::Cmpxchg => (0, STATUS),
        Op::Adc | Op::Sbb => (CF, STATUS),
        Op::Inc | Op::Dec => (0, STATUS & !CF),
        Op::Shl | Op::Shr | Op::Sar | Op::Shld | Op::Shrd => (0, counted(STATUS)),
        Op::Rol | Op::Ror => (0, counted(CF | OF)),
        Op::Rcl | Op::Rcr => (CF, counted(CF | OF)),
        Op::Bt | Op::Bts | Op::Btr | Op::Btc | Op::Clc | Op::Stc => (0, CF),
        Op::Cmc => (CF, CF),
        Op::Bsf | Op::Bsr => (0, ZF),
        Op::Tzcnt | Op::Lzcnt => (0, ZF | CF),
        Op::Cmov | Op::Set => (STATUS, 0),
        Op::Mov | Op::Movzx8 | Op::Movzx16 | Op::Movsx8 | Op::Movsx16 | Op::Movsx32 => (0, 0),
        Op::Selector => (0, 0),
        Op::Lea | Op::ExtractHigh | Op::InsertHigh | Op::Xchg | Op::Bswap | Op::Not | Op::Nop | Op::AddSp => (0, 0),
        _ => (STATUS, 0),
    }
}
