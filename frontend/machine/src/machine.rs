//! A whole machine: memory, board and vCPUs, to run, reset, look at and talk to. Made by [`crate::builder`].
//!
//! No globals: any number of machines live in one process, each with its own threads while it runs.

use crate::board::{Board, Removable, SharedBoard, Sink, SoundSink};
use crate::builder::{BootSource, BuildError, MachineBuilder};
use crate::config::Clock;
use crate::display::DisplayHandle;
use crate::drives::MediaHost;
use crate::entry::{application_state, boot_state};
use crate::images::ImageError;
use crate::load::EntryState;
use crate::lock_step::{Divergence, Input, LockStep};
use crate::memory_map::MemoryMap;
use crate::pressure::Reclaimer;
use crate::run::{RunEnd, RunLimits, Runner, StopHandle};
use crate::storm::Storm;
use crate::time::GuestClock;
use parking_lot::{Mutex, MutexGuard};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;
use umbra_cpu::Vcpu;
use umbra_cpu::state::State;
use umbra_devices::clock::Tick;
use umbra_devices::pci::virtio::tablet::{self, Report};
use umbra_devices::ps2::{KeyCode, MouseButtons, Stroke};
use umbra_mmu::GuestMemory;

/// A machine.
pub struct Machine {
    pub(crate) map: MemoryMap,
    pub(crate) memory: GuestMemory,
    pub(crate) board: Arc<SharedBoard>,
    pub(crate) clock: Arc<GuestClock>,
    pub(crate) clock_kind: Clock,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) storm: Option<Storm>,
    pub(crate) reclaimer: Option<Reclaimer>,
    /// How images are opened.
    pub(crate) media: MediaHost,
    /// What it starts from, kept for resets.
    pub(crate) boot: BootSource,
    /// With `--engine both`: the machine beside this one.
    pub(crate) lock_step: Option<Box<LockStep>>,
}

impl Machine {
    /// Begins to describe a machine.
    pub fn builder() -> MachineBuilder {
        MachineBuilder::default()
    }
    /// Two machines in lock-step, that of `reference` and that of `other`, which is made with the same clock and input; seen as
    /// the first.
    pub fn in_lock_step(reference: MachineBuilder, other: MachineBuilder) -> Result<Machine, BuildError> {
        let mut machine = reference.clone().build_one()?;
        machine.lock_step = Some(Box::new(LockStep::new([reference, other])?));
        Ok(machine)
    }
    /// The first difference between the engines, after [`RunEnd::Diverged`].
    pub fn divergence(&self) -> Option<&Divergence> {
        self.lock_step.as_ref()?.divergence.as_ref()
    }
    /// The machine with the other engine, with `--engine both`.
    pub fn other(&self) -> Option<&Machine> {
        self.lock_step.as_ref().map(|pair| pair.other())
    }
    /// Runs until something ends the run. May be called again after most ends.
    pub fn run(&mut self, limits: RunLimits) -> RunEnd {
        if let Some(mut pair) = self.lock_step.take() {
            let end = pair.run(self, limits);
            self.lock_step = Some(pair);
            return end;
        }
        self.run_one(limits)
    }
    /// The same for this machine alone.
    pub(crate) fn run_one(&mut self, limits: RunLimits) -> RunEnd {
        let runner = Runner {
            vcpus: &mut self.vcpus,
            board: &self.board,
            memory: &self.memory,
            clock: &self.clock,
            stop: &self.stop,
            storm: self.storm.as_mut(),
            reclaimer: self.reclaimer.as_mut(),
            limits,
        };
        let end = match self.clock_kind {
            Clock::Virtual => runner.in_turns(),
            Clock::Real => runner.on_threads(),
        };
        self.vcpus.iter_mut().for_each(Vcpu::materialise_flags);
        end
    }
    /// Runs until guest time `until` or an earlier end.
    pub fn run_until(&mut self, until: Tick) -> RunEnd {
        self.run(RunLimits { until: Some(until), ..RunLimits::default() })
    }
    /// Resets the machine and loads again what it started from. Guest time goes on.
    pub fn reset(&mut self) -> Result<(), BuildError> {
        if let Some(pair) = &mut self.lock_step {
            pair.reset()?;
        }
        self.board.lock().reset();
        self.power_up()
    }
    /// Puts the boot image into memory and the vCPUs into their first states.
    pub(crate) fn power_up(&mut self) -> Result<(), BuildError> {
        let entry = self.boot.install(&self.map, &self.memory, &self.board)?;
        self.memory.prefer_huge_pages();
        for number in 0..self.vcpus.len() {
            self.set_first_state(number, entry.as_ref());
        }
        Ok(())
    }
    fn set_first_state(&mut self, number: usize, entry: Option<&EntryState>) {
        let vcpu = &mut self.vcpus[number];
        // Counting goes on over a reset: guest time follows it.
        let fresh = State { retired: vcpu.state.retired, ..State::power_on(vcpu.link.model.signature()) };
        vcpu.set_state(match (number, entry) {
            (0, Some(entry)) => boot_state(fresh, entry),
            (0, None) => fresh,
            _ => application_state(fresh),
        });
    }

