//! Runs programs natively in a child process, a batch at a time.
//!
//! The child shares a block of slots with its parent. It raises one #UD to enter its signal handler, which from then on
//! exchanges contexts: it stores where the last program ended, loads the next one into the signal frame and returns into it.
//! So a program costs one signal. Registers travel in the frame's general registers and its XSAVE area (SDM vol. 1, 13.4,
//! standard format), the mode by the code segment: 33h is 64-bit, 23h is 32-bit, LDT segments with a base are 16-bit.
//!
//! The sandbox: the child has only its own memory and, after its set-up, the system calls read, write, exit and sigreturn
//! (strict seccomp, where the host has it). A program that breaks the child costs one batch; a timer ends those that hang.

use crate::layout::{ARENA, DATA_PAGES, ENTRY, End, Mode, Outcome, PAGE, Registers, STACK_AT};
use crate::program::Start;
use std::ffi::c_void;
use std::io::Error;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Programs in a batch.
pub const BATCH: usize = 64;
/// Ticks of the child's timer (20 ms of its own processor time each) after which a program has hung.
const HUNG: u32 = 10;
/// Bytes of the legacy region, the XSAVE header and the AVX component.
const SAVED: usize = 512 + 64 + 256;

/// One program and its outcome.
#[repr(C)]
struct Slot {
    mode: u32,
    code_len: u32,
    code: [u8; PAGE],
    start: Registers,
    end: Registers,
    ended: End,
    memory: [u8; ARENA],
}

/// What parent and child share.
#[repr(C)]
struct Shared {
    count: u32,
    /// The slot that runs, or will.
    current: u32,
    running: u32,
    ticks: u32,
    slots: [Slot; BATCH],
}

/// What the handler needs; only the child uses it.
struct Child {
    shared: *mut Shared,
    /// The image's writable view: code page, then arena.
    image: *mut u8,
    gregs: [i64; 23],
    saved: [u8; SAVED],
    /// What DS and ES hold.
    data_selector: u16,
}

static CHILD: AtomicPtr<Child> = AtomicPtr::new(std::ptr::null_mut());

/// A child process that runs batches.
pub struct Host {
    shared: *mut Shared,
    pid: i32,
    to_child: i32,
    from_child: i32,
    /// Whether 16-bit segments could be made.
    pub has_16_bit: bool,
}

/// What came of one program of a batch.
pub enum Native {
    /// It ended.
    Done(Box<Outcome>),
    /// The child died in it, or before it.
    Lost,
}

