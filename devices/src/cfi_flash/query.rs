//! What the memory says of itself: CFI query data (JESD68.01, "Query Identification" to "Device Geometry"; J3 data sheet 290667,
//! appendix "Common Flash Interface") and identifier codes.
//!
//! Voltages and typical times are the J3's. The memory's size need not be a power of two: the size field is the next one, and the
//! erase region tells what there is.

/// The query data by address, 00h–FFh.
pub(super) type Table = [u8; 0x100];

/// Intel's manufacturer code.
const MANUFACTURER: u8 = 0x89;

/// The query data of a memory of `bytes` in blocks of `block`, with a write buffer of `buffer`.
pub(super) fn table(bytes: usize, block: usize, buffer: usize) -> Table {
    let mut table = [0; 0x100];
    let mut put = |at: usize, data: &[u8]| {
        if let Some(into) = table.get_mut(at..at + data.len()) {
            into.copy_from_slice(data);
        }
    };
    let exponent = |number: usize| number.next_power_of_two().trailing_zeros() as u8;
    let [blocks_low, blocks_high, ..] = (bytes / block - 1).to_le_bytes();
    let [size_low, size_high, ..] = (block / 256).to_le_bytes();
    put(0x10, b"QRY");
    // Command set 0001h (Intel), its own table at 31h; no alternate one.
    put(0x13, &[0x01, 0x00, 0x31, 0x00, 0, 0, 0, 0]);
    // VCC 2.7 V to 3.6 V, no VPP; a byte and a buffer in 2^7 µs, a block in 2^10 ms, at most 2^4 times as long.
    put(0x1B, &[0x27, 0x36, 0x00, 0x00, 0x07, 0x07, 0x0A, 0x00, 0x04, 0x04, 0x04, 0x00]);
    // Size, an 8-bit interface, the buffer, one region of equal blocks.
    put(0x27, &[exponent(bytes), 0x00, 0x00, exponent(buffer), 0x00, 0x01]);
    put(0x2D, &[blocks_low, blocks_high, size_low, size_high]);
    // Intel's table, version 1.1: none of the optional features.
    put(0x31, b"PRI11");
    put(0x3D, &[0x33]);
    table
}

/// The identifier code at an offset in a block: manufacturer, device (none: no part of the family has such blocks), and 0 for
/// "not locked".
pub(super) fn identifier(at: usize) -> u8 {
    if at == 0 { MANUFACTURER } else { 0 }
}
