//! Blocks: decodes and lifts instructions until one ends the block, then fuses and prunes, and hands the steps to the cache.

use super::{lift, patched};
use crate::cache::patches::Span;
use crate::cache::{Alone, BlockKey, BlockRef};
use crate::decode::{Bytes, DecodeError, Insn, MAX_LENGTH};
use crate::exec::steps_of;
use crate::fault::{Fault, vector};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::flags;
use crate::uop::list::Effect;
use crate::uop::{FlagUse, Form, Op, Uop, verify};
use crate::vcpu::Vcpu;
use umbra_mmu::addr::{Linear, PAGE_OFFSET, PAGE_SIZE, PhysPage};
use umbra_mmu::attention::bits;
use umbra_mmu::fault::{Access, View};

/// The bytes that a block is lifted from: it ends before an instruction that reaches beyond them.
const WINDOW: usize = 512;
/// The most bytes that a block has.
pub const MOST_BYTES: usize = WINDOW + MAX_LENGTH;

/// What lifting a block gave. Kept from one block to the next: to allocate it anew takes as long as to fill it.
#[derive(Debug, Default)]
pub struct Lifted {
    /// Its uops; the last one ends the block.
    pub uops: Vec<Uop>,
    /// Offset of each instruction from the block's start, and of the end.
    pub offsets: Vec<u16>,
    /// Bytes that change: immediates among them are loaded. The caller's.
    pub changing: Vec<Span>,
    /// Immediates that are loaded.
    pub patched: Vec<Span>,
    /// The status flags that each instruction reads, and those that it overwrites.
    flags: Vec<(u64, u64)>,
}

/// Lifts the block that `key` names, whose first page has just been fetched from, and caches it.
pub fn lift_block(cpu: &mut Vcpu, key: BlockKey) -> Result<BlockRef, Fault> {
    let offset = key.linear & PAGE_OFFSET;
    let room = ((PAGE_SIZE - offset) as usize).min(WINDOW);
    let mut bytes = [0; MOST_BYTES];
    let mut lifted = std::mem::take(&mut cpu.link.lifted);
    lifted.changing.clear();
    if patched::can_be(&key) && !cpu.link.data_breakpoints {
        lifted.changing.extend(cpu.link.cache.patches(&key));
    }
    lift_tracked(cpu, &key, &mut bytes[..room], &mut lifted);
    let mut second = None;
    if lifted.offsets.len() < 2 {
        // The first instruction runs into the next page (or there is a fault on the way).
        let (page, extra) = fetch_second(cpu, key.linear, &mut bytes, room)?;
        second = Some(page);
        lift_bytes(cpu, &bytes[..room + extra], &BlockKey { alone: Alone::Yes, ..key }, &mut lifted);
        if usize::from(lifted.offsets.last().copied().unwrap_or(0)) <= room {
            second = None;
        }
    }
    optimise(&mut lifted.uops);
    debug_assert_eq!(verify::verify(&lifted.uops), Ok(()), "{}", dump(&lifted.uops));
    if let Some(tell) = &cpu.link.on_lift {
        tell(&key, &lifted.uops);
    }
    let c = &mut cpu.link.counters;
    c.blocks += 1;
    c.lifted_insns += lifted.offsets.len() as u64 - 1;
    c.lifted_uops += lifted.uops.len() as u64;
    let steps = steps_of(&lifted.uops, key.rip, &mut cpu.link.cache);
    let patched = lifted.patched.as_slice().into();
    let block = cpu.link.cache.insert(key, &lifted.uops, steps, lifted.offsets.as_slice().into(), second, patched);
    cpu.link.lifted = lifted;
    if cpu.link.cache.is_littered() {
        cpu.link.attention.set(bits::TIDY);
    }
    Ok(block)
}

