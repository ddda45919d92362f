//! What a CD-ROM drive with one data track answers (MMC-5, SPC-3): tables of contents, configuration, mode pages, events.
//! Pure functions from what is in the tray to bytes.

use super::identify::REVISION;
use super::packet::Sense;

/// Bytes of a block of user data.
pub(super) const BLOCK: u64 = 2048;
/// Blocks of a CD (80 minutes): anything longer is a DVD.
const CD_BLOCKS: u32 = 360_000;
const PROFILE_CD_ROM: u16 = 0x0008;
const PROFILE_DVD_ROM: u16 = 0x0010;
/// The track number of the lead-out.
const LEAD_OUT: u8 = 0xAA;

/// Minute, second and frame of a block: the first is two seconds in.
fn msf(block: u32) -> [u8; 3] {
    let frames = block.saturating_add(150);
    [(frames / 75 / 60).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

/// An address field of four bytes.
fn address(block: u32, by_time: bool) -> [u8; 4] {
    if by_time {
        let [minute, second, frame] = msf(block);
        [0, minute, second, frame]
    } else {
        block.to_be_bytes()
    }
}

/// Puts a 16-bit length, of what follows it, in front.
fn with_length(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len().min(0xFFFF) as u16).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// INQUIRY.
pub(super) fn inquiry() -> Vec<u8> {
    let text = |text: &str, length: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length, b' ');
        bytes
    };
    // A removable CD-ROM drive; ATAPI.
    let mut bytes = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
    bytes.extend(text("UMBRA", 8));
    bytes.extend(text("CD-ROM", 16));
    bytes.extend(text(REVISION, 4));
    bytes
}

/// READ CAPACITY: the last block and its size.
pub(super) fn capacity(blocks: u32) -> Vec<u8> {
    let mut bytes = blocks.saturating_sub(1).to_be_bytes().to_vec();
    bytes.extend((BLOCK as u32).to_be_bytes());
    bytes
}

