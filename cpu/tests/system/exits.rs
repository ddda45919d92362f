//! Exits (SHADOW-MMU S22): each reason forced and counted, and no exit in the middle of an instruction.

use super::bench::*;
use std::time::Duration;
use umbra_cpu::Exit;
use umbra_cpu::debug::{WatchFor, Watchpoint};
use umbra_cpu::exit::Activity;
use umbra_cpu::state::slots;
use umbra_mmu::attention::bits;

/// Each reason, and how a vCPU comes to it. All return within a few instructions.
fn forced(exit: Exit) -> Guest {
    match exit {
        // jmp $
        Exit::BudgetSpent => Guest::protected(&[0xeb, 0xfe]),
        // hlt
        Exit::Halted => Guest::protected(&[0xf4]),
        Exit::WaitForSipi => {
            let mut guest = Guest::protected(&[]);
            guest.edit(|state| state.activity = Activity::WaitForSipi);
            guest
        }
        // ud2, without an interrupt table
        Exit::Shutdown => {
            let mut guest = Guest::protected(&[0x0f, 0x0b]);
            guest.edit(|state| state.idtr.limit = 0);
            guest
        }
        Exit::Stopped => {
            let guest = Guest::protected(&[0xeb, 0xfe]);
            guest.cpu.link.attention.set(bits::STOP);
            guest
        }
        // mov [20000h], eax
        Exit::Debug => {
            let mut guest = Guest::protected(&[0xa3, 0, 0, 2, 0]);
            guest.cpu.watch(Watchpoint { linear: 0x2_0000, len: 4, sees: WatchFor::Writes });
            guest
        }
    }
}

#[test]
fn each_exit_is_counted_once_and_its_host_time_too() {
    for exit in Exit::ALL {
        let mut guest = forced(exit);
        let mut seen = [0u64; Exit::ALL.len()];
        for _ in 0..3 {
            seen[guest.cpu.run(10) as usize] += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_ne!(seen[exit as usize], 0, "{exit:?} was not met: {seen:?}");
        let log = guest.cpu.link.exits;
        assert_eq!(Exit::ALL.map(|exit| log.count(exit)), seen, "{exit:?}");
        for exit in Exit::ALL {
            // The last return has not ended yet.
            let least = Duration::from_millis(2) * seen[exit as usize].saturating_sub(1) as u32;
            assert!(log.time(exit) >= least, "{exit:?}: {:?}", log.time(exit));
            assert!(seen[exit as usize] != 0 || log.time(exit).is_zero(), "{exit:?}");
        }
    }
}

/// However a run is cut, every cut is between two instructions (or elements of a REP), and the end is the same.
#[test]
fn wherever_a_run_is_cut_it_comes_to_the_same() {
    // push eax; pusha; mov ecx, 5; mov esi, 20000h; mov edi, 20ffdh; rep movsd; lock add [20ffeh], edx; enter 20h, 3; popa; hlt
    let code = [
        0x50, 0x60, 0xb9, 5, 0, 0, 0, 0xbe, 0, 0, 2, 0, 0xbf, 0xfd, 0x0f, 2, 0, 0xf3, 0xa5, 0xf0, 0x01, 0x15, 0xfe,
        0x0f, 2, 0, 0xc8, 0x20, 0, 3, 0x61, 0xf4,
    ];
    let run = |cuts: &mut dyn FnMut() -> u64| {
        let mut guest = Guest::protected(&code);
        guest.write(0x2_0000, &(0..64).collect::<Vec<u8>>());
        guest.edit(|state| {
            state.set_gpr(slots::RAX, 0x1234_5678);
            state.set_gpr(slots::RDX, 0x0101_0101);
            state.set_gpr(slots::RBP, 0x6800);
        });
        let mut exits = 0u64;
        while guest.cpu.run(cuts()) != Exit::Halted {
            exits += 1;
            assert_eq!((guest.cpu.link.current, guest.cpu.link.fault), (0, None), "at a boundary");
            assert!(exits < 100);
        }
        (format!("{:?}", guest.cpu.state), guest.cpu.link.memory.hash(), exits)
    };
    let (state, hash, _) = run(&mut || 1000);
    for step in 1..8 {
        let (other, other_hash, exits) = run(&mut || step);
        assert!(exits > 0);
        assert_eq!((&other, other_hash), (&state, hash), "in steps of {step}");
    }
}