/// Turns −1 or `MAP_FAILED` into the error.
fn checked(result: i64) -> Result<i64, Error> {
    if result == -1 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn map(at: u64, len: usize, protection: i32, flags: i32, file: i32, offset: usize) -> Result<*mut u8, Error> {
    // SAFETY: a fixed mapping is only made in the child, at addresses below its executable where nothing else lies.
    let found = unsafe { libc::mmap(at as *mut c_void, len, protection, flags, file, offset as i64) };
    checked(found as i64).map(|p| p as *mut u8)
}

impl Host {
    /// Starts a child.
    pub fn start() -> Result<Host, Error> {
        let anonymous = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let shared = map(0, size_of::<Shared>(), libc::PROT_READ | libc::PROT_WRITE, anonymous, -1, 0)?.cast();
        let mut pipes = [[0i32; 2]; 2];
        for pipe in &mut pipes {
            // SAFETY: the array has room for the two descriptors.
            checked(i64::from(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }))?;
        }
        let mut child = Box::new(Child {
            shared,
            image: std::ptr::null_mut(),
            gregs: [0; 23],
            saved: [0; SAVED],
            data_selector: 0,
        });
        // SAFETY: the child calls nothing but system calls until it exits, and never returns from `live`.
        let pid = checked(i64::from(unsafe { libc::fork() }))? as i32;
        if pid == 0 {
            // SAFETY: this is the child.
            unsafe { child.live(pipes[0][0], pipes[1][1]) }
        }
        for fd in [pipes[0][0], pipes[1][1]] {
            // SAFETY: these ends are the child's.
            unsafe { libc::close(fd) };
        }
        let mut host = Host { shared, pid, to_child: pipes[0][1], from_child: pipes[1][0], has_16_bit: false };
        // The child says whether the LDT worked.
        host.has_16_bit = host.receive()? == b'L';
        Ok(host)
    }

    fn receive(&self) -> Result<u8, Error> {
        let mut byte = 0u8;
        // SAFETY: one byte of room.
        match unsafe { libc::read(self.from_child, (&raw mut byte).cast(), 1) } {
            1 => Ok(byte),
            0 => Err(Error::other("the native child ended")),
            _ => Err(Error::last_os_error()),
        }
    }

    /// Puts a program into slot `n` (below [`BATCH`]).
    pub fn put(&mut self, n: usize, mode: Mode, code: &[u8], start: &Start) {
        // SAFETY: between batches the child touches nothing of `Shared`.
        let slot = unsafe { &mut (&mut (*self.shared).slots)[n] };
        slot.mode = mode.bits();
        slot.code_len = code.len() as u32;
        slot.code[..code.len()].copy_from_slice(code);
        slot.start = start.registers;
        slot.memory.copy_from_slice(&start.memory);
    }

    /// Lets the child run the first `count` slots; [`Self::finish`] waits for it.
    pub fn begin(&mut self, count: usize) -> Result<(), Error> {
        // SAFETY: as in `put`.
        unsafe { (*self.shared).count = count as u32 };
        // SAFETY: one byte, an open descriptor.
        checked(unsafe { libc::write(self.to_child, (&raw const *b"g").cast(), 1) } as i64).map(|_| ())
    }

    /// The outcomes of the batch.
    pub fn finish(&mut self, count: usize) -> Vec<Native> {
        let done = if self.receive().is_ok() {
            count
        } else {
            // SAFETY: the child is gone.
            unsafe { (*self.shared).current as usize }
        };
        (0..count).map(|n| if n < done { Native::Done(Box::new(self.outcome(n))) } else { Native::Lost }).collect()
    }

    fn outcome(&self, n: usize) -> Outcome {
        // SAFETY: the batch is over.
        let slot = unsafe { &(&(*self.shared).slots)[n] };
        let mode = if slot.mode == 16 { Mode::Bits16 } else { Mode::Bits64 };
        let mut end = slot.ended;
        if end.vector == 14 {
            end.cr2 = end.cr2.wrapping_sub(mode.host_base());
            if mode == Mode::Bits16 {
                end.cr2 &= 0xffff_ffff;
            }
        } else {
            end.cr2 = 0;
        }
        Outcome { registers: slot.end, end, memory: slot.memory.to_vec() }
    }

    /// Runs one program.
    pub fn run(&mut self, mode: Mode, code: &[u8], start: &Start) -> Result<Outcome, Error> {
        self.put(0, mode, code, start);
        self.begin(1)?;
        match self.finish(1).pop() {
            Some(Native::Done(outcome)) => Ok(*outcome),
            _ => {
                *self = Host::start()?;
                Err(Error::other("the program ended its process"))
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: our child, our descriptors, our mapping; nothing uses them after this.
        unsafe {
            libc::close(self.to_child);
            libc::close(self.from_child);
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            libc::munmap(self.shared.cast(), size_of::<Shared>());
        }
    }
}

/// `struct user_desc` of modify_ldt(2).
#[repr(C)]
struct UserDesc {
    entry_number: u32,
    base_addr: u32,
    limit: u32,
    flags: u32,
}

/// Selectors of the LDT's 16-bit code and data segments.
const CODE_16: u16 = 7;
const DATA_16: u16 = 15;

fn make_16_bit_segments() -> bool {
    // flags: seg_32bit 0, contents 1–2, read_exec_only 3, limit_in_pages 4, seg_not_present 5, useable 6.
    let segments = [(0, 2 << 1 | 1 << 4 | 1 << 6), (1, 1 << 4 | 1 << 6)];
    segments.into_iter().all(|(entry_number, flags)| {
        let desc = UserDesc { entry_number, base_addr: Mode::Bits16.host_base() as u32, limit: 0xf_ffff, flags };
        // SAFETY: the kernel copies the descriptor.
        unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, &raw const desc, size_of::<UserDesc>()) == 0 }
    })
}

