//! F16C: VCVTPH2PS and VCVTPS2PH (SDM vol. 1, 14.4).

use super::lanes::{join, split};
use super::{Direct, direct, finish, set_ymm, unit, ymm};
use crate::helpers::Flow;
use crate::softfloat::{self as soft, Env, F16, F32, Rounding};
use crate::uop::Width;

fn widen(x: [u16; 4], env: &mut Env) -> u128 {
    join::<F32>(std::array::from_fn(|i| soft::half_to_single(F16(x[i]), env)))
}

fn narrow(x: u128, env: &mut Env) -> u128 {
    let x = split::<F32>(x);
    let mut all = 0;
    for (i, x) in x.into_iter().enumerate() {
        all |= u128::from(soft::single_to_half(x, env).0) << (16 * i);
    }
    all
}

/// VCVTPH2PS: vector `a` from the halves of `b`; `width` of 8 bytes means eight of them.
pub static CVTPH2PS: Direct = direct!("vcvtph2ps", |cpu, args| {
    let mut unit = unit(cpu);
    let h = split::<u16>(ymm(cpu, args.b)[0]);
    let wide = args.width == Width::B8;
    let (first, second) = unit.exactly(|env| {
        let first = widen([h[0], h[1], h[2], h[3]], env);
        (first, if wide { widen([h[4], h[5], h[6], h[7]], env) } else { 0 })
    });
    finish(cpu, &unit)?;
    set_ymm(cpu, args.a, [first, second]);
    Ok(Flow::Next)
});

/// VCVTPS2PH: vector `a` from the singles of `b`; `imm` selects the rounding mode as ROUNDPS's does.
pub static CVTPS2PH: Direct = direct!("vcvtps2ph", |cpu, args| {
    let mut unit = unit(cpu);
    if args.imm & 4 == 0 {
        unit = unit.with_rounding(Rounding::from_field(args.imm as u32));
    }
    let x = ymm(cpu, args.b);
    let wide = args.width == Width::B8;
    let (first, second) = unit.exactly(|env| {
        let first = narrow(x[0], env);
        (first, if wide { narrow(x[1], env) } else { 0 })
    });
    finish(cpu, &unit)?;
    set_ymm(cpu, args.a, [first | second << 64, 0]);
    Ok(Flow::Next)
});
