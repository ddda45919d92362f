//! Uops to steps: picks the handler for each form, width and address kind. Exhaustive: a uop without a handler does not compile.

use super::alu::{self, Adc, Add, And, Cmp, Dec, Inc, Neg, Not, Or, Sbb, Sub, Test, Xor};
use super::bit::{self, Bsf, Bsr, Clear, Flip, Keep, Lzcnt, Popcnt, Put, Tzcnt};
use super::branch;
use super::data;
use super::memory::{Checked, Flat32, Flat64};
use super::muldiv;
use super::shift::{self, Cl, Imm, Rcl, Rcr, Rol, Ror, Sar, Shl, Shr};
use super::stack;
use super::vector;
use crate::cache::{BlockCache, Handler, Step};
use crate::uop::{AddrKind, FlagUse, Form, Op, Uop, Width};

/// `$f::<…, T, A, …>` for the uop's width and address kind. `$pre` come before the width, `$post` after the address kind.
macro_rules! memory {
    ($uop:expr, $f:path, [$($pre:ty),*], [$($post:expr),*]) => {{
        use $f as f;
        match ($uop.width, $uop.mem.kind) {
            (Width::B1, AddrKind::Flat64) => f::<$($pre,)* u8, Flat64, $({ $post }),*>,
            (Width::B2, AddrKind::Flat64) => f::<$($pre,)* u16, Flat64, $({ $post }),*>,
            (Width::B4, AddrKind::Flat64) => f::<$($pre,)* u32, Flat64, $({ $post }),*>,
            (Width::B8, AddrKind::Flat64) => f::<$($pre,)* u64, Flat64, $({ $post }),*>,
            (Width::B1, AddrKind::Flat32) => f::<$($pre,)* u8, Flat32, $({ $post }),*>,
            (Width::B2, AddrKind::Flat32) => f::<$($pre,)* u16, Flat32, $({ $post }),*>,
            (Width::B4, AddrKind::Flat32) => f::<$($pre,)* u32, Flat32, $({ $post }),*>,
            (Width::B8, AddrKind::Flat32) => f::<$($pre,)* u64, Flat32, $({ $post }),*>,
            (Width::B1, AddrKind::Checked) => f::<$($pre,)* u8, Checked, $({ $post }),*>,
            (Width::B2, AddrKind::Checked) => f::<$($pre,)* u16, Checked, $({ $post }),*>,
            (Width::B4, AddrKind::Checked) => f::<$($pre,)* u32, Checked, $({ $post }),*>,
            (Width::B8, AddrKind::Checked) => f::<$($pre,)* u64, Checked, $({ $post }),*>,
        }
    }};
}

/// `$f::<…, T, …>` for the uop's width.
macro_rules! width {
    ($uop:expr, $f:path, [$($pre:ty),*], [$($post:expr),*]) => {{
        use $f as f;
        match $uop.width {
            Width::B1 => f::<$($pre,)* u8, $({ $post }),*>,
            Width::B2 => f::<$($pre,)* u16, $({ $post }),*>,
            Width::B4 => f::<$($pre,)* u32, $({ $post }),*>,
            Width::B8 => f::<$($pre,)* u64, $({ $post }),*>,
        }
    }};
}

/// A source that is a slot or memory.
macro_rules! source {
    ($uop:expr, $f:path, [$($pre:ty),*], [$($post:expr),*]) => {
        if $uop.form.has_memory() {
            memory!($uop, $f, [$($pre),*], [true $(, $post)*])
        } else {
            use $f as f;
            match $uop.width {
                Width::B1 => f::<$($pre,)* u8, Flat64, false, $({ $post }),*>,
                Width::B2 => f::<$($pre,)* u16, Flat64, false, $({ $post }),*>,
                Width::B4 => f::<$($pre,)* u32, Flat64, false, $({ $post }),*>,
                Width::B8 => f::<$($pre,)* u64, Flat64, false, $({ $post }),*>,
            }
        }
    };
}

