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

#[cfg(test)]
mod tests {
    use super::grains;

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