    /// Stops the machine from another thread.
    pub fn stop_handle(&self) -> StopHandle {
        let asked = self.lock_step.as_ref().map_or(&self.stop, |pair| &pair.asked);
        StopHandle { asked: asked.clone(), board: self.board.clone() }
    }
    /// Talks to the machine from another thread.
    pub fn input(&self) -> InputHandle {
        let inbox = self.lock_step.as_ref().map(|pair| pair.inbox.clone());
        InputHandle { board: self.board.clone(), media: self.media.clone(), inbox }
    }
    /// Where a serial port's output goes.
    pub fn connect_serial(&self, port: usize, sink: Sink) {
        self.board.lock().connect_serial(port, sink);
    }
    /// Where the output of the console port (E9h) goes.
    pub fn connect_console(&self, sink: Sink) {
        self.board.lock().connect_console(sink);
    }
    /// Where the machine is heard (if its configuration has `sound`): see [`crate::sound`].
    pub fn connect_sound(&self, sink: SoundSink) {
        self.board.lock().connect_sound(sink);
    }
    /// The board, locked.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock()
    }
    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
    /// Where RAM is.
    pub fn memory_map(&self) -> &MemoryMap {
        &self.map
    }
    /// The vCPUs.
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }
    /// The vCPUs, to change: for debuggers and tests.
    pub fn vcpus_mut(&mut self) -> &mut [Vcpu] {
        &mut self.vcpus
    }
    /// Guest time as of the last event or access.
    pub fn now(&self) -> Tick {
        self.board.lock().now()
    }
    /// Instructions retired by all vCPUs.
    pub fn retired(&self) -> u64 {
        self.vcpus.iter().map(|vcpu| vcpu.state.retired).sum()
    }
    /// A hash of everything that the guest could tell two machines apart by: vCPUs, devices, memory, time.
    pub fn state_hash(&mut self) -> u64 {
        // The default hasher has fixed keys: the same states hash alike in every process.
        let mut hasher = DefaultHasher::new();
        for vcpu in &mut self.vcpus {
            vcpu.materialise_flags();
            // A plain struct serialises; were it not so, every state would hash as empty.
            hasher.write(&postcard::to_stdvec(&vcpu.state).unwrap_or_default());
        }
        let mut board = self.board.lock();
        for (name, state) in board.save() {
            hasher.write(name.as_bytes());
            hasher.write(&state);
        }
        hasher.write_u64(board.now().0);
        hasher.write_u64(self.memory.hash());
        hasher.finish()
    }
    /// Looks at the screen, from any thread.
    pub fn display(&self) -> DisplayHandle {
        DisplayHandle { board: self.board.clone(), clock: self.clock.clone() }
    }
    /// The text on the screen, trailing spaces removed; nothing in graphics modes.
    pub fn screen_text(&self) -> Vec<String> {
        self.display().text().map(|text| text.lines()).unwrap_or_default()
    }
}