fn binary<O: alu::Binary>(uop: &Uop) -> Handler {
    let dead = uop.flags == FlagUse::Dead && O::WRITES;
    match (uop.form, dead) {
        (Form::RI | Form::R, false) => width!(uop, alu::ri, [O], [true]),
        (Form::RI | Form::R, true) => width!(uop, alu::ri, [O], [false]),
        (Form::RR, false) => width!(uop, alu::rr, [O], [true]),
        (Form::RR, true) => width!(uop, alu::rr, [O], [false]),
        (Form::RM, false) => memory!(uop, alu::rm, [O], [true]),
        (Form::RM, true) => memory!(uop, alu::rm, [O], [false]),
        (Form::MR, _) if uop.lock => memory!(uop, alu::locked_mr, [O], []),
        (Form::MI | Form::M, _) if uop.lock => memory!(uop, alu::locked_mi, [O], []),
        (Form::MR, false) => memory!(uop, alu::mr, [O], [true]),
        (Form::MR, true) => memory!(uop, alu::mr, [O], [false]),
        (Form::MI | Form::M, false) => memory!(uop, alu::mi, [O], [true]),
        (Form::MI | Form::M, true) => memory!(uop, alu::mi, [O], [false]),
    }
}

fn with_carry<O: alu::WithCarry>(uop: &Uop) -> Handler {
    match uop.form {
        Form::RI | Form::R => width!(uop, alu::carry_ri, [O], []),
        Form::RR => width!(uop, alu::carry_rr, [O], []),
        Form::RM => memory!(uop, alu::carry_rm, [O], []),
        Form::MR if uop.lock => memory!(uop, alu::carry_mr, [O], [true]),
        Form::MR => memory!(uop, alu::carry_mr, [O], [false]),
        Form::MI | Form::M if uop.lock => memory!(uop, alu::carry_mi, [O], [true]),
        Form::MI | Form::M => memory!(uop, alu::carry_mi, [O], [false]),
    }
}

fn unary<O: alu::Unary>(uop: &Uop) -> Handler {
    match (uop.form.has_memory(), uop.flags) {
        (true, _) if uop.lock => memory!(uop, alu::unary_m, [O], [true]),
        (true, _) => memory!(uop, alu::unary_m, [O], [false]),
        (false, FlagUse::Wanted) => width!(uop, alu::unary_r, [O], [true]),
        (false, FlagUse::Dead) => width!(uop, alu::unary_r, [O], [false]),
    }
}

/// The count is in the immediate unless that is negative: then in CL.
fn shift<O: shift::Shift>(uop: &Uop) -> Handler {
    fn memory_by<O: shift::Shift, C: shift::Count>(uop: &Uop) -> Handler {
        macro_rules! pick {
            ($($w:ident $t:ty),*) => {
                match (uop.width, uop.mem.kind) {
                    $((Width::$w, AddrKind::Flat64) => shift::m::<O, $t, Flat64, C>,
                    (Width::$w, AddrKind::Flat32) => shift::m::<O, $t, Flat32, C>,
                    (Width::$w, AddrKind::Checked) => shift::m::<O, $t, Checked, C>,)*
                }
            };
        }
        pick!(B1 u8, B2 u16, B4 u32, B8 u64)
    }
    macro_rules! pick {
        ($f:ident, $c:ty) => {
            match uop.width {
                Width::B1 => shift::$f::<O, u8, $c>,
                Width::B2 => shift::$f::<O, u16, $c>,
                Width::B4 => shift::$f::<O, u32, $c>,
                Width::B8 => shift::$f::<O, u64, $c>,
            }
        };
    }
    let by_cl = uop.imm < 0;
    let dead = uop.flags == FlagUse::Dead && !matches!(uop.op, Op::Rcl | Op::Rcr);
    match (uop.form.has_memory(), by_cl, dead) {
        (true, false, _) => memory_by::<O, Imm>(uop),
        (true, true, _) => memory_by::<O, Cl>(uop),
        (false, false, false) => pick!(r, Imm),
        (false, true, false) => pick!(r, Cl),
        (false, false, true) => pick!(r_dead, Imm),
        (false, true, true) => pick!(r_dead, Cl),
    }
}

