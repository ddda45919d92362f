//! The card as a whole: write modes against a bit-by-bit model, the fast window against the slow one, pictures drawn in
//! parts against pictures drawn at once.

use super::render::{Change, Renderer, render};
use super::*;
use crate::clock::Tick;
use crate::testing::{Place, at, check_places};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// A font whose characters have their own number in every line.
const FONT: [u8; 4096] = {
    let mut font = [0; 4096];
    let mut at = 0;
    while at < font.len() {
        font[at] = (at / 16) as u8;
        at += 1;
    }
    font
};

fn card() -> Vga {
    Vga::new(Config {
        memory: Arc::new(VideoMemory::detached(512 << 10).unwrap()),
        window: Arc::new(VideoMemory::detached(LEGACY_BYTES as u64).unwrap()),
        rom: Arc::from(vec![0x55; 2048]),
        font: &FONT,
    })
}

/// A card with a board that maps what it wants at once.
struct Boarded(Vga);

impl Boarded {
    fn then<R>(&mut self, call: impl FnOnce(&mut Vga) -> R) -> R {
        let result = call(&mut self.0);
        if let Some(view) = self.0.wanted_view() {
            self.0.set_view(view);
        }
        result
    }
}

impl Device for Boarded {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.then(|vga| vga.reset(cx));
    }
    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        self.then(|vga| vga.port_read(cx, range, offset, width))
    }
    fn port_write(&mut self, cx: &mut Ctx<'_>, range: u8, at: u16, width: Width, value: u32) -> Result<(), IoError> {
        self.then(|vga| vga.port_write(cx, range, at, width, value))
    }
    fn mmio_read(&mut self, cx: &mut Ctx<'_>, window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        self.then(|vga| vga.mmio_read(cx, window, offset, width))
    }
    fn mmio_write(&mut self, cx: &mut Ctx<'_>, window: u8, at: u64, width: Width, value: u64) -> Result<(), IoError> {
        self.then(|vga| vga.mmio_write(cx, window, at, width, value))
    }
    fn save(&self) -> Vec<u8> {
        self.0.save()
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.then(|vga| vga.restore(state))
    }
}

fn places() -> Vec<Place> {
    let ports = [(MONO_PORTS, 12), (COLOR_PORTS, 32), (DISPI_PORTS, 3)];
    let ports = ports.into_iter().flat_map(|(range, length)| (0..length).map(move |offset| Place::Port(range, offset)));
    let memory = [(LEGACY_WINDOW, 0x1_8000), (LEGACY_WINDOW, 0x1_8FA1), (LEGACY_WINDOW, 0), (LEGACY_WINDOW, 0x1_FFFF)];
    let linear = [(FRAMEBUFFER_WINDOW, 0), (FRAMEBUFFER_WINDOW, 8), (FRAMEBUFFER_WINDOW, 0x7_FFFF)];
    let registers = [(REGISTER_WINDOW, 0x404), (REGISTER_WINDOW, 0x508), (REGISTER_WINDOW, 0), (ROM_WINDOW, 3)];
    let windows = memory.into_iter().chain(linear).chain(registers);
    ports.chain(windows.map(|(window, offset)| Place::Mmio(window, offset))).collect()
}

#[test]
fn no_sequence_of_accesses_breaks_it() {
    check_places(card, &places());
    // As a board leaves it: the window that it wants is mapped before the first access, as it is after `restore`.
    let boarded = || {
        let mut card = Boarded(card());
        card.then(|_| ());
        card
    };
    check_places(boarded, &places());
}

