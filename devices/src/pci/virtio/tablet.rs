//! A graphics tablet (VIRTIO 1.2, 5.8, "input device"): a pointer that says where it is, not how far it moved, so that the
//! guest's pointer is where the person's is.
//!
//! Queue 0 takes events to the guest, queue 1 what it has to say (a tablet has no lights: nothing). What an event means is
//! Linux's evdev interface. Events of one report come together or not at all; while the guest has no buffers, moves become one.

use super::queue::{Broken, Queue};
use super::{Virtio, VirtioDevice};
use crate::device::Ctx;
use crate::ps2::MouseButtons;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use umbra_mmu::dma::Dma;

/// The largest coordinate, right and at the bottom; 0 is left and at the top.
pub const LARGEST: u16 = 0x7FFF;

/// Reports that may wait for a guest that is slow.
const MOST_WAITING: usize = 64;
/// Descriptors of each queue.
const DESCRIPTORS: u16 = 64;
const EVENTS: usize = 0;
const ANSWERS: usize = 1;

/// Types of events, and the codes that are used of each.
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const EV_REL: u16 = 2;
const EV_ABS: u16 = 3;
const SYN_REPORT: u16 = 0;
/// Left; right, middle, side and extra follow, as in [`MouseButtons`].
const BTN_LEFT: u16 = 0x110;
const BUTTONS: u16 = 5;
const REL_WHEEL: u16 = 8;
const ABS_X: u16 = 0;
const ABS_Y: u16 = 1;

/// What the configuration can be asked for: name, serial number, identity, properties, codes of a type, range of an axis.
const ID_NAME: u8 = 0x01;
const ID_DEVIDS: u8 = 0x03;
const EV_BITS: u8 = 0x11;
const ABS_INFO: u8 = 0x12;
/// Where the answer's length and the answer are.
const ANSWER_SIZE_AT: u32 = 2;
const ANSWER_AT: u32 = 8;

/// Where the pointer is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// From the left, 0–[`LARGEST`].
    pub x: u16,
    /// From the top, 0–[`LARGEST`].
    pub y: u16,
    /// How far the wheel was turned, in notches towards the user.
    pub wheel: i32,
    /// The buttons that are down.
    pub buttons: u8,
}

impl Report {
    /// A report of these buttons.
    pub fn new([x, y]: [u16; 2], wheel: i32, buttons: MouseButtons) -> Report {
        Report { x: x.min(LARGEST), y: y.min(LARGEST), wheel, buttons: buttons.0 & ((1 << BUTTONS) - 1) }
    }
    /// The events (type, code, value) that tell this to whoever knows `before`, without the one that ends them.
    fn since(&self, before: &Report) -> Vec<(u16, u16, u32)> {
        let mut events = Vec::new();
        for (code, now, then) in [(ABS_X, self.x, before.x), (ABS_Y, self.y, before.y)] {
            if now != then {
                events.push((EV_ABS, code, now.into()));
            }
        }
        for button in (0..BUTTONS).filter(|button| (self.buttons ^ before.buttons) >> button & 1 != 0) {
            events.push((EV_KEY, BTN_LEFT + button, u32::from(self.buttons >> button & 1)));
        }
        if self.wheel != 0 {
            events.push((EV_REL, REL_WHEEL, self.wheel.wrapping_neg() as u32));
        }
        events
    }
}

/// The tablet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tablet {
    /// What of the configuration is asked for: subject, and which of its kind.
    select: [u8; 2],
    /// What the guest knows.
    told: Report,
    waiting: VecDeque<Report>,
}

impl Tablet {
    fn report(&mut self, report: Report) {
        let full = self.waiting.len() >= MOST_WAITING;
        // The place of a press or release is kept, unless the guest does not listen at all.
        let before_last = self.waiting.iter().rev().nth(1).unwrap_or(&self.told).buttons;
        match self.waiting.back_mut() {
            Some(last) if full || (last.buttons == report.buttons && last.buttons == before_last) => {
                *last = Report { wheel: last.wheel.saturating_add(report.wheel), ..report };
            }
            _ => self.waiting.push_back(report),
        }
    }