fn double_shift<const LEFT: bool>(uop: &Uop) -> Handler {
    if uop.form.has_memory() {
        memory!(uop, shift::double_m, [], [LEFT])
    } else {
        width!(uop, shift::double_r, [], [LEFT])
    }
}

fn bit_test<O: bit::Change>(uop: &Uop) -> Handler {
    match uop.form {
        Form::RR => width!(uop, bit::test_r, [O], [true]),
        Form::R | Form::RI => width!(uop, bit::test_r, [O], [false]),
        Form::MR | Form::RM if uop.lock => memory!(uop, bit::test_m, [O], [true, true]),
        Form::MR | Form::RM => memory!(uop, bit::test_m, [O], [true, false]),
        Form::M | Form::MI if uop.lock => memory!(uop, bit::test_m, [O], [false, true]),
        Form::M | Form::MI => memory!(uop, bit::test_m, [O], [false, false]),
    }
}

fn extend<F: crate::memory::Int, const SIGNED: bool>(uop: &Uop) -> Handler {
    macro_rules! pick {
        ($($w:ident $t:ty),*) => {
            match (uop.form.has_memory(), uop.width, uop.mem.kind) {
                $((false, Width::$w, _) => data::extend_rr::<F, $t, SIGNED>,
                (true, Width::$w, AddrKind::Flat64) => data::extend_rm::<F, $t, Flat64, SIGNED>,
                (true, Width::$w, AddrKind::Flat32) => data::extend_rm::<F, $t, Flat32, SIGNED>,
                (true, Width::$w, AddrKind::Checked) => data::extend_rm::<F, $t, Checked, SIGNED>,)*
            }
        };
    }
    pick!(B1 u8, B2 u16, B4 u32, B8 u64)
}

/// Handlers of stack operations by operand width and (`cond`) log2 width of the stack pointer.
macro_rules! by_stack {
    ($uop:expr, $f:path) => {{
        use $f as f;
        match ($uop.width, $uop.cond) {
            (Width::B8, _) => f::<u64, u64, Flat64>,
            (Width::B4, 1) => f::<u32, u16, Flat64>,
            (Width::B4, _) => f::<u32, u32, Flat64>,
            (_, 1) => f::<u16, u16, Flat64>,
            (_, 2) => f::<u16, u32, Flat64>,
            (_, _) => f::<u16, u64, Flat64>,
        }
    }};
}

macro_rules! by_stack_memory {
    ($uop:expr, $f:path $(, $post:expr)?) => {{
        use $f as f;
        match ($uop.width, $uop.cond, $uop.mem.kind) {
            (Width::B8, _, AddrKind::Flat64) => f::<u64, u64, Flat64 $(, $post)?>,
            (Width::B8, _, AddrKind::Flat32) => f::<u64, u64, Flat32 $(, $post)?>,
            (Width::B8, _, AddrKind::Checked) => f::<u64, u64, Checked $(, $post)?>,
            (Width::B4, 1, AddrKind::Flat64 | AddrKind::Flat32) => f::<u32, u16, Flat32 $(, $post)?>,
            (Width::B4, 1, AddrKind::Checked) => f::<u32, u16, Checked $(, $post)?>,
            (Width::B4, _, AddrKind::Flat64 | AddrKind::Flat32) => f::<u32, u32, Flat32 $(, $post)?>,
            (Width::B4, _, AddrKind::Checked) => f::<u32, u32, Checked $(, $post)?>,
            (_, 1, AddrKind::Flat64 | AddrKind::Flat32) => f::<u16, u16, Flat32 $(, $post)?>,
            (_, 1, AddrKind::Checked) => f::<u16, u16, Checked $(, $post)?>,
            (_, 2, AddrKind::Flat64 | AddrKind::Flat32) => f::<u16, u32, Flat32 $(, $post)?>,
            (_, 2, AddrKind::Checked) => f::<u16, u32, Checked $(, $post)?>,
            (_, _, AddrKind::Flat64) => f::<u16, u64, Flat64 $(, $post)?>,
            (_, _, AddrKind::Flat32) => f::<u16, u64, Flat32 $(, $post)?>,
            (_, _, AddrKind::Checked) => f::<u16, u64, Checked $(, $post)?>,
        }
    }};
}

