//! AVX and AVX2 instructions that move data across 128-bit lanes (SDM vol. 1, chapter 14).

use super::lanes::{high, join, low, map, pair, split};
use super::{Direct, direct, set_ymm, ymm};
use crate::helpers::Flow;
use crate::uop::Width;

/// Declares helpers `a = f(b, c, imm)` on whole 256-bit registers.
macro_rules! wide {
    ($($(#[$doc:meta])* $name:ident = |$x:pat_param, $y:pat_param, $imm:pat_param| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = {
            fn whole($x: [u128; 2], $y: [u128; 2], $imm: u8) -> [u128; 2] {
                $body
            }
            direct!(stringify!($name), |cpu, args| {
                    let result = whole(ymm(cpu, args.b), ymm(cpu, args.c), args.imm as u8);
                    set_ymm(cpu, args.a, result);
                    Ok(Flow::Next)
                })
        };
    )*};
}

/// Four quadwords of a register.
fn quads(x: [u128; 2]) -> [u64; 4] {
    [low(x[0]), high(x[0]), low(x[1]), high(x[1])]
}

/// One half of `x`, `y` or zero, chosen by a field of VPERM2F128's immediate.
fn half(x: [u128; 2], y: [u128; 2], field: u8) -> u128 {
    match field & 11 {
        0 => x[0],
        1 => x[1],
        2 => y[0],
        3 => y[1],
        _ => 0,
    }
}

wide! {
    /// VPERM2F128, VPERM2I128.
    PERM2X128 = |x, y, imm| [half(x, y, imm), half(x, y, imm >> 4)];
    /// VINSERTF128, VINSERTI128.
    INSERT128 = |x, y, imm| if imm & 1 != 0 { [x[0], y[0]] } else { [y[0], x[1]] };
    /// VEXTRACTF128, VEXTRACTI128.
    EXTRACT128 = |x, _, imm| [x[(imm & 1) as usize], 0];
    /// VPERMQ, VPERMPD.
    PERMQ = |x, _, imm| {
        let q = quads(x);
        let pick = |i: u8| q[(imm >> (2 * i) & 3) as usize];
        [pair(pick(0), pick(1)), pair(pick(2), pick(3))]
    };
    /// VPERMD, VPERMPS: indices in `b`, data in `c`.
    PERMD = |x, y, _| {
        let (first, second) = (split::<u32>(y[0]), split::<u32>(y[1]));
        let pick = |i: u32| if i & 4 != 0 { second[(i & 3) as usize] } else { first[(i & 3) as usize] };
        [map(x[0], pick), map(x[1], pick)]
    };
    /// The low bits of `b` below, and shifted right by `imm` bits above: sources of VPMOVSX and VPMOVZX.
    SPREAD = |x, _, imm| [x[0], x[0] >> (imm & 127)];
    /// VBROADCASTF128, VBROADCASTI128.
    BROADCAST128 = |x, _, _| [x[0], x[0]];
}

/// Declares broadcasts of the low element of `b`; `width` of 8 bytes means a 256-bit destination.
macro_rules! broadcasts {
    ($($(#[$doc:meta])* $name:ident = |$x:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let [$x, _] = ymm(cpu, args.b);
                let result: u128 = $body;
                set_ymm(cpu, args.a, [result, if args.width == Width::B8 { result } else { 0 }]);
                Ok(Flow::Next)
            });
    )*};
}
broadcasts! {
    /// VPBROADCASTB.
    BROADCASTB = |x| join::<u8>([x as u8; 16]);
    /// VPBROADCASTW.
    BROADCASTW = |x| join::<u16>([x as u16; 8]);
    /// VPBROADCASTD, VBROADCASTSS.
    BROADCASTD = |x| join::<u32>([x as u32; 4]);
    /// VPBROADCASTQ, VBROADCASTSD.
    BROADCASTQ = |x| pair(low(x), low(x));
}

/// VZEROUPPER: clears bits 255–128 of the first `a` registers. VZEROALL (`c` = 1): all of them.
pub static ZERO: Direct = direct!("vzero", |cpu, args| {
    for register in cpu.state.vectors.regs.iter_mut().take(usize::from(args.a.min(16))) {
        let kept = if args.c != 0 { [0, 0] } else { [register[0], register[1]] };
        *register = [kept[0], kept[1], 0, 0];
    }
    Ok(Flow::Next)
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_come_from_either_register() {
        let (x, y) = ([1, 2], [3, 4]);
        for (field, expected) in [(0, 1), (1, 2), (2, 3), (3, 4), (8, 0), (11, 0)] {
            assert_eq!(half(x, y, field), expected, "{field}");
        }
    }
}