/// READ TOC/PMA/ATIP, formats 0 (tracks), 1 (sessions) and 2 (full).
pub(super) fn toc(format: u8, start: u8, by_time: bool, blocks: u32) -> Result<Vec<u8>, Sense> {
    match format {
        0 => {
            if start > 1 && start != LEAD_OUT {
                return Err(Sense::INVALID_FIELD);
            }
            let mut body = vec![1, 1];
            if start <= 1 {
                body.extend([0, 0x14, 1, 0]);
                body.extend(address(0, by_time));
            }
            body.extend([0, 0x16, LEAD_OUT, 0]);
            body.extend(address(blocks, by_time));
            Ok(with_length(&body))
        }
        1 => {
            let mut body = vec![1, 1, 0, 0x14, 1, 0];
            body.extend(address(0, by_time));
            Ok(with_length(&body))
        }
        2 => {
            let mut body = vec![1, 1];
            let mut point = |number: u8, place: [u8; 3]| {
                body.extend([1, 0x14, 0, number, 0, 0, 0, 0]);
                body.extend(place);
            };
            point(0xA0, [1, 0, 0]);
            point(0xA1, [1, 0, 0]);
            point(0xA2, msf(blocks));
            point(1, msf(0));
            Ok(with_length(&body))
        }
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// READ SUB-CHANNEL, the current position (format 1) or no data.
pub(super) fn sub_channel(wants_data: bool, format: u8) -> Result<Vec<u8>, Sense> {
    // No audio status.
    match (wants_data, format) {
        (false, _) => Ok(vec![0, 0x15, 0, 0]),
        (true, 1) => {
            let mut bytes = vec![0, 0x15, 0, 12, 1, 0x14, 1, 1];
            bytes.extend([0; 8]);
            Ok(bytes)
        }
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// READ DISC INFORMATION: one finished session with one track.
pub(super) fn disc_information() -> Vec<u8> {
    let mut body = vec![0x0E, 1, 1, 1, 1, 0x20, 0x00, 0, 0, 0];
    body.extend([0; 4]);
    body.extend([0xFF; 8]);
    body.extend([0; 10]);
    with_length(&body)
}

/// READ DVD STRUCTURE, format 0 (physical).
pub(super) fn dvd_structure(format: u8, blocks: u32) -> Result<Vec<u8>, Sense> {
    if format != 0 || blocks <= CD_BLOCKS {
        return Err(Sense::INVALID_FIELD);
    }
    let mut body = vec![0, 0];
    let last = 0x3_0000_u32.saturating_add(blocks.saturating_sub(1));
    // DVD-ROM, version 1; 120 mm; one layer, embossed.
    body.extend([0x01, 0x0F, 0x01, 0x00]);
    body.extend([0, 0x03, 0, 0]);
    let [_, high, mid, low] = last.to_be_bytes();
    body.extend([0, high, mid, low]);
    body.resize(2 + 2048, 0);
    Ok(with_length(&body))
}

/// GET CONFIGURATION: features from a number on, all of them, the current ones, or one.
pub(super) fn configuration(kind: u8, from: u16, blocks: Option<u32>) -> Result<Vec<u8>, Sense> {
    let is_cd = blocks.is_some_and(|blocks| blocks <= CD_BLOCKS);
    let is_dvd = blocks.is_some() && !is_cd;
    let current = match blocks {
        None => 0,
        Some(_) if is_cd => PROFILE_CD_ROM,
        Some(_) => PROFILE_DVD_ROM,
    };
    let [dvd, cd] = [PROFILE_DVD_ROM, PROFILE_CD_ROM].map(u16::to_be_bytes);
    // Number, version and flags (bit 0: current, bit 1: persistent), data.
    #[rustfmt::skip]
    let features: [(u16, u8, Vec<u8>); 6] = [
        (0x0000, 0b0011, vec![dvd[0], dvd[1], u8::from(is_dvd), 0, cd[0], cd[1], u8::from(is_cd), 0]),
        // Core: ATAPI.
        (0x0001, 0b1011, vec![0, 0, 0, 2, 1, 0, 0, 0]),
        // Morphing: events are polled.
        (0x0002, 0b0111, vec![2, 0, 0, 0]),
        // Removable medium: tray, eject, lock.
        (0x0003, 0b0011, vec![0x29, 0, 0, 0]),
        // Random readable: blocks of 2048 bytes.
        (0x0010, u8::from(current != 0), vec![0, 0, 8, 0, 0, 1, 0, 0]),
        (0x001E, 0b1000 | u8::from(is_cd), vec![0, 0, 0, 0]),
    ];
    let wanted = |&(number, flags, _): &(u16, u8, Vec<u8>)| match kind {
        0 => number >= from,
        1 => number >= from && flags & 1 != 0,
        _ => number == from,
    };
    if kind > 2 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut body = vec![0, 0];
    body.extend(current.to_be_bytes());
    for (number, flags, data) in features.iter().filter(|feature| wanted(feature)) {
        body.extend(number.to_be_bytes());
        body.extend([*flags, data.len() as u8]);
        body.extend(data);
    }
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// What may happen to the medium (GET EVENT STATUS NOTIFICATION, media class).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum MediaEvent {
    #[default]
    None,
    /// The person pressed eject.
    EjectRequest,
    NewMedia,
    Removal,
}

/// GET EVENT STATUS NOTIFICATION for the asked classes.
pub(super) fn event(classes: u8, event: MediaEvent, tray_open: bool, present: bool) -> Vec<u8> {
    const MEDIA: u8 = 4;
    let supported = 1 << MEDIA;
    if classes & supported == 0 {
        return vec![0, 2, 0x80, supported];
    }
    let code = match event {
        MediaEvent::None => 0,
        MediaEvent::EjectRequest => 1,
        MediaEvent::NewMedia => 2,
        MediaEvent::Removal => 3,
    };
    vec![0, 6, MEDIA, supported, code, u8::from(tray_open) | u8::from(present) << 1, 0, 0]
}

/// MECHANISM STATUS: one slot, idle.
pub(super) fn mechanism(tray_open: bool) -> Vec<u8> {
    vec![0, u8::from(tray_open) << 4, 0, 0, 0, 1, 0, 0]
}

/// Mode pages: error recovery, CD-ROM, audio control, capabilities. Page code without the control bits.
fn mode_page(page: u8, locked: bool) -> Option<Vec<u8>> {
    let mut bytes = match page {
        0x01 => vec![0x01, 6, 0, 5, 0, 0, 0, 0],
        0x0D => vec![0x0D, 6, 0, 13, 0, 60, 0, 75],
        0x0E => vec![0x0E, 14, 4, 0, 0, 0, 0, 75, 1, 255, 2, 255, 0, 0, 0, 0],
        // Reads CD-R and DVD; mode 2, multi-session; lock and eject, tray; speeds of 16 times a CD's.
        0x2A => {
            let speed = (16 * 176_u16).to_be_bytes();
            vec![
                0x2A,
                20,
                0x0B,
                0x00,
                0x70,
                0x00,
                0x29 | u8::from(locked) << 1,
                0,
                speed[0],
                speed[1],
                0,
                2,
                2,
                0,
                speed[0],
                speed[1],
                0,
                0,
                0,
                0,
                0,
                0,
            ]
        }
        _ => return None,
    };
    bytes.truncate(2 + usize::from(bytes.get(1).copied().unwrap_or(0)));
    Some(bytes)
}

/// MODE SENSE(10); `page` with its two control bits.
pub(super) fn mode_sense(page: u8, locked: bool, present: bool) -> Result<Vec<u8>, Sense> {
    let mut pages = match (page >> 6, page & 0x3F) {
        (3, _) => return Err(Sense::NOT_SAVED),
        (_, 0x3F) => {
            [0x01, 0x0D, 0x0E, 0x2A].into_iter().filter_map(|page| mode_page(page, locked)).flatten().collect()
        }
        (_, code) => mode_page(code, locked).ok_or(Sense::INVALID_FIELD)?,
    };
    if page >> 6 == 1 {
        // Nothing can be changed.
        let mut at = 0;
        while let Some(&length) = pages.get(at + 1) {
            let end = at + 2 + usize::from(length);
            pages.iter_mut().take(end).skip(at + 2).for_each(|byte| *byte = 0);
            at = end;
        }
    }
    let mut body = vec![if present { 0x01 } else { 0x70 }, 0, 0, 0, 0, 0];
    body.extend(pages);
    Ok(with_length(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_contents() {
        #[rustfmt::skip]
        assert_eq!(toc(0, 0, false, 1000), Ok(vec![
            0, 18, 1, 1,
            0, 0x14, 1, 0, 0, 0, 0, 0,
            0, 0x16, 0xAA, 0, 0, 0, 0x03, 0xE8,
        ]));
        // 1000 blocks and two seconds are 1150 frames: 15 s and 25 frames.
        assert_eq!(toc(0, 0xAA, true, 1000), Ok(vec![0, 10, 1, 1, 0, 0x16, 0xAA, 0, 0, 0, 15, 25]));
        assert_eq!(toc(1, 0, false, 1000).unwrap().len(), 12);
        assert_eq!(toc(2, 0, true, 1000).unwrap().len(), 4 + 4 * 11);
        assert_eq!(toc(0, 2, false, 1000), Err(Sense::INVALID_FIELD));
        assert_eq!(toc(5, 0, false, 1000), Err(Sense::INVALID_FIELD));
    }

    #[test]
    fn lengths_tell_what_follows() {
        for page in [0x01, 0x0D, 0x0E, 0x2A, 0x3F, 0x7F] {
            let bytes = mode_sense(page, false, true).unwrap();
            assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), bytes.len() - 2, "{page:#x}");
        }
        for kind in 0..3 {
            for blocks in [None, Some(1000), Some(2_000_000)] {
                let bytes = configuration(kind, 0, blocks).unwrap();
                assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
            }
        }
        assert_eq!(mode_sense(0xEA, false, true), Err(Sense::NOT_SAVED));
        assert_eq!(mode_sense(0x02, false, true), Err(Sense::INVALID_FIELD));
        assert_eq!(disc_information().len(), 34);
        assert_eq!(inquiry().len(), 36);
    }

    #[test]
    fn profiles_follow_the_disc() {
        let profile = |blocks| configuration(0, 0, blocks).unwrap()[6..8].to_vec();
        assert_eq!([profile(None), profile(Some(300_000)), profile(Some(400_000))], [[0, 0], [0, 8], [0, 16]]);
    }
}