/// Handlers with the condition as a constant.
macro_rules! by_condition {
    ($uop:expr, $m:ident, $($arg:tt)*) => {
        match $uop.cond & 15 {
            0 => $m!($($arg)*, 0), 1 => $m!($($arg)*, 1), 2 => $m!($($arg)*, 2), 3 => $m!($($arg)*, 3),
            4 => $m!($($arg)*, 4), 5 => $m!($($arg)*, 5), 6 => $m!($($arg)*, 6), 7 => $m!($($arg)*, 7),
            8 => $m!($($arg)*, 8), 9 => $m!($($arg)*, 9), 10 => $m!($($arg)*, 10), 11 => $m!($($arg)*, 11),
            12 => $m!($($arg)*, 12), 13 => $m!($($arg)*, 13), 14 => $m!($($arg)*, 14), _ => $m!($($arg)*, 15),
        }
    };
}

macro_rules! fused {
    ($uop:expr, $f:ident, $cond:literal) => {
        match $uop.width {
            Width::B1 => branch::$f::<u8, $cond>,
            Width::B2 => branch::$f::<u16, $cond>,
            Width::B4 => branch::$f::<u32, $cond>,
            Width::B8 => branch::$f::<u64, $cond>,
        }
    };
}

macro_rules! plain_jcc {
    ($uop:expr, $cond:literal) => {
        branch::jcc::<$cond>
    };
}

fn by_address(uop: &Uop, flat64: Handler, flat32: Handler, checked: Handler) -> Handler {
    match uop.mem.kind {
        AddrKind::Flat64 => flat64,
        AddrKind::Flat32 => flat32,
        AddrKind::Checked => checked,
    }
}

fn mov(uop: &Uop) -> Handler {
    match uop.form {
        Form::RR | Form::R => width!(uop, data::mov_rr, [], []),
        Form::RI => width!(uop, data::mov_ri, [], []),
        Form::RM => memory!(uop, data::mov_rm, [], []),
        Form::MR => memory!(uop, data::mov_mr, [], []),
        Form::MI | Form::M => memory!(uop, data::mov_mi, [], []),
    }
}

