//! Partial accesses solved once: which bytes of a register an access of some width touches.
//!
//! A chip whose registers are 32 bits wide (or may be seen so) reads and writes whole ones with a mask; bytes, words and
//! whole registers then follow. An access that straddles two registers is [`IoError::BadWidth`]: the board splits it.

use crate::device::{IoError, Width};

/// The part of a 32-bit register that an access touches.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The offset of the register, a multiple of 4.
    pub register: u64,
    shift: u32,
    width: Width,
}

impl Lane {
    /// The lane of an access of up to four bytes.
    pub fn of(offset: u64, width: Width) -> Result<Lane, IoError> {
        let within = offset & 3;
        if within + width.bytes() > 4 {
            return Err(IoError::BadWidth);
        }
        Ok(Lane { register: offset & !3, shift: 8 * within as u32, width })
    }

    /// What the access reads of a register's value.
    pub fn extract(self, register: u32) -> u32 {
        (u64::from(register >> self.shift) & self.width.ones()) as u32
    }

    /// The bits of the register that the access touches.
    pub fn mask(self) -> u32 {
        (self.width.ones() << self.shift) as u32
    }

    /// The written value at its place in the register, other bits 0.
    pub fn place(self, value: u32) -> u32 {
        value << self.shift & self.mask()
    }

    /// The register's value with the written bytes replaced.
    pub fn merge(self, register: u32, value: u32) -> u32 {
        register & !self.mask() | self.place(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes() {
        #[rustfmt::skip]
        let table = [
            (0, Width::B4, Ok((0, 0x4433_2211, 0xDDCC_BBAA))), (4, Width::B1, Ok((4, 0x11, 0x4433_22AA))),
            (7, Width::B1, Ok((4, 0x44, 0xAA33_2211))), (6, Width::B2, Ok((4, 0x4433, 0xBBAA_2211))),
            (5, Width::B2, Ok((4, 0x3322, 0x44BB_AA11))), (3, Width::B2, Err(IoError::BadWidth)),
            (1, Width::B4, Err(IoError::BadWidth)), (0, Width::B8, Err(IoError::BadWidth)),
        ];
        for (offset, width, want) in table {
            let got = Lane::of(offset, width)
                .map(|lane| (lane.register, lane.extract(0x4433_2211), lane.merge(0x4433_2211, 0xDDCC_BBAA)));
            assert_eq!(got, want, "{offset} {width:?}");
        }
    }
}
