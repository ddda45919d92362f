//! The door: whoever wants a frame's contents has them brought in here; and the way out, in the order that `reclaim::order` holds.
//!
//! Everything here happens under the mmu lock. A vCPU that misses comes through `fill`; board, loader, debugger and bus masters
//! through `read_page` and `write_page`; page walks and hashes look at pages that are out without bringing them in.

use super::Monitor;
use super::join::is_zero;
use crate::addr::PhysPage;
use crate::attention::bits;
use crate::events::EventKind;
use crate::frames::Frame;
use crate::phys_map::{NONE, Target};
use crate::reclaim::books::Entry;
use crate::reclaim::order::{Acknowledged, Mapped, Out, Unmapped};
use crate::reclaim::swap::{PageBytes, Slot, SwapError};
use crate::reclaim::{Freed, Reclaim, ReclaimCounts, State};
use std::ops::Range;

/// Frames taken away for one wait.
const BATCH: u64 = 32;

/// The contents of a frame are gone for good; the machine stops.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Lost;

/// How a frame came to be in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It was.
    There,
    /// It had never been touched, or was all zero when it was taken away.
    Touched,
    /// Its contents were in the swap file, or on a disk.
    Fetched,
    /// Its contents were in a shared frame.
    Parted,
}

impl Monitor {
    /// Where the contents of a frame are.
    pub(crate) fn state(&self, frame: Frame) -> State {
        self.reclaim.as_ref().map_or(State::Kept, |reclaim| reclaim.state(frame))
    }
    /// Whether a frame itself holds its contents.
    pub(crate) fn is_in(&self, frame: Frame) -> bool {
        matches!(self.state(frame), State::Kept | State::In | State::Copied(_))
    }
    /// Whether contents were lost.
    pub(crate) fn has_failed(&self) -> bool {
        self.reclaim.as_ref().is_some_and(|reclaim| reclaim.failure.get().is_some())
    }
    pub(crate) fn reclaim_counts(&self) -> ReclaimCounts {
        self.reclaim.as_ref().map(|reclaim| reclaim.counts()).unwrap_or_default()
    }
    /// Makes the contents of a frame be somewhere where they can be read. Others may leave for it.
    #[inline]
    pub(crate) fn hold(&mut self, frame: Frame) -> Result<Held, Lost> {
        if self.is_readable(frame) { Ok(Held::There) } else { self.let_in(frame, false) }
    }
    /// Makes a frame itself hold its contents, so that it can be written.
    #[inline]
    pub(crate) fn hold_own(&mut self, frame: Frame) -> Result<Held, Lost> {
        if self.is_in(frame) { Ok(Held::There) } else { self.let_in(frame, false) }
    }
    /// The same for a frame that is written whole next: nobody needs what it held.
    pub(crate) fn hold_to_overwrite(&mut self, frame: Frame) -> Result<Held, Lost> {
        if self.is_in(frame) { Ok(Held::There) } else { self.let_in(frame, true) }
    }
    fn let_in(&mut self, frame: Frame, overwritten: bool) -> Result<Held, Lost> {
        let start = self.events.start();
        let held = self.bring(frame, overwritten);
        self.events.note(start, None, EventKind::FrameIn, self.pool.owner(frame).0 << 12);
        held
    }
    #[cold]
    fn bring(&mut self, frame: Frame, overwritten: bool) -> Result<Held, Lost> {
        self.make_frame_room(1);
        if self.is_shared(frame) {
            self.part(frame, overwritten);
            return Ok(Held::Parted);
        }
        let Some(reclaim) = self.reclaim.as_mut() else { return Ok(Held::There) };
        let mut held = Held::Touched;
        match reclaim.state(frame) {
            State::Kept | State::In | State::Copied(_) | State::Shared(_) => return Ok(Held::There),
            State::Zero => {
                reclaim.counts.first_touches += 1;
                if reclaim.freed == Freed::Poisoned {
                    self.pool.zero(frame);
                }
            }
            State::Out(slot) => {
                let mut bytes = [0; 4096];
                if !overwritten {
                    if let Err(error) = reclaim.swap.get(slot, &mut bytes) {
                        self.fail(error);
                        return Err(Lost);
                    }
                    reclaim.counts.swap_read += u64::from(slot.length);
                }
                self.pool.copy_in(frame, 0, &bytes);
                reclaim.counts.swap_ins += 1;
                reclaim.counts.swapped -= 1;
                if !overwritten {
                    reclaim.came_from(slot, frame);
                    return Ok(Held::Fetched);
                }
                reclaim.swap.give_back(slot);
                held = Held::Fetched;
            }
            State::OnDisk(block) => {
                let mut bytes = [0; 4096];
                if !overwritten {
                    if let Err(error) = reclaim.disks.get(reclaim.swap.sums, block, &mut bytes) {
                        self.fail(error);
                        return Err(Lost);
                    }
                    reclaim.counts.disk_reads += 1;
                }
                self.pool.copy_in(frame, 0, &bytes);
                reclaim.disks.take(block, frame);
                held = Held::Fetched;
            }
        }
        reclaim.came(frame);
        Ok(held)
    }
    /// The contents of a frame that is not in, which stays where it is. `false`: they are lost.
    pub(crate) fn look(&self, frame: Frame, bytes: &mut PageBytes) -> bool {
        let got = match (self.state(frame), self.reclaim.as_ref()) {
            (State::Out(slot), Some(reclaim)) => reclaim.swap.get(slot, bytes),
            (State::OnDisk(block), Some(reclaim)) => reclaim.disks.get(reclaim.swap.sums, block, bytes),
            (State::Zero, _) => {
                bytes.fill(0);
                Ok(())
            }
            _ => {
                self.copy_held(frame, 0, bytes);
                Ok(())
            }
        };
        got.map_err(|error| self.fail(error)).is_ok()
    }
    /// Reads within a page without bringing it in; devices, open bus and what is lost give FFh.
    pub(crate) fn peek_page(&self, page: PhysPage, offset: usize, into: &mut [u8]) {
        let (Target::Ram(frame) | Target::Rom(frame)) = self.phys.read_target(page) else { return into.fill(0xff) };
        if self.is_readable(frame) {
            return self.copy_held(frame, offset, into);
        }
        let mut bytes = [0; 4096];
        let part = self.look(frame, &mut bytes).then(|| bytes.get(offset..offset + into.len())).flatten();
        match part {
            Some(part) => into.copy_from_slice(part),
            None => into.fill(0xff),
        }
    }
    /// Forgets the contents of a frame, wherever they are; tells whether they are in memory.
    pub(crate) fn forget(&mut self, frame: Frame) -> bool {
        let Some(reclaim) = self.reclaim.as_mut() else { return true };
        let state = reclaim.state(frame);
        reclaim.drop_copy(frame);
        match state {
            State::Kept | State::Zero => {}
            State::In | State::Copied(_) => {
                reclaim.policy.gone(frame.0);
                reclaim.counts.resident -= 1;
                reclaim.set(frame, State::Zero);
            }
            State::Out(slot) => {
                reclaim.swap.give_back(slot);
                reclaim.counts.swapped -= 1;
                reclaim.set(frame, State::Zero);
            }
            State::OnDisk(block) => {
                reclaim.disks.take(block, frame);
                reclaim.set(frame, State::Zero);
            }
            State::Shared(common) => {
                reclaim.counts.shared -= 1;
                reclaim.set(frame, State::Zero);
                self.let_go(frame, common);
            }
        }
        state == State::Kept || state.is_in()
    }
    /// Nothing can go on: every vCPU comes back to its run loop, where the sentence is found.
    fn fail(&self, error: SwapError) {
        if let Some(reclaim) = self.reclaim.as_ref() {
            reclaim.fail(error);
        }
        self.vcpus.iter().for_each(|vcpu| vcpu.attention.set(bits::STOP));
    }
    /// Takes frames away until so many more may come in.
    pub(crate) fn make_frame_room(&mut self, wanted: u64) {
        let Some(reclaim) = self.reclaim.as_ref() else { return };
        let needed = (reclaim.counts.resident + wanted).saturating_sub(reclaim.limit);
        if needed != 0 {
            // A few at a time: the wait is for all of them. Not too many: whoever lowered the limit takes the others away.
            self.evict(needed.max(BATCH.min(reclaim.limit / 16)).min(4 * BATCH));
        }
    }
    /// Takes away `count` frames, those first that the policy names; gives how many there were.
    pub(crate) fn evict(&mut self, count: u64) -> u64 {
        let mut done = 0;
        while done < count && !self.has_failed() {
            let Some(mut reclaim) = self.reclaim.take() else { break };
            let wanted = (count - done).min(BATCH) as usize;
            let mut victims = Vec::with_capacity(wanted);
            while victims.len() < wanted {
                let (books, counts) = (&mut reclaim.books, &mut reclaim.counts);
                let victim = reclaim.policy.victim(&mut |frame| {
                    let used = self.ask(Frame(frame));
                    counts.asked += 1;
                    counts.used += u64::from(used);
                    if used {
                        books.entry(Frame(frame)).idle = 0;
                    }
                    used
                });
                let Some(victim) = victim.map(Frame) else { break };
                if reclaim.state(victim).is_in() {
                    victims.push(Mapped(victim));
                }
            }
            self.reclaim = Some(reclaim);
            if victims.is_empty() {
                break;
            }
            done += self.take_away(victims);
        }
        done
    }
    /// Whether a frame's page was used since the last time: whether an entry leads to it, which is taken away.
    pub(super) fn ask(&mut self, frame: Frame) -> bool {
        let page = self.pool.owner(frame);
        let used = self.phys.get(page).is_some_and(|slot| slot.mappers != NONE);
        if used {
            self.unmap_page(page);
        }
        used
    }
    /// The pages that were used since the last time.
    pub(crate) fn take_used(&mut self) -> Vec<PhysPage> {
        let pages = std::mem::take(&mut self.ram_pages);
        let frame = |monitor: &Monitor, page| monitor.phys.get(page).and_then(|slot| slot.ram);
        let used =
            pages.iter().filter(|page| frame(self, **page).is_some_and(|frame| self.ask(frame))).copied().collect();
        self.ram_pages = pages;
        used
    }
    /// Looks at the next `frames` frames (round robin), and takes away those that no such look has found in use `scans` times
    /// in a row; gives how many.
    pub(crate) fn shrink(&mut self, frames: usize, scans: u8) -> u64 {
        let Some(total) = self.reclaim.as_ref().map(|reclaim| reclaim.books.len()) else { return 0 };
        let mut victims = Vec::new();
        let mut done = 0;
        for _ in 0..frames.min(total) {
            let frame = self.reclaim.as_ref().map_or(Frame(0), |reclaim| reclaim.books.at(self.scan_hand));
            self.scan_hand = (self.scan_hand + 1) % total;
            if !self.state(frame).is_in() {
                continue;
            }
            let used = self.ask(frame);
            let Some(reclaim) = self.reclaim.as_mut() else { break };
            reclaim.counts.asked += 1;
            reclaim.counts.used += u64::from(used);
            let idle = &mut reclaim.books.entry(frame).idle;
            *idle = if used { 0 } else { idle.saturating_add(1) };
            if *idle >= scans {
                reclaim.policy.gone(frame.0);
                victims.push(Mapped(frame));
            }
            if victims.len() as u64 == BATCH {
                done += self.take_away(std::mem::take(&mut victims));
                if self.has_failed() {
                    break;
                }
            }
        }
        done + self.take_away(victims)
    }
    /// Takes these frames away, whoever uses them; gives how many have left. The policy has forgotten them.
    fn take_away(&mut self, frames: Vec<Mapped>) -> u64 {
        if frames.is_empty() {
            return 0;
        }
        let start = self.events.start();
        let unmapped = frames.into_iter().map(|frame| frame.unmap(|frame| self.unmap_page(self.pool.owner(frame))));
        let unmapped: Vec<Unmapped> = unmapped.collect();
        // Even where no entry was left: a vCPU may not have seen yet that one was dropped.
        let acknowledged = Unmapped::acknowledge(unmapped, || self.wait());
        let Some(mut reclaim) = self.reclaim.take() else { return 0 };
        let mut out = Vec::with_capacity(acknowledged.len());
        let mut gathered = Vec::new();
        for frame in acknowledged {
            match self.place(&mut reclaim, frame.frame()) {
                Some(state) => out.push(Monitor::settle(&mut reclaim, frame, state)),
                None => gathered.push(frame),
            }
        }
        let slots = reclaim.swap.write_gathered();
        for (index, frame) in gathered.into_iter().enumerate() {
            let number = frame.frame();
            let state = match &slots {
                Ok(slots) => slots.get(index).map(|slot| Monitor::written(&mut reclaim, *slot)),
                Err(_) => None,
            };
            // Where there is no room for all of them together, or an error, each is tried alone.
            let state = state.map_or_else(|| self.put_frame(&mut reclaim, number), Ok);
            match state {
                Ok(state) => out.push(Monitor::settle(&mut reclaim, frame, state)),
                // It stays, and so does everything else: nothing is lost.
                Err(error) => {
                    reclaim.fail(error);
                    reclaim.policy.came(number.0);
                }
            }
        }
        let (failed, freed) = (reclaim.failure.get().is_some(), reclaim.freed);
        self.reclaim = Some(reclaim);
        if failed {
            self.vcpus.iter().for_each(|vcpu| vcpu.attention.set(bits::STOP));
        }
        let count = out.len() as u64;
        self.give_up(out, freed);
        self.events.note(start, None, EventKind::Evicted, count);
        count
    }
    /// Where the contents of a frame are kept without a write; nothing if they must go to the swap file, for which they are gathered.
    fn place(&self, reclaim: &mut Reclaim, frame: Frame) -> Option<State> {
        let mut bytes = [0; 4096];
        self.pool.copy_out(frame, 0, &mut bytes);
        if is_zero(&bytes) {
            reclaim.drop_copy(frame);
            reclaim.counts.zero_evictions += 1;
            return Some(State::Zero);
        }
        let copy = match reclaim.state(frame) {
            State::Copied(slot) => Some(slot),
            _ => None,
        };
        if let Some(slot) = copy {
            reclaim.swap.pack(&bytes);
            if reclaim.swap.holds(slot) {
                reclaim.counts.clean_evictions += 1;
                reclaim.counts.copied -= 1;
                return Some(State::Out(slot));
            }
            reclaim.drop_copy(frame);
        }
        if let Some(block) = reclaim.disks.find(reclaim.swap.sums, &bytes) {
            reclaim.counts.disk_evictions += 1;
            reclaim.disks.put(block, frame);
            return Some(State::OnDisk(block));
        }
        if copy.is_none() {
            reclaim.swap.pack(&bytes);
        }
        reclaim.swap.gather();
        None
    }
    /// A frame's contents are somewhere else from now on.
    fn settle(reclaim: &mut Reclaim, frame: Acknowledged, state: State) -> Out {
        reclaim.counts.swapped += u64::from(matches!(state, State::Out(_)));
        reclaim.counts.evictions += 1;
        reclaim.counts.resident -= 1;
        reclaim.set(frame.frame(), state);
        Out::of(frame)
    }
    fn put_frame(&self, reclaim: &mut Reclaim, frame: Frame) -> Result<State, SwapError> {
        let mut bytes = [0; 4096];
        self.pool.copy_out(frame, 0, &mut bytes);
        Monitor::put(reclaim, &bytes)
    }
    /// A range of a disk is about to be written: what pages have there goes to the swap file.
    pub(crate) fn leave_blocks(&mut self, disk: u16, range: Range<u64>) {
        let Some(mut reclaim) = self.reclaim.take() else { return };
        let mut failure = None;
        for frame in reclaim.disks.change(disk, range) {
            let State::OnDisk(block) = reclaim.state(frame) else { continue };
            let mut bytes = [0; 4096];
            let got = reclaim.disks.get(reclaim.swap.sums, block, &mut bytes);
            match got.and_then(|()| Monitor::put(&mut reclaim, &bytes)) {
                Ok(state) => {
                    reclaim.counts.swapped += u64::from(matches!(state, State::Out(_)));
                    reclaim.counts.disk_moves += 1;
                    reclaim.disks.take(block, frame);
                    reclaim.set(frame, state);
                }
                Err(error) => failure = Some(error),
            }
        }
        self.reclaim = Some(reclaim);
        if let Some(error) = failure {
            self.fail(error);
        }
    }
    /// Pages with RAM.
    pub(crate) fn pages_of_ram(&self) -> usize {
        self.ram_pages.len()
    }
    /// Puts a page's contents into the swap file, if they are not zero.
    fn put(reclaim: &mut Reclaim, bytes: &PageBytes) -> Result<State, SwapError> {
        if is_zero(bytes) {
            reclaim.counts.zero_evictions += 1;
            return Ok(State::Zero);
        }
        reclaim.swap.pack(bytes);
        let slot = match reclaim.swap.put() {
            // What is only there a second time makes room first.
            Err(SwapError::NoRoom { .. }) if reclaim.drop_copies() => reclaim.swap.put()?,
            result => result?,
        };
        Ok(Monitor::written(reclaim, slot))
    }
    fn written(reclaim: &mut Reclaim, slot: Slot) -> State {
        reclaim.counts.swap_written += u64::from(slot.length);
        State::Out(slot)
    }
    /// Gives the memory of frames whose contents are elsewhere to the host.
    pub(super) fn give_up(&mut self, frames: Vec<Out>, freed: Freed) {
        let mut numbers: Vec<Frame> = frames.iter().map(Out::frame).collect();
        for frame in &numbers {
            if let Some(reclaim) = self.reclaim.as_mut() {
                reclaim.books.group_of(*frame).merged = false;
            }
        }
        match freed {
            Freed::Returned => self.pool.discard(&mut numbers),
            Freed::Poisoned => numbers.iter().for_each(|frame| self.pool.poison(*frame)),
        }
    }
    /// Makes the next group of frames a huge page of the host, if all of them are in. Under the lock: none leaves meanwhile.
    pub(crate) fn merge_next(&mut self) {
        let Some(reclaim) = self.reclaim.as_mut().filter(|reclaim| reclaim.merges) else { return };
        let groups = reclaim.books.groups();
        let number = self.merge_hand;
        self.merge_hand = (number + 1) % groups.len().max(1);
        let Some(group) = groups.get_mut(number) else { return };
        if !group.merged && group.entries.iter().all(|entry| entry.state.is_in()) && self.pool.merge(group.first) {
            group.merged = true;
            reclaim.counts.merges += 1;
        }
    }
    /// A page has another frame from now on, which is untouched if the page is not in.
    pub(crate) fn note_move(&mut self, from: Frame, to: Frame) {
        let Some(reclaim) = self.reclaim.as_mut() else { return };
        let state = reclaim.state(from);
        *reclaim.books.entry(to) = reclaim.books.get(from);
        *reclaim.books.entry(from) = Entry::default();
        match state {
            State::Kept => {}
            State::In | State::Copied(_) => {
                reclaim.policy.gone(from.0);
                reclaim.policy.came(to.0);
            }
            State::Zero | State::Out(_) => self.pool.discard(&mut [to]),
            State::OnDisk(block) => {
                reclaim.disks.take(block, from);
                reclaim.disks.put(block, to);
                self.pool.discard(&mut [to]);
            }
            State::Shared(_) => {
                self.pool.set_elsewhere(to, self.pool.elsewhere(from));
                self.pool.set_elsewhere(from, None);
                self.pool.discard(&mut [to]);
            }
        }
    }
}