fn port(device: &mut dyn Device, port: u16, value: u8) {
    at(Tick(0), |cx| device.port_write(cx, COLOR_PORTS, port - 0x3C0, Width::B1, value.into())).unwrap();
}
fn indexed(device: &mut dyn Device, first: u16, index: u8, value: u8) {
    port(device, first, index);
    port(device, first + 1, value);
}
fn poke(device: &mut dyn Device, offset: u64, value: u8) {
    let _ = at(Tick(0), |cx| device.mmio_write(cx, LEGACY_WINDOW, offset, Width::B1, value.into()));
}
fn peek(device: &mut dyn Device, offset: u64) -> u8 {
    at(Tick(0), |cx| device.mmio_read(cx, LEGACY_WINDOW, offset, Width::B1)).unwrap_or(0xFF) as u8
}
fn vbe(device: &mut dyn Device, writes: &[(u16, u16)]) {
    for &(number, value) in writes {
        at(Tick(0), |cx| {
            device.port_write(cx, DISPI_PORTS, 0, Width::B2, number.into()).unwrap();
            device.port_write(cx, DISPI_PORTS, 1, Width::B2, value.into()).unwrap();
        });
    }
}
/// Planar memory at A0000h, all planes written.
fn planar(device: &mut dyn Device) {
    for (first, index, value) in [(0x3C4, 2, 0x0F), (0x3C4, 4, 0x06), (0x3CE, 5, 0), (0x3CE, 6, 5)] {
        indexed(device, first, index, value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Each bit of each plane, as the manual's prose has it.
    #[test]
    fn write_modes(latches in any::<[u8; 4]>(), value: u8, mask in 0u8..16, gc in any::<[u8; 9]>(), mode in 0u8..4) {
        let mut vga = card();
        planar(&mut vga);
        for (plane, byte) in latches.into_iter().enumerate() {
            indexed(&mut vga, 0x3C4, 2, 1 << plane);
            poke(&mut vga, 5, byte);
        }
        peek(&mut vga, 5);
        indexed(&mut vga, 0x3C4, 2, mask);
        for index in [0, 1, 3, 8] {
            indexed(&mut vga, 0x3CE, index, gc[usize::from(index)]);
        }
        indexed(&mut vga, 0x3CE, 5, mode);
        poke(&mut vga, 9, value);
        let [set_reset, enable, _, rotate, .., bit_mask] = gc;
        let rotated = value.rotate_right(u32::from(rotate & 7));
        let written = vga.config.memory.load(4 * 9);
        for (plane, &latched) in latches.iter().enumerate() {
            for bit in 0..8 {
                let of = |byte: u8| byte >> bit & 1;
                let latch = of(latched);
                let ours = |bits: u8| bits >> plane & 1;
                let (data, wanted) = match mode {
                    0 => (if ours(enable) == 1 { ours(set_reset) } else { of(rotated) }, of(bit_mask)),
                    1 => (latch, 0),
                    2 => (ours(value), of(bit_mask)),
                    _ => (ours(set_reset), of(bit_mask & rotated)),
                };
                let data = match rotate >> 3 & 3 { 0 => data, 1 => data & latch, 2 => data | latch, _ => data ^ latch };
                let expected = if ours(mask) == 0 { 0 } else if wanted == 1 { data } else { latch };
                prop_assert_eq!((written >> (8 * plane + bit) & 1) as u8, expected, "plane {} bit {}", plane, bit);
            }
        }
    }

    /// Registers and memory are the same whether the window is RAM or not, once a slow read has filled the latches.
    #[test]
    fn a_fast_window_is_like_a_slow_one(steps in proptest::collection::vec((0u8..40, any::<u16>(), any::<u8>()), 1..60)) {
        let (mut slow, mut fast) = (card(), Boarded(card()));
        fast.then(|_| ());
        for &(kind, place, value) in &steps {
            let devices: [&mut dyn Device; 2] = [&mut slow, &mut fast];
            let answers = devices.map(|device| match kind {
                0 => { indexed(device, 0x3C4, 4, [0x02, 0x0E, 0x06][usize::from(value % 3)]); 0 }
                1 => { indexed(device, 0x3C4, 2, [0x03, 0x0F, value][usize::from(place % 3)]); 0 }
                2 => { indexed(device, 0x3CE, 5, [0x10, 0x40, 0x00][usize::from(value % 3)]); 0 }
                3 => { indexed(device, 0x3CE, 6, [0x0E, 0x05, 0x0A, 0x01][usize::from(value % 4)]); 0 }
                4 => { indexed(device, 0x3CE, value % 9, if place % 4 == 0 { value } else { 0xFF }); 0 }
                5 => { for (index, value) in [(0, 0), (1, 0), (3, 0), (4, 0), (8, 0xFF)] { indexed(device, 0x3CE, index, value); } 0 }
                6 => { vbe(device, &[(4, 0), (1, 64), (2, 64), (3, 8), (4, u16::from(value) & 0xC1), (5, u16::from(value) % 3)]); 0 }
                7 => { vbe(device, &[(4, 0)]); 0 }
                8 => { let at_ = u64::from(place); at(Tick(0), |cx| device.mmio_read(cx, FRAMEBUFFER_WINDOW, at_, Width::B4)).unwrap() }
                9 => { let at_ = u64::from(place); at(Tick(0), |cx| device.mmio_write(cx, FRAMEBUFFER_WINDOW, at_, Width::B2, value.into())).unwrap(); 0 }
                10..25 => { poke(device, u64::from(place & 0x1FF) + [0, 0x1_0000, 0x1_8000, 0xFF00][usize::from(place >> 14)], value); 0 }
                _ => u64::from(peek(device, u64::from(place & 0x1FF) + [0, 0x1_0000, 0x1_8000, 0xFF00][usize::from(place >> 14)])),
            });
            prop_assert_eq!(answers[0], answers[1], "{:?}", (kind, place, value));
            if fast.0.view().legacy == Legacy::Logic {
                for offset in [0, 0x1_0000, 0x1_8000] {
                    prop_assert_eq!(peek(&mut slow, offset), peek(&mut fast, offset));
                }
            }
        }
        slow.registers.latches = 0;
        fast.0.registers.latches = 0;
        prop_assert!(slow.save() == fast.save());
    }
}

proptest! {
    // Two tests, so that they run beside each other.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn only_what_changed_is_drawn(start in 0usize..2, steps in proptest::collection::vec(any::<(u8, u16, u8)>(), 1..25)) {
        drawn_step_by_step(start, &steps)?;
    }

    #[test]
    fn only_what_changed_is_drawn_of_a_linear_mode(start in 2usize..4, steps in proptest::collection::vec(any::<(u8, u16, u8)>(), 1..25)) {
        drawn_step_by_step(start, &steps)?;
    }
}

/// A picture drawn step by step is the picture drawn at once.
fn drawn_step_by_step(start: usize, steps: &[(u8, u16, u8)]) -> Result<(), TestCaseError> {
    let mut card = Boarded(card());
    card.then(|_| ());
    match start {
        1 => {
            planar(&mut card);
            attribute(&mut card, 0x10, 1);
        }
        2 => vbe(&mut card, &[(1, 320), (2, 200), (3, 32), (4, 0x41)]),
        3 => vbe(&mut card, &[(1, 640), (2, 64), (3, 4), (4, 1)]),
        _ => {}
    }
    let mut renderer = Renderer::default();
    let mut old = renderer.frame().clone();
    for (step, &(kind, place, value)) in steps.iter().enumerate() {
        match kind % 12 {
            0 => indexed(&mut card, 0x3D4, 0x0C + (place % 4) as u8, value % 8),
            1 => indexed(&mut card, 0x3D4, [0x18, 0x08, 0x0A, 0x13, 0x17, 0x09][usize::from(place % 6)], value),
            2 => attribute(
                &mut card,
                [0x13, 0x12, 0x10, 0x03][usize::from(place % 4)],
                if place % 4 == 2 { start as u8 | 0x0C } else { value & 7 },
            ),
            3 => {
                port(&mut card, 0x3C8, value & 15);
                for _ in 0..3 {
                    port(&mut card, 0x3C9, value);
                }
            }
            4 => vbe(&mut card, &[(6, 640), (9, u16::from(value % 8))]),
            5 => indexed(&mut card, 0x3C4, 3, value & 0x3F),
            6 => {
                let offset = u64::from(place);
                at(Tick(0), |cx| card.mmio_write(cx, FRAMEBUFFER_WINDOW, offset, Width::B4, u64::from(value) << 13))
                    .unwrap();
            }
            _ => poke(&mut card, u64::from(place) & 0xFFF | if start == 0 { 0x1_8000 } else { 0 }, value),
        }
        let shown = card.0.shown(Tick(step as u64 * 100_000_000));
        let change = renderer.update(&shown, card.0.memory());
        let whole = render(&shown, card.0.memory());
        prop_assert!(renderer.frame() == &whole, "step {} {:?}", step, (kind, place, value));
        match change {
            Change::None => prop_assert!(old == whole),
            Change::Size => prop_assert!((old.width, old.height) != (whole.width, whole.height)),
            Change::Lines(lines) => {
                prop_assert_eq!((old.width, old.height), (whole.width, whole.height));
                for y in (0..whole.height).filter(|y| !lines.contains(y)) {
                    prop_assert!(old.line(y) == whole.line(y), "line {} changed unsaid", y);
                }
            }
        }
        old = whole;
    }
    Ok(())
}

fn attribute(device: &mut dyn Device, index: u8, value: u8) {
    let _ = at(Tick(0), |cx| device.port_read(cx, COLOR_PORTS, 0x1A, Width::B1));
    // The palette is loaded while it is not shown.
    for value in [index, value, 0x20] {
        port(device, 0x3C0, value);
    }
}

#[test]
fn a_cell_of_text() {
    let mut card = Boarded(card());
    card.then(|_| ());
    poke(&mut card, 0x1_8000 + 2, 0xC5);
    poke(&mut card, 0x1_8000 + 3, 0x1E);
    let frame = render(&card.0.shown(Tick(0)), card.0.memory());
    assert_eq!((frame.width, frame.height), (720, 400));
    // C5h = 11000101b; the ninth dot repeats the eighth.
    let (on, off) = (0xFF_FF55, 0x00_00AA);
    assert_eq!(frame.line(3)[9..18], [on, on, off, off, off, on, off, on, on]);
    // The cursor is at the first cell, lines 13 and 14, for eight frames of 1/70 s.
    assert_eq!((frame.line(13)[0], frame.line(12)[0]), (0xAA_AAAA, 0));
    let later = render(&card.0.shown(Tick(120_000_000)), card.0.memory());
    assert_eq!(later.line(13)[0], 0);
    let text = text::text(&card.0.shown(Tick(0)), card.0.memory()).unwrap();
    assert_eq!((text.lines()[0].as_str(), text.lines().len(), text.cursor), (" ┼", 25, Some((0, 0))));
}

#[test]
fn read_modes() {
    let mut vga = card();
    planar(&mut vga);
    for (plane, byte) in [0b1100_0011, 0b1010_0101, 0b0000_1111, 0].into_iter().enumerate() {
        indexed(&mut vga, 0x3C4, 2, 1 << plane);
        poke(&mut vga, 7, byte);
        indexed(&mut vga, 0x3CE, 4, plane as u8);
        assert_eq!(peek(&mut vga, 7), byte);
    }
    indexed(&mut vga, 0x3CE, 5, 8);
    indexed(&mut vga, 0x3CE, 2, 0b0011);
    indexed(&mut vga, 0x3CE, 7, 0b0011);
    assert_eq!(peek(&mut vga, 7), 0b1000_0001, "planes 0 and 1 set");
    indexed(&mut vga, 0x3CE, 7, 0);
    assert_eq!(peek(&mut vga, 7), 0xFF, "no plane counts");
}