impl Child {
    /// The child's life. Never returns.
    ///
    /// # Safety
    /// Only in a process of its own, straight after fork.
    unsafe fn live(&mut self, from_parent: i32, to_parent: i32) -> ! {
        let ready = self.prepare();
        CHILD.store(self, Ordering::SeqCst);
        let segments = make_16_bit_segments();
        // SAFETY: plain system calls on our descriptors.
        unsafe {
            if ready.is_err() {
                libc::_exit(1);
            }
            // Where the host refuses it, the child is only a process of its own.
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0);
            let mut byte = if segments { b'L' } else { b'-' };
            while libc::write(to_parent, (&raw const byte).cast(), 1) == 1 {
                if libc::read(from_parent, (&raw mut byte).cast(), 1) != 1 {
                    break;
                }
                if (*self.shared).count > 0 {
                    std::arch::asm!("ud2", options(nostack));
                }
            }
            libc::syscall(libc::SYS_exit, 0);
            std::arch::asm!("hlt", options(noreturn));
        }
    }

    /// Maps the image, installs the handlers and the timer.
    fn prepare(&mut self) -> Result<(), Error> {
        // SAFETY: the name is a C string.
        let file = checked(unsafe { libc::memfd_create(c"umbra-oracle".as_ptr(), 0) }.into())? as i32;
        // SAFETY: our descriptor.
        checked(unsafe { libc::ftruncate(file, (PAGE + ARENA) as i64) }.into())?;
        let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        self.image = map(0, PAGE + ARENA, read | write, libc::MAP_SHARED, file, 0)?;
        for mode in [Mode::Bits64, Mode::Bits16] {
            let base = mode.host_base();
            let data = DATA_PAGES * PAGE;
            let fixed = libc::MAP_SHARED | libc::MAP_FIXED;
            map(base + mode.code(), PAGE, read | execute, fixed, file, 0)?;
            map(base + mode.data(), data, read | write, fixed, file, PAGE)?;
            map(base + mode.data() + data as u64, PAGE, read, fixed, file, PAGE + data)?;
            map(base + mode.stack(), PAGE, read | write, fixed, file, PAGE + STACK_AT)?;
        }
        let stack_len = 256 << 10;
        let stack = map(0, stack_len, read | write, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        let alternate = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: stack_len };
        // SAFETY: the stack stays mapped; the handler is written for these signals.
        unsafe {
            checked(libc::sigaltstack(&raw const alternate, std::ptr::null_mut()).into())?;
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
            for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS, libc::SIGTRAP, libc::SIGVTALRM] {
                checked(libc::sigaction(signal, &raw const action, std::ptr::null_mut()).into())?;
            }
            let tick = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
            let timer = libc::itimerval { it_interval: tick, it_value: tick };
            checked(libc::setitimer(libc::ITIMER_VIRTUAL, &raw const timer, std::ptr::null_mut()).into())?;
        }
        Ok(())
    }

    /// Stores where the current program ended.
    ///
    /// # Safety
    /// `context` is the frame of the running handler.
    unsafe fn store(&mut self, context: *mut libc::ucontext_t, timeout: bool) {
        // SAFETY: the frame and the shared block are valid; nobody else uses them now.
        unsafe {
            let shared = &mut *self.shared;
            let slot = &mut shared.slots[shared.current as usize];
            let gregs = &(*context).uc_mcontext.gregs;
            let end = &mut slot.end;
            for (n, index) in GPR.iter().enumerate() {
                end.gpr[n] = gregs[*index as usize] as u64;
            }
            end.rip = gregs[libc::REG_RIP as usize] as u64;
            end.rflags = gregs[libc::REG_EFL as usize] as u64;
            let vector = if timeout { End::TIMEOUT } else { gregs[libc::REG_TRAPNO as usize] as u32 };
            let error = gregs[libc::REG_ERR as usize] as u32;
            slot.ended = End { vector, error, cr2: gregs[libc::REG_CR2 as usize] as u64 };
            let area = (*context).uc_mcontext.fpregs as *const u8;
            end.cw = area.cast::<u16>().read_unaligned();
            end.sw = area.add(2).cast::<u16>().read_unaligned();
            end.tags = u16::from(area.add(4).read());
            end.mxcsr = area.add(24).cast::<u32>().read_unaligned();
            for (n, st) in end.st.iter_mut().enumerate() {
                let from = area.add(32 + 16 * n);
                *st = (from.cast::<u64>().read_unaligned(), from.add(8).cast::<u16>().read_unaligned());
            }
            for (n, vector) in end.vectors.iter_mut().enumerate() {
                let (low, high) = (area.add(160 + 16 * n).cast::<u64>(), area.add(576 + 16 * n).cast::<u64>());
                *vector = [
                    low.read_unaligned(),
                    low.add(1).read_unaligned(),
                    high.read_unaligned(),
                    high.add(1).read_unaligned(),
                ];
            }
            std::ptr::copy_nonoverlapping(self.image.add(PAGE), slot.memory.as_mut_ptr(), ARENA);
        }
    }

    /// Loads the current program into the frame.
    ///
    /// # Safety
    /// As [`Self::store`].
    unsafe fn load(&mut self, context: *mut libc::ucontext_t) {
        // SAFETY: as above; the image holds a code page and the arena.
        unsafe {
            let shared = &mut *self.shared;
            let slot = &mut shared.slots[shared.current as usize];
            shared.ticks = 0;
            self.image.write_bytes(0xf4, PAGE);
            let len = (slot.code_len as usize).min(PAGE - ENTRY as usize);
            std::ptr::copy_nonoverlapping(slot.code.as_ptr(), self.image.add(ENTRY as usize), len);
            std::ptr::copy_nonoverlapping(slot.memory.as_ptr(), self.image.add(PAGE), ARENA);
            let start = &slot.start;
            let gregs = &mut (*context).uc_mcontext.gregs;
            for (n, index) in GPR.iter().enumerate() {
                gregs[*index as usize] = start.gpr[n] as i64;
            }
            gregs[libc::REG_RIP as usize] = start.rip as i64;
            gregs[libc::REG_EFL as usize] = start.rflags as i64;
            let (cs, ss, data) = match slot.mode {
                16 => (CODE_16, DATA_16, DATA_16),
                32 => (0x23, 0x2b, 0x2b),
                _ => (0x33, 0x2b, 0x2b),
            };
            let rest = gregs[libc::REG_CSGSFS as usize] & 0x0000_ffff_ffff_0000;
            gregs[libc::REG_CSGSFS as usize] = rest | i64::from(cs) | (ss as i64) << 48;
            (*context).uc_flags |= 6;
            if self.data_selector != data {
                std::arch::asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) data, options(nostack));
                self.data_selector = data;
            }
            let area = (*context).uc_mcontext.fpregs as *mut u8;
            area.cast::<u16>().write_unaligned(start.cw);
            area.add(2).cast::<u16>().write_unaligned(start.sw);
            area.add(4).cast::<u16>().write_unaligned(start.tags);
            area.add(6).write_bytes(0, 18);
            area.add(24).cast::<u32>().write_unaligned(start.mxcsr);
            for (n, (significand, sign_exponent)) in start.st.iter().enumerate() {
                let to = area.add(32 + 16 * n);
                to.cast::<u64>().write_unaligned(*significand);
                to.add(8).cast::<u64>().write_unaligned(u64::from(*sign_exponent));
            }
            for (n, vector) in start.vectors.iter().enumerate() {
                let (low, high) = (area.add(160 + 16 * n).cast::<u64>(), area.add(576 + 16 * n).cast::<u64>());
                low.write_unaligned(vector[0]);
                low.add(1).write_unaligned(vector[1]);
                high.write_unaligned(vector[2]);
                high.add(1).write_unaligned(vector[3]);
            }
            // XSTATE_BV: x87, SSE and AVX are there; what lies above them is initial.
            area.add(512).cast::<u64>().write_unaligned(7);
        }
    }
}