/// The handler of a uop.
fn handler(uop: &Uop) -> Handler {
    let memory_form = uop.form.has_memory();
    match uop.op {
        Op::Mov => mov(uop),
        Op::Movzx8 => extend::<u8, false>(uop),
        Op::Movzx16 => extend::<u16, false>(uop),
        Op::Movsx8 => extend::<u8, true>(uop),
        Op::Movsx16 => extend::<u16, true>(uop),
        Op::Movsx32 => extend::<u32, true>(uop),
        Op::Lea if uop.cond == 1 => data::lea16,
        Op::Lea => width!(uop, data::lea, [], []),
        Op::ExtractHigh => data::extract_high,
        Op::InsertHigh => data::insert_high,
        Op::Xchg => width!(uop, data::xchg, [], []),
        Op::Bswap if uop.width == Width::B8 => data::bswap64,
        Op::Bswap => data::bswap32,
        Op::Cmov if memory_form => memory!(uop, data::cmov_rm, [], []),
        Op::Cmov => width!(uop, data::cmov_rr, [], []),
        Op::Set if memory_form => by_address(uop, data::set_m::<Flat64>, data::set_m::<Flat32>, data::set_m::<Checked>),
        Op::Set => data::set_r,
        Op::Add => binary::<Add>(uop),
        Op::Adc => with_carry::<Adc>(uop),
        Op::Sub => binary::<Sub>(uop),
        Op::Sbb => with_carry::<Sbb>(uop),
        Op::And => binary::<And>(uop),
        Op::Or => binary::<Or>(uop),
        Op::Xor => binary::<Xor>(uop),
        Op::Cmp => binary::<Cmp>(uop),
        Op::Test => binary::<Test>(uop),
        Op::Inc => unary::<Inc>(uop),
        Op::Dec => unary::<Dec>(uop),
        Op::Neg => unary::<Neg>(uop),
        Op::Not => unary::<Not>(uop),
        Op::Shl => shift::<Shl>(uop),
        Op::Shr => shift::<Shr>(uop),
        Op::Sar => shift::<Sar>(uop),
        Op::Rol => shift::<Rol>(uop),
        Op::Ror => shift::<Ror>(uop),
        Op::Rcl => shift::<Rcl>(uop),
        Op::Rcr => shift::<Rcr>(uop),
        Op::Shld => double_shift::<true>(uop),
        Op::Shrd => double_shift::<false>(uop),
        Op::Imul => source!(uop, muldiv::imul, [], []),
        Op::Imul3 => source!(uop, muldiv::imul3, [], []),
        Op::MulWide => source!(uop, muldiv::mul_wide, [], [false]),
        Op::ImulWide => source!(uop, muldiv::mul_wide, [], [true]),
        Op::Div => source!(uop, muldiv::div, [], [false]),
        Op::Idiv => source!(uop, muldiv::div, [], [true]),
        Op::Bt => bit_test::<Keep>(uop),
        Op::Bts => bit_test::<Put>(uop),
        Op::Btr => bit_test::<Clear>(uop),
        Op::Btc => bit_test::<Flip>(uop),
        Op::Bsf => source!(uop, bit::scan, [Bsf], []),
        Op::Bsr => source!(uop, bit::scan, [Bsr], []),
        Op::Tzcnt => source!(uop, bit::scan, [Tzcnt], []),
        Op::Lzcnt => source!(uop, bit::scan, [Lzcnt], []),
        Op::Popcnt => source!(uop, bit::scan, [Popcnt], []),
        Op::XchgMem => memory!(uop, data::xchg_mem, [], []),
        Op::Xadd if memory_form && uop.lock => memory!(uop, data::xadd_mr, [], [true]),
        Op::Xadd if memory_form => memory!(uop, data::xadd_mr, [], [false]),
        Op::Xadd => width!(uop, data::xadd_rr, [], []),
        Op::Cmpxchg if memory_form && uop.lock => memory!(uop, data::cmpxchg_mr, [], [true]),
        Op::Cmpxchg if memory_form => memory!(uop, data::cmpxchg_mr, [], [false]),
        Op::Cmpxchg => width!(uop, data::cmpxchg_rr, [], []),
        Op::Clc | Op::Stc | Op::Cmc => data::set_carry,
        Op::Cld | Op::Std => data::set_direction,
        Op::Selector => data::selector,
        Op::Rflags => data::rflags,
        Op::Lahf => data::lahf,
        Op::Sahf => data::sahf,
        Op::Push => match uop.form {
            Form::RI => by_stack!(uop, stack::push_i),
            Form::M | Form::RM | Form::MR | Form::MI => by_stack_memory!(uop, stack::push_m),
            Form::R | Form::RR => by_stack!(uop, stack::push_r),
        },
        Op::Pop => by_stack!(uop, stack::pop_r),
        Op::Leave => by_stack!(uop, stack::leave),
        Op::AddSp => match uop.cond {
            1 => stack::add_sp::<u16>,
            2 => stack::add_sp::<u32>,
            _ => stack::add_sp::<u64>,
        },
        Op::Jmp => branch::jmp,
        Op::JmpInd => source!(uop, branch::jmp_ind, [], []),
        Op::Jcc => by_condition!(uop, plain_jcc, uop),
        Op::CmpJcc if uop.form == Form::RI => by_condition!(uop, fused, uop, cmp_ri),
        Op::CmpJcc => by_condition!(uop, fused, uop, cmp_rr),
        Op::TestJcc if uop.form == Form::RI => by_condition!(uop, fused, uop, test_ri),
        Op::TestJcc => by_condition!(uop, fused, uop, test_rr),
        Op::CallNear => by_stack!(uop, branch::call),
        Op::CallInd if memory_form => by_stack_memory!(uop, branch::call_ind, true),
        Op::CallInd => call_register(uop),
        Op::Ret => by_stack!(uop, branch::ret),
        Op::Loop => width!(uop, branch::loop_cx, [], []),
        Op::Check => data::check,
        Op::VLoad => by_address(uop, vector::load::<Flat64>, vector::load::<Flat32>, vector::load::<Checked>),
        Op::VStore => by_address(uop, vector::store::<Flat64>, vector::store::<Flat32>, vector::store::<Checked>),
        Op::VCall => uop.direct.unwrap_or(vector::call_registers),
        Op::Call => vector::call,
        Op::CallEnd => vector::call_end,
        Op::Raise => branch::raise,
        Op::Unimplemented => branch::unimplemented,
        Op::End => branch::end,
        Op::Nop => data::nop,
    }
}

