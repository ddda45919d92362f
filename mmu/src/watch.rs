//! Watched bytes: which parts of a frame hold translated code, in grains of 64 bytes, one bit each.

/// Bytes in a grain.
pub const GRAIN: usize = 64;

/// The grains that a range of bytes within a page touches. A range past the page's end is cut.
pub(crate) fn grains(offset: usize, len: usize) -> u64 {
    if len == 0 || offset >= 4096 {
        return 0;
    }
    let (first, last) = (offset / GRAIN, (offset + len - 1).min(4095) / GRAIN);
    (!0u64 << first) & (!0u64 >> (63 - last))
}

/// The bytes around `offset` whose grains are not among `watched`: first and one past the last. `None`: its own one is.
pub(crate) fn gap(watched: u64, offset: usize) -> Option<(usize, usize)> {
    let grain = offset % 4096 / GRAIN;
    if watched >> grain & 1 != 0 {
        return None;
    }
    let below = watched & !(!0 << grain);
    let above = watched >> grain;
    let first = 64 - below.leading_zeros() as usize;
    let last = if above == 0 { 64 } else { grain + above.trailing_zeros() as usize };
    Some((first * GRAIN, last * GRAIN))
}

#[cfg(test)]
mod tests {
    use super::{gap, grains};

    #[test]
    fn gaps_lie_between_what_is_watched() {
        assert_eq!(gap(0, 77), Some((0, 4096)));
        assert_eq!(gap(0b10010, 130), Some((128, 256)));
        assert_eq!(gap(0b10010, 64), None);
        assert_eq!(gap(0b10010, 63), Some((0, 64)));
        assert_eq!(gap(1 << 63 | 1, 4031), Some((64, 4032)));
        assert_eq!(gap(1 << 63 | 1, 4095), None);
    }

    #[test]
    fn ranges_become_bits() {
        let cases =
            [(0, 1, 1), (63, 1, 1), (63, 2, 3), (64, 64, 2), (4095, 1, 1 << 63), (0, 4096, !0), (4095, 9, 1 << 63)];
        for (offset, len, expected) in cases {
            assert_eq!(grains(offset, len), expected, "{offset} + {len}");
        }
        assert_eq!(grains(5, 0), 0);
    }
}