/// Where the general registers are in a frame, in the order of their encoding.
const GPR: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Exchanges contexts.
extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: only the child installs this handler, after it made `CHILD`; signals arrive one at a time, while programs or
    // the loop of `live` run.
    unsafe {
        let child = &mut *CHILD.load(Ordering::Relaxed);
        let shared = &mut *child.shared;
        let area = (*context).uc_mcontext.fpregs as *mut u8;
        if shared.running == 0 {
            if signal == libc::SIGVTALRM {
                return;
            }
            if signal != libc::SIGILL {
                libc::syscall(libc::SYS_exit, 3);
            }
            shared.running = 1;
            shared.current = 0;
            child.gregs = (*context).uc_mcontext.gregs;
            std::ptr::copy_nonoverlapping(area, child.saved.as_mut_ptr(), SAVED);
        } else {
            if signal == libc::SIGVTALRM {
                shared.ticks += 1;
                if shared.ticks < HUNG {
                    return;
                }
            }
            child.store(context, signal == libc::SIGVTALRM);
            shared.current += 1;
        }
        if shared.current < shared.count {
            child.load(context);
            return;
        }
        shared.running = 0;
        (*context).uc_mcontext.gregs = child.gregs;
        // Past the UD2.
        (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
        std::ptr::copy_nonoverlapping(child.saved.as_ptr(), area, SAVED);
    }
}
