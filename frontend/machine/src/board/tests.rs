//! The board without a processor: ports split, interrupts arrive at the right vCPU, events happen in order.

use super::*;
use umbra_devices::cfi_flash::CfiFlash;
use umbra_devices::lapic;
use umbra_devices::rtc_mc146818::CivilTime;
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::frames::{FrameOrder, Pool};

fn board(vcpus: u32) -> Board {
    board_with(vcpus, None)
}

fn board_with(vcpus: u32, flash: Option<(GuestPhys, CfiFlash)>) -> Board {
    let map = crate::memory_map::MemoryMap::new(4 << 20).unwrap();
    let memory = GuestMemory::new(Pool::new(4 << 20).unwrap(), FrameOrder::Identity, 40);
    for (at, bytes) in map.ram_ranges() {
        memory.map_ram(at, bytes).unwrap();
    }
    let vcpus = (0..vcpus).map(|id| VcpuParts {
        lapic: lapic::Config::new(id),
        attention: Arc::default(),
        gate: Arc::default(),
    });
    let date = CivilTime::midnight(2026, 1, 1);
    let board = Board::new(BoardParts {
        memory,
        ram: 4 << 20,
        vcpus: vcpus.collect(),
        date,
        video: None,
        serial: [Fit::Fitted, Fit::Absent],
        exit_port: Fit::Fitted,
        test: TestParts { device: Fit::Fitted, report_port: Some(0x190), text_port: Some(0x402) },
        drives: Default::default(),
        ide_ports: Default::default(),
        flash,
        sound: SoundParts { ac97: Fit::Fitted, ears: Fit::Fitted },
        tablet: Fit::Fitted,
        balloon: Fit::Fitted,
    });
    let mut board = board.unwrap();
    board.play_firmware(&map);
    board
}

#[test]
fn wide_accesses_are_split_and_open_bus_reads_as_ones() {
    let mut board = board(1);
    board.port_write(0x3F8 + 7, 1, 0x5A);
    assert_eq!(board.port_read(0x3F8 + 7, 1), 0x5A);
    assert_eq!(board.port_read(0x2F8, 1), 0xFF);
    assert_eq!(board.port_read(0x2F8, 4), 0xFFFF_FFFF);
    // Nobody is at 62h; 61h is the timer's port B.
    assert_eq!(board.port_read(0x61, 2) >> 8, 0xFF);
    board.port_write(0xCF8, 4, 0x8000_0000);
    assert_eq!(board.port_read(0xCFC, 4), 0x1237_8086);
    assert_eq!(board.port_read(0xCFE, 2), 0x1237);
    assert!(board.counters().unclaimed[&0x2F8] >= 2);
}

/// Flash memory reads as a ROM until a command is written; what was programmed is in the ROM afterwards.
#[test]
fn flash_memory_is_a_rom_until_a_command() {
    const BASE: GuestPhys = GuestPhys(0xFFFF_0000);
    let chip = CfiFlash::new(vec![0xA5; 0x2000], 0x1000, Arc::new(|_| {})).unwrap();
    let mut board = board_with(1, Some((BASE, chip)));
    let contents = |board: &Board, offset: u64| {
        let mut bytes = [0; 1];
        board.memory.read(BASE.wrapping_add(offset), &mut bytes);
        bytes[0]
    };
    let write = |board: &mut Board, offset, value| board.mmio_write(0, wiring::FLASH_REGION, offset, 1, value);
    assert_eq!([0, 0x1FFF].map(|offset| contents(&board, offset)), [0xA5, 0xA5]);
    write(&mut board, 0x10, 0x70);
    assert_eq!(board.mmio_read(0, wiring::FLASH_REGION, 0x1234, 1), 0x80, "the status, everywhere");
    assert_eq!(contents(&board, 0), 0xFF, "a device");
    for (offset, value) in [(0x1000, 0x20), (0x1000, 0xD0), (0x1FFF, 0x40), (0x1FFF, 0x12), (0, 0xFF)] {
        write(&mut board, offset, value);
    }
    assert_eq!([0, 0xFFF, 0x1000, 0x1FFF].map(|offset| contents(&board, offset)), [0xA5, 0xA5, 0xFF, 0x12]);
    write(&mut board, 0, 0x40);
    board.reset();
    assert_eq!(contents(&board, 0x1FFF), 0x12, "a reset ends the command");
    let saved: Vec<_> = board.save().into_iter().map(|(name, state)| (name.to_owned(), state)).collect();
    for (offset, value) in [(0x1FFF, 0x20), (0x1FFF, 0xD0), (0, 0xFF)] {
        write(&mut board, offset, value);
    }
    assert_eq!(contents(&board, 0x1FFF), 0xFF);
    board.restore(&saved, Tick(0)).unwrap();
    assert_eq!(contents(&board, 0x1FFF), 0x12);
}