/// Lifts from what follows in a page, whose bytes used are tracked when this returns, and as they were after that: a write by
/// another vCPU is either in them or posted.
fn lift_tracked(cpu: &mut Vcpu, key: &BlockKey, bytes: &mut [u8], lifted: &mut Lifted) {
    let offset = (key.linear & PAGE_OFFSET) as u16;
    cpu.link.mmu.read_phys(key.page, offset, bytes);
    let mut tracked = 0;
    loop {
        lift_bytes(cpu, bytes, key, lifted);
        // An instruction that runs into the next page uses all that is left.
        let used = match lifted.offsets.last() {
            Some(&end) if end != 0 => usize::from(end).min(bytes.len()),
            _ => bytes.len().min(MAX_LENGTH),
        };
        if used <= tracked {
            return;
        }
        cpu.link.mmu.track_code(key.page, offset, used as u16);
        for &(from, to) in lifted.patched.iter().filter(|place| usize::from(place.1) <= used) {
            cpu.link.mmu.keep_code(key.page, offset + from, to - from);
            cpu.link.cache.keep(key.page);
        }
        tracked = used;
        let mut after = [0; WINDOW];
        cpu.link.mmu.read_phys(key.page, offset, &mut after[..bytes.len()]);
        if bytes[..used] == after[..used] {
            return;
        }
        bytes.copy_from_slice(&after[..bytes.len()]);
    }
}

/// Reads the bytes of the page after the one that `linear` lies in. Its translation may fault: then nothing is lifted.
fn fetch_second(cpu: &mut Vcpu, linear: u64, bytes: &mut [u8], room: usize) -> Result<(PhysPage, usize), Fault> {
    let mut next = (linear & !PAGE_OFFSET).wrapping_add(PAGE_SIZE);
    if !cpu.state.long_mode() {
        next &= 0xffff_ffff;
    }
    let view = if cpu.state.cpl == 3 { View::User } else { View::Supervisor };
    let place = cpu.link.mmu.resolve(Linear(next), Access::Fetch, view)?;
    let page = place.phys().page();
    cpu.link.mmu.track_code(page, 0, MAX_LENGTH as u16);
    cpu.link.mmu.read_phys(page, 0, &mut bytes[room..room + MAX_LENGTH]);
    Ok((page, MAX_LENGTH))
}

/// Decodes and lifts from `bytes`. No instruction at all means that the first one needs more bytes than there are.
pub fn lift_bytes(cpu: &Vcpu, bytes: &[u8], key: &BlockKey, out: &mut Lifted) {
    out.uops.clear();
    out.offsets.clear();
    out.flags.clear();
    out.patched.clear();
    out.offsets.push(0);
    let limit = match key.mode.has(ModeBits::L) {
        true => u64::MAX,
        false => u64::from(cpu.state.segment(Seg::Cs).limit),
    };
    let most = if key.alone == Alone::Yes { 1 } else { usize::from(cpu.link.longest_block) };
    let mut at = 0;
    let mut ended = false;
    let mut code = Bytes::new(bytes, key.mode, cpu.link.model.encoding());
    let debugger = &cpu.link.debugger;
    let mut insn = Insn::default();
    while out.flags.len() < most && !ended {
        if at > 0 && debugger.active() && debugger.covers(key.linear.wrapping_add(at as u64)) {
            break;
        }
        let rip = key.rip.wrapping_add(at as u64);
        let decoded = code.decode(at, rip, &mut insn);
        let within = |len: usize| rip <= limit && rip.saturating_add((len as u64).saturating_sub(1)) <= limit;
        // What is no instruction depends on as many bytes as the decoder may have looked at.
        let looked_at = (bytes.len() - at).min(cpu.link.model.encoding().max_length());
        let looked_at = if within(looked_at) { looked_at } else { 1 };
        let (fault, len) = match decoded {
            Ok(()) if within(insn.len()) => (None, insn.len()),
            Ok(()) => (Some(vector::GP), 1),
            Err(_) if !within(1) => (Some(vector::GP), 1),
            Err(DecodeError::NeedsMore) => break,
            Err(DecodeError::TooLong) => (Some(vector::GP), looked_at),
            Err(DecodeError::Invalid) => (Some(vector::UD), looked_at),
        };
        let index = out.flags.len() as u8;
        match fault {
            None => {
                let first = out.uops.len();
                ended = lift(&insn, key.mode, &cpu.link.model, index, &mut out.uops);
                // One that runs into the next page is left as it is.
                if !out.changing.is_empty() && (key.linear & PAGE_OFFSET) as usize + at + len <= PAGE_SIZE as usize {
                    let loaded = patched::load_immediate((&insn, at), key, &out.changing, &mut out.uops, first);
                    out.patched.extend(loaded);
                }
                out.flags.push((insn.flags_read(), insn.flags_written()));
            }
            Some(vector) => {
                out.uops.push(Uop { insn: index, imm: i64::from(vector), ..Uop::new(Op::Raise) });
                ended = true;
            }
        }
        at += len;
        out.offsets.push(at as u16);
        if out.uops.len() > 200 {
            break;
        }
    }
    if !ended && out.offsets.len() > 1 {
        let end = key.rip.wrapping_add(at as u64);
        let end = if key.mode.has(ModeBits::L) { end } else { end & 0xffff_ffff };
        let insn = out.flags.len() as u8 - 1;
        out.uops.push(Uop { insn, next_rip: end, ..Uop::new(Op::End) });
    }
    mark_dead_flags(&mut out.uops, &out.flags);
}

