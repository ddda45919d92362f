//! Instructions on general registers that came with the vector extensions: CRC32, MOVBE, MFENCE (SDM vol. 2).

use crate::fault::Fault;
use crate::helpers::{Args, Flow, Helper};
use crate::memory::Int;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// MFENCE: everything before it is visible to other processors before anything after it.
pub static MFENCE: Helper = Helper {
    name: "mfence",
    run: |_, _| {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(Flow::Next)
    },
};

/// The reflected polynomial 11EDC6F41h (Castagnoli).
const POLYNOMIAL: u32 = 0x82f6_3b78;

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

static CRC_TABLE: [u32; 256] = crc_table();

/// Accumulates the low `bytes` of `data`, least significant first.
fn crc32(crc: u32, data: u64, bytes: u64) -> u32 {
    (0..bytes).fold(crc, |crc, i| CRC_TABLE[((crc ^ (data >> (8 * i)) as u32) & 0xff) as usize] ^ crc >> 8)
}

/// CRC32: accumulates r/m of `width` into register `a`; `c` = 1: the source is bits 15–8 of its slot.
pub static CRC32: Helper = Helper {
    name: "crc32",
    run: |cpu, args| {
        let rm = args.rm(cpu);
        let data = match args.width {
            Width::B1 if args.c != 0 => cpu.state.gpr(args.b) >> 8,
            Width::B1 => u64::from(cpu.read_rm::<u8>(rm)?),
            Width::B2 => u64::from(cpu.read_rm::<u16>(rm)?),
            Width::B4 => u64::from(cpu.read_rm::<u32>(rm)?),
            Width::B8 => cpu.read_rm::<u64>(rm)?,
        };
        let crc = crc32(cpu.state.gpr(args.a) as u32, data, args.width.bytes());
        cpu.state.set_gpr(args.a, u64::from(crc));
        Ok(Flow::Next)
    },
};

/// Calls `$f::<T>` for the integer type of `args.width`.
macro_rules! by_width {
    ($args:expr, $f:ident($($arg:expr),*)) => {
        match $args.width {
            Width::B1 => $f::<u8>($($arg),*),
            Width::B2 => $f::<u16>($($arg),*),
            Width::B4 => $f::<u32>($($arg),*),
            Width::B8 => $f::<u64>($($arg),*),
        }
    };
}

/// The bytes of `value` in reverse.
fn reversed<T: Int>(value: T) -> T {
    T::narrow(value.widen().swap_bytes() >> (64 - T::BITS))
}

fn movbe_load<T: Int>(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let rm = args.rm(cpu);
    let value = cpu.read_rm::<T>(rm)?;
    cpu.write_slot(args.a, reversed(value));
    Ok(Flow::Next)
}

fn movbe_store<T: Int>(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let rm = args.rm(cpu);
    let value = T::narrow(cpu.state.gpr(args.a));
    cpu.write_rm(rm, reversed(value))?;
    Ok(Flow::Next)
}

/// MOVBE r, m.
pub static MOVBE_LOAD: Helper = Helper { name: "movbe_load", run: |cpu, args| by_width!(args, movbe_load(cpu, args)) };

/// MOVBE m, r.
pub static MOVBE_STORE: Helper =
    Helper { name: "movbe_store", run: |cpu, args| by_width!(args, movbe_store(cpu, args)) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        let crc = b"123456789".iter().fold(u32::MAX, |crc, b| crc32(crc, u64::from(*b), 1));
        assert_eq!(!crc, 0xe306_9283);
        assert_eq!(crc32(7, 0x0807_0605_0403_0201, 8), (1..=8).fold(7, |crc, b| crc32(crc, b, 1)));
        assert_eq!(reversed(0x1234u16), 0x3412);
        assert_eq!(reversed(0x1234_5678u32), 0x7856_3412);
    }
}