fn call_register(uop: &Uop) -> Handler {
    match (uop.width, uop.cond) {
        (Width::B8, _) => branch::call_ind::<u64, u64, Flat64, false>,
        (Width::B4, 1) => branch::call_ind::<u32, u16, Flat64, false>,
        (Width::B4, _) => branch::call_ind::<u32, u32, Flat64, false>,
        (_, 1) => branch::call_ind::<u16, u16, Flat64, false>,
        (_, 2) => branch::call_ind::<u16, u32, Flat64, false>,
        (_, _) => branch::call_ind::<u16, u64, Flat64, false>,
    }
}

/// The steps of a block's uops; `start` is the block's RIP.
pub fn steps_of(uops: &[Uop], start: u64, cache: &mut BlockCache) -> Box<[Step]> {
    // What does nothing needs no step: its instruction is counted with the block, whose last uop is another.
    let mut steps = Vec::with_capacity(uops.len());
    steps.extend(uops.iter().filter(|uop| uop.op != Op::Nop).map(|uop| step(uop, start, cache)));
    steps.into_boxed_slice()
}

/// The step of one uop of a block at `start`.
pub fn step(uop: &Uop, start: u64, cache: &mut BlockCache) -> Step {
    let mut step = Step {
        run: handler(uop),
        dst: uop.dst,
        src: uop.src,
        base: uop.mem.base,
        index: uop.mem.index,
        scale: uop.mem.scale,
        cond: uop.cond,
        seg_width: uop.seg as u8 | (uop.width as u8) << 4,
        insn: uop.insn,
        imm: uop.imm,
        disp: uop.mem.disp,
    };
    match uop.op {
        Op::Jmp => step.imm = uop.target as i64,
        Op::Jcc | Op::Loop | Op::CallNear => (step.imm, step.disp) = (uop.target as i64, uop.next_rip as i64),
        Op::CmpJcc | Op::TestJcc => {
            if uop.form == Form::RI {
                [step.base, step.index] = (uop.imm as i16).to_le_bytes();
            }
            (step.imm, step.disp) = (uop.target as i64, uop.next_rip as i64);
        }
        Op::CallInd | Op::End => step.imm = uop.next_rip as i64,
        Op::VCall if uop.direct.is_some() => {}
        Op::Call | Op::CallEnd | Op::VCall => {
            let number = uop.helper.map_or(0, |helper| cache.helper_number(helper));
            let offset = uop.next_rip.wrapping_sub(start) & 0xffff;
            step.disp = (offset << 32 | u64::from(number)) as i64;
        }
        Op::Clc | Op::Cld => step.cond = 0,
        Op::Stc | Op::Std => step.cond = 1,
        Op::Cmc => step.cond = 2,
        _ => {}
    }
    step
}