    /// The answer to what is selected.
    fn answer(&self) -> Vec<u8> {
        match self.select {
            [ID_NAME, 0] => b"Umbra tablet".to_vec(),
            // Bus (virtual), vendor, product, version.
            [ID_DEVIDS, 0] => [0x06_u16, super::VENDOR, 1, 1].map(u16::to_le_bytes).concat(),
            [EV_BITS, subject] => match u16::from(subject) {
                EV_KEY => bits(BTN_LEFT..BTN_LEFT + BUTTONS),
                EV_REL => bits(REL_WHEEL..REL_WHEEL + 1),
                EV_ABS => bits(ABS_X..ABS_Y + 1),
                _ => Vec::new(),
            },
            // Smallest, largest, fuzz, flat, resolution.
            [ABS_INFO, axis] if u16::from(axis) <= ABS_Y => {
                [0, u32::from(LARGEST), 0, 0, 0].map(u32::to_le_bytes).concat()
            }
            _ => Vec::new(),
        }
    }
}

/// A bit map with the bits of these codes set.
fn bits(codes: std::ops::Range<u16>) -> Vec<u8> {
    let mut map = vec![0; usize::from(codes.end.div_ceil(8))];
    for code in codes {
        if let Some(byte) = map.get_mut(usize::from(code / 8)) {
            *byte |= 1 << (code % 8);
        }
    }
    map
}

impl VirtioDevice for Tablet {
    const NAME: &'static str = "virtio_tablet";
    const ID: u16 = 18;
    // Another input device.
    const CLASS: u32 = 0x09_8000;
    const QUEUES: &'static [u16] = &[DESCRIPTORS; 2];
    const CONFIG_BYTES: u32 = 136;

    fn new() -> Tablet {
        Tablet { select: [0; 2], told: Report::default(), waiting: VecDeque::new() }
    }

    fn config_read(&self, offset: u32) -> u8 {
        match offset {
            0 | 1 => self.select[offset as usize],
            ANSWER_SIZE_AT => self.answer().len() as u8,
            ANSWER_AT.. => self.answer().get((offset - ANSWER_AT) as usize).copied().unwrap_or(0),
            _ => 0,
        }
    }

    fn config_write(&mut self, offset: u32, value: u8) {
        if let Some(select) = self.select.get_mut(offset as usize) {
            *select = value;
        }
    }

    fn serve(&mut self, queues: &mut [Queue], dma: &mut dyn Dma) -> Result<(), Broken> {
        if let Some(answers) = queues.get_mut(ANSWERS) {
            while let Some(chain) = answers.take(dma)? {
                answers.give_back(dma, &chain, 0)?;
            }
        }
        let Some(queue) = queues.get_mut(EVENTS) else { return Ok(()) };
        while let Some(report) = self.waiting.front() {
            let mut events = report.since(&self.told);
            if !events.is_empty() {
                events.push((EV_SYN, SYN_REPORT, 0));
            }
            if usize::from(queue.available(dma)?) < events.len() {
                break;
            }
            self.told = *report;
            self.waiting.pop_front();
            for (kind, code, value) in events {
                let Some(chain) = queue.take(dma)? else { break };
                let event = u64::from(value) << 32 | u64::from(code) << 16 | u64::from(kind);
                let written = chain.write(dma, &event.to_le_bytes());
                queue.give_back(dma, &chain, written)?;
            }
        }
        Ok(())
    }

    fn sanitise(&mut self) {
        self.waiting.truncate(MOST_WAITING);
        for report in self.waiting.iter_mut().chain([&mut self.told]) {
            *report = Report::new([report.x, report.y], report.wheel, MouseButtons(report.buttons));
        }
    }
}

impl Virtio<Tablet> {
    /// The pointer is somewhere. Nothing happens while no driver runs.
    pub fn report(&mut self, cx: &mut Ctx<'_>, report: Report) {
        if self.is_running() {
            self.with_device(cx, |tablet| tablet.report(report));
        }
    }
}
