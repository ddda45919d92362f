//! SHA extensions (SDM vol. 1, 12.15 of the instruction-set extensions; vol. 2, SHA1*, SHA256*; FIPS 180-4).

use super::lanes::{join, split};
use super::{Direct, direct, integer_forms, run_sse, xmm};

/// SHA-1's constants, one per twenty rounds.
const K1: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

integer_forms! {
    /// SHA1NEXTE.
    SHA1NEXTE = |a, b, _| {
        let e = ((a >> 96) as u32).rotate_left(30);
        let mut x = split::<u32>(b);
        x[3] = x[3].wrapping_add(e);
        join::<u32>(x)
    };
    /// SHA1MSG1.
    SHA1MSG1 = |a, b, _| {
        let (x, y) = (split::<u32>(a), split::<u32>(b));
        join::<u32>([y[2] ^ x[0], y[3] ^ x[1], x[0] ^ x[2], x[1] ^ x[3]])
    };
    /// SHA1MSG2.
    SHA1MSG2 = |a, b, _| {
        let (x, y) = (split::<u32>(a), split::<u32>(b));
        let w16 = (x[3] ^ y[2]).rotate_left(1);
        let w17 = (x[2] ^ y[1]).rotate_left(1);
        let w18 = (x[1] ^ y[0]).rotate_left(1);
        let w19 = (x[0] ^ w16).rotate_left(1);
        join::<u32>([w19, w18, w17, w16])
    };
    /// SHA1RNDS4.
    SHA1RNDS4 = |a, b, imm| {
        let (x, w) = (split::<u32>(a), split::<u32>(b));
        let choice = imm & 3;
        let f = |b: u32, c: u32, d: u32| match choice {
            0 => b & c ^ !b & d,
            2 => b & c ^ b & d ^ c & d,
            _ => b ^ c ^ d,
        };
        let k = K1[choice as usize];
        let [mut d, mut c, mut b, mut a] = x;
        let mut e = 0u32;
        for i in 0..4 {
            let next = f(b, c, d).wrapping_add(a.rotate_left(5)).wrapping_add(w[3 - i]).wrapping_add(e).wrapping_add(k);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        join::<u32>([d, c, b, a])
    };
    /// SHA256MSG1.
    SHA256MSG1 = |a, b, _| {
        let (x, y) = (split::<u32>(a), split::<u32>(b));
        let sigma = |v: u32| v.rotate_right(7) ^ v.rotate_right(18) ^ v >> 3;
        join::<u32>(std::array::from_fn(|i| x[i].wrapping_add(sigma(if i < 3 { x[i + 1] } else { y[0] }))))
    };
    /// SHA256MSG2.
    SHA256MSG2 = |a, b, _| {
        let (x, y) = (split::<u32>(a), split::<u32>(b));
        let sigma = |v: u32| v.rotate_right(17) ^ v.rotate_right(19) ^ v >> 10;
        let w16 = x[0].wrapping_add(sigma(y[2]));
        let w17 = x[1].wrapping_add(sigma(y[3]));
        let w18 = x[2].wrapping_add(sigma(w16));
        let w19 = x[3].wrapping_add(sigma(w17));
        join::<u32>([w16, w17, w18, w19])
    };
}

/// SHA256RNDS2: the message words plus constants are in XMM0.
pub static SHA256RNDS2: Direct = direct!("sha256rnds2", |cpu, args| {
    let words = split::<u32>(xmm(cpu, 0));
    run_sse(cpu, args, |x, y, _| two_rounds(x, y, [words[0], words[1]]))
});

fn two_rounds(cdgh: u128, abef: u128, words: [u32; 2]) -> u128 {
    let [mut h, mut g, mut d, mut c] = split::<u32>(cdgh);
    let [mut f, mut e, mut b, mut a] = split::<u32>(abef);
    for word in words {
        let choose = e & f ^ !e & g;
        let majority = a & b ^ a & c ^ b & c;
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = choose.wrapping_add(sum1).wrapping_add(word).wrapping_add(h);
        (h, g, f, e) = (g, f, e, t.wrapping_add(d));
        (d, c, b, a) = (c, b, a, t.wrapping_add(majority).wrapping_add(sum0));
    }
    join::<u32>([f, e, b, a])
}