#[test]
fn the_timer_interrupts_through_the_8259_in_virtual_wire_mode() {
    let mut board = board(2);
    for (port, value) in [(0x43, 0x34), (0x40, 0x00), (0x40, 0x10), (0x21, 0xFE)] {
        board.port_write(port, 1, value);
    }
    // OUT rose when the mode was set, which is a first request; the next one is the timer's.
    assert_eq!(board.acknowledge(0), Some(0x08));
    board.port_write(0x20, 1, 0x20);
    while board.vcpus[0].attention.get() & bits::INTR == 0 {
        let next = board.next_event().unwrap();
        assert!(next.0 < 10_000_000);
        board.advance(next);
    }
    assert_eq!(board.vcpus[1].attention.get() & bits::INTR, 0);
    assert_eq!(board.acknowledge(0), Some(0x08));
    assert_eq!(board.vcpus[0].attention.get() & bits::INTR, 0);
    assert_eq!(board.acknowledge(0), None);
}

#[test]
fn interprocessor_messages_start_the_second_processor() {
    let mut board = board(2);
    let icr = |board: &mut Board, high: u64, low: u64| {
        board.mmio_write(0, wiring::LAPIC_REGION, 0x310, 4, high);
        board.mmio_write(0, wiring::LAPIC_REGION, 0x300, 4, low);
    };
    icr(&mut board, 1 << 24, 0x4500);
    assert_eq!(board.vcpus[1].attention.get(), bits::INIT);
    icr(&mut board, 1 << 24, 0x4699);
    assert_eq!(board.vcpus[1].attention.get(), bits::INIT | bits::SIPI);
    assert_eq!((board.start_up_vector(1), board.vcpus[0].attention.get()), (0x99, 0));
}

#[test]
fn power_off_reset_and_exit_are_requests() {
    #[rustfmt::skip]
    let cases = [
        (wiring::PM_BASE + 4, 2, 0x2001, Request::PowerOff),
        (wiring::RESET_CONTROL, 1, 0x06, Request::Reset),
        (0x92, 1, 0x03, Request::Reset),
        (0xF4, 4, 0x10, Request::Exit(0x21)),
    ];
    for (port, width, value, request) in cases {
        let mut board = board(1);
        board.port_write(port, width, value);
        assert_eq!(board.take_request(), Some(request), "{port:#x}");
        assert_ne!(board.vcpus[0].attention.get() & bits::STOP, 0);
    }
}

#[test]
fn serial_bytes_go_both_ways() {
    let mut board = board(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    board.connect_serial(0, Box::new(move |bytes| log.lock().extend_from_slice(bytes)));
    board.port_write(0x3FB, 1, 3);
    for &byte in b"hi" {
        board.port_write(0x3F8, 1, byte.into());
    }
    assert_eq!(*seen.lock(), b"hi");
    board.serial_input(0, b"x");
    assert_eq!(board.port_read(0x3FD, 1) & 1, 1);
    assert_eq!(board.port_read(0x3F8, 1), u32::from(b'x'));
}

#[test]
fn firmware_opens_shadow_ram_and_fills_the_data_area() {
    let board = board(1);
    board.memory.write(GuestPhys(0xF_5A00), b"RSD PTR ");
    let mut bytes = [0; 8];
    board.memory.read(GuestPhys(0xF_5A00), &mut bytes);
    assert_eq!(&bytes, b"RSD PTR ");
    board.memory.read(GuestPhys(0x400), &mut bytes);
    assert_eq!(bytes, [0xF8, 3, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_saved_board_comes_back() {
    let mut board_a = board(2);
    board_a.port_write(0x43, 1, 0x34);
    board_a.port_write(0x40, 1, 0x00);
    board_a.port_write(0x40, 1, 0x10);
    board_a.advance(Tick(5_000_000));
    let states = board_a.save();
    let owned: Vec<_> = states.iter().map(|(name, state)| (name.to_string(), state.clone())).collect();
    let mut board_b = board(2);
    board_b.restore(&owned, board_a.now()).unwrap();
    assert_eq!(board_b.save(), states);
    assert_eq!(board_b.next_event(), board_a.next_event());
}

#[test]
fn test_ports_are_where_they_were_asked_for() {
    let mut board = board(1);
    board.port_write(0x190, 1, 0x42);
    board.port_write(0x80, 1, 0x17);
    assert_eq!(board.report(), Some(0x42));
    let text = Arc::new(Mutex::new(Vec::new()));
    let sink = text.clone();
    board.connect_console(Box::new(move |bytes| sink.lock().extend_from_slice(bytes)));
    board.port_write(0x402, 1, u32::from(b'x'));
    // The test device's bytes hide the console at E9h.
    board.port_write(0xE9, 1, u32::from(b'y'));
    assert_eq!(*text.lock(), b"x");
    // Line 5 of the test device is ISA request 5: 8259 input 5, vector 0Dh, once it is unmasked.
    board.port_write(0x21, 1, !(1 << 5));
    board.port_write(0x2005, 1, 1);
    assert_eq!(board.acknowledge(0), Some(0x0D));
    board.port_write(0xE0, 4, 0xDEAD_BEEF);
    assert_eq!(board.port_read(0xE8, 4), 0xDEAD_BEEF);
    board.mmio_write(0, wiring::TEST_DEVICE_REGION, 0x100, 8, 7);
    assert_eq!(board.mmio_read(0, wiring::TEST_DEVICE_REGION, 0x100, 4), 7);
}