/// Why a medium was not changed.
#[derive(Debug, Error)]
pub enum MediaError {
    /// The image is no good.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The machine has no such drive.
    #[error("this machine has no {0} drive; try to start it with one")]
    NoDrive(&'static str),
    /// Two machines in lock-step.
    #[error("with --engine both drives keep their media; try --engine jit")]
    LockStep,
}

/// Gives a machine input from outside.
#[derive(Clone)]
pub struct InputHandle {
    board: Arc<SharedBoard>,
    media: MediaHost,
    /// With `--engine both`: input goes to both machines at their next stop.
    inbox: Option<Arc<Mutex<Vec<Input>>>>,
}

impl InputHandle {
    /// Bytes for a serial port.
    pub fn serial(&self, port: usize, bytes: &[u8]) {
        self.give(Input::Serial(port, bytes.to_vec()));
    }
    /// Presses the power button.
    pub fn power_button(&self) {
        self.give(Input::PowerButton);
    }
    /// Puts another medium into a drive, or (`None`) takes it out.
    pub fn change_medium(&self, drive: Removable, image: Option<&Path>) -> Result<(), MediaError> {
        if self.inbox.is_some() {
            return Err(MediaError::LockStep);
        }
        let open = |path| match drive {
            Removable::Cdrom => self.media.open_cdrom(path),
            Removable::Floppy(_) => self.media.open_floppy(path),
        };
        let mut medium = image.map(open).transpose()?;
        let mut done = false;
        self.with(|board| done = board.swap_medium(drive, &mut medium));
        // The old medium goes now that the board is unlocked.
        drop(medium);
        let name = if drive == Removable::Cdrom { "CD-ROM" } else { "floppy" };
        if done { Ok(()) } else { Err(MediaError::NoDrive(name)) }
    }
    /// Presses keys together and lets them go. Gives how many wait for the guest now: whoever types on waits while it is
    /// not 0, since a keyboard keeps few.
    pub fn press(&self, chord: &[KeyCode]) -> usize {
        chord.iter().for_each(|&key| self.give(Input::Key(key, Stroke::Down)));
        chord.iter().rev().for_each(|&key| self.give(Input::Key(key, Stroke::Up)));
        self.keys_waiting()
    }
    /// Keys that the guest has not read yet.
    pub fn keys_waiting(&self) -> usize {
        let held = |input: &&Input| matches!(input, Input::Key(..));
        let mut waiting = self.inbox.as_ref().map_or(0, |inbox| inbox.lock().iter().filter(held).count());
        self.with(|board| waiting += board.keys_waiting());
        waiting
    }
    /// A key does something.
    pub fn key(&self, key: KeyCode, stroke: Stroke) {
        self.give(Input::Key(key, stroke));
    }
    /// The mouse moves by `[x, y, wheel]` (positive: right, down, towards the user) with these buttons down.
    pub fn mouse(&self, delta: [i32; 3], buttons: MouseButtons) {
        self.give(Input::Mouse(delta, buttons));
    }
    /// The tablet's pointer is at `[x, y]` (0–1: from the left, from the top of the screen), the wheel was turned so many
    /// notches towards the user, and these buttons are down. Nothing happens unless [`Self::hears_tablet`].
    pub fn tablet(&self, at: [f64; 2], wheel: i32, buttons: MouseButtons) {
        // The cast saturates, and gives 0 for what is no number.
        let place = at.map(|part| (part * f64::from(tablet::LARGEST)).round() as u16);
        self.give(Input::Tablet(Report::new(place, wheel, buttons)));
    }
    /// Whether the guest listens to the tablet: whoever has a pointer of their own need not give it away then.
    pub fn hears_tablet(&self) -> bool {
        self.board.lock().hears_tablet()
    }
    /// Any input.
    pub fn give(&self, input: Input) {
        match &self.inbox {
            None => self.with(|board| input.apply(board)),
            Some(inbox) => {
                inbox.lock().push(input);
                self.board.changed.notify_all();
            }
        }
    }
    /// A look at the board. Not for what a guest can notice: with `--engine both` the other machine would not get it.
    pub fn with(&self, call: impl FnOnce(&mut Board)) {
        let mut board = self.board.lock();
        call(&mut board);
        self.board.changed.notify_all();
    }
}