/// Marks the uops whose status flags are all overwritten before anything can read them.
fn mark_dead_flags(uops: &mut [Uop], insns: &[(u64, u64)]) {
    let mut wanted = flags::STATUS;
    let mut at = uops.len();
    for (index, &(read, written)) in insns.iter().enumerate().rev() {
        let (mut first, mut does) = (at, 0);
        while let Some(uop) = uops[..first].last().filter(|uop| usize::from(uop.insn) >= index) {
            does |= look_at(uop);
            first -= 1;
        }
        if does & (OPAQUE | STORES) == 0 && written & wanted == 0 && written != 0 {
            for uop in &mut uops[first..at] {
                uop.flags = FlagUse::Dead;
            }
        }
        if does & MAY_KEEP == 0 {
            wanted &= !written;
        }
        wanted |= read;
        if does & (OPAQUE | MAY_LOOK) != 0 {
            wanted = flags::STATUS;
        }
        at = first;
    }
}

/// It calls Rust or ends the block.
const OPAQUE: u8 = 1;
/// A block may be left right after a store, so what a storing instruction does to the flags is always seen.
const STORES: u8 = 2;
/// A fault in an instruction shows the flags before it, so whatever may fault keeps them wanted.
const MAY_LOOK: u8 = 4;
/// Shifts leave the flags alone when their count is zero.
const MAY_KEEP: u8 = 8;

/// What a uop has to do with the flags of others.
fn look_at(uop: &Uop) -> u8 {
    let memory = match uop.form {
        _ if uop.op == Op::Lea => 0,
        Form::M | Form::MR | Form::MI => STORES | MAY_LOOK,
        Form::RM => MAY_LOOK,
        Form::R | Form::RR | Form::RI => 0,
    };
    let op = match uop.op {
        Op::Shl | Op::Shr | Op::Sar | Op::Rol | Op::Ror | Op::Rcl | Op::Rcr | Op::Shld | Op::Shrd => MAY_KEEP,
        Op::Check | Op::Div | Op::Idiv | Op::Pop | Op::Push | Op::Leave | Op::VLoad | Op::VStore | Op::VCall => {
            MAY_LOOK
        }
        op if matches!(op.effect(), Effect::Calls | Effect::Ends) => OPAQUE,
        _ => 0,
    };
    memory | op
}

/// Fuses compare-and-branch pairs.
pub fn optimise(uops: &mut Vec<Uop>) {
    let [.., compare, jump] = uops.as_slice() else { return };
    let op = match (compare.op, jump.op) {
        (Op::Cmp, Op::Jcc) => Op::CmpJcc,
        (Op::Test, Op::Jcc) => Op::TestJcc,
        _ => return,
    };
    let fits = match compare.form {
        Form::RR => true,
        Form::RI => i16::try_from(compare.imm).is_ok(),
        _ => false,
    };
    if fits {
        // Neither part can fault, so the pair may count as the jump's instruction.
        let fused =
            Uop { op, cond: jump.cond, target: jump.target, next_rip: jump.next_rip, insn: jump.insn, ..*compare };
        uops.truncate(uops.len() - 2);
        uops.push(fused);
    }
}

/// The uops as text, a line each.
pub fn dump(uops: &[Uop]) -> String {
    uops.iter().map(|uop| format!("{:2}  {uop}\n", uop.insn)).collect()
}
