//! MOO, the Machine Opcode Operation format, version 1.1: single instructions recorded on real 16- and 32-bit processors.
//!
//! A file is a row of chunks (`id[4] length:u32le payload`), nested once or twice; chunks with other names are skipped
//! as the format demands. Bus cycles (`CYCL`), prefetch queues (`QUEU`) and effective addresses (`EA32`) are left out:
//! Umbra does not model them. Called by the runner; what a processor does differently from ours is in `profile`.

use crate::case::{Case, End, Environment, Expectation, Expected, Register, Span, Tolerance, Value};
use crate::error::{FormatError, Position};
use std::path::Path;

/// Which processor a file was recorded on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// 8086, 8088, V20, V30, 80186: 1 MiB that wraps, no HLT after the instruction.
    I8086,
    /// 80286 in real mode.
    I80286,
    /// 80386 in real mode.
    I80386,
}

/// The exception that an instruction raised, as the recording names it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The guest-physical address of the FLAGS image in the interrupt frame.
    pub flags_at: u64,
}

/// One test of a file.
#[derive(Clone, Debug)]
pub struct MooTest {
    /// The test in the common shape.
    pub case: Case,
    /// The exception, if the instruction raised one.
    pub exception: Option<Exception>,
}

/// A whole file.
#[derive(Clone, Debug)]
pub struct MooFile {
    /// What it was recorded on.
    pub recorded: Recorded,
    /// The tests in file order.
    pub tests: Vec<MooTest>,
}

/// REGS and RMSK: two bytes for each bit of a 16-bit mask.
const REGISTERS_16: [Register; 14] = [
    Register::Gpr(0),
    Register::Gpr(3),
    Register::Gpr(1),
    Register::Gpr(2),
    Register::Segment(1),
    Register::Segment(2),
    Register::Segment(3),
    Register::Segment(0),
    Register::Gpr(4),
    Register::Gpr(5),
    Register::Gpr(6),
    Register::Gpr(7),
    Register::Rip,
    Register::Flags,
];

/// RG32 and RM32: four bytes for each bit of a 32-bit mask.
const REGISTERS_32: [Register; 20] = [
    Register::Cr0,
    Register::Cr3,
    Register::Gpr(0),
    Register::Gpr(3),
    Register::Gpr(1),
    Register::Gpr(2),
    Register::Gpr(6),
    Register::Gpr(7),
    Register::Gpr(5),
    Register::Gpr(4),
    Register::Segment(1),
    Register::Segment(3),
    Register::Segment(0),
    Register::Segment(4),
    Register::Segment(5),
    Register::Segment(2),
    Register::Rip,
    Register::Flags,
    Register::Dr6,
    Register::Dr7,
];

/// Instructions after which a test counts as hanging: REP with a count of FFFFh and a handler fit well within.
const MAX_INSTRUCTIONS: u64 = 300_000;

/// Reads a whole file that was already decompressed.
pub fn parse(file: &Path, data: &[u8]) -> Result<MooFile, FormatError> {
    let mut top = Cursor { file, data, base: 0, at: 0 };
    let Some(header) = top.chunk()? else {
        return Err(top.error("the file is empty"));
    };
    if &header.id != b"MOO " {
        return Err(FormatError::new(file, Position::Byte(0), "this is no MOO file: it does not start with \"MOO \""));
    }
    let mut head = header.body;
    let version = head.u8()?;
    if version != 1 {
        return Err(head.error(format!("MOO version {version} is not known, only 1")));
    }
    head.take(3)?;
    head.u32()?;
    let recorded = recorded_on(&mut head)?;
    let mut masks = Vec::new();
    let mut tests = Vec::new();
    while let Some(chunk) = top.chunk()? {
        let mut body = chunk.body;
        match &chunk.id {
            b"RMSK" => masks = body.registers_16()?,
            b"RM32" => masks = body.registers_32()?,
            b"TEST" => tests.push(test(&mut body, recorded, &masks)?),
            _ => {}
        }
    }
    Ok(MooFile { recorded, tests })
}

fn recorded_on(head: &mut Cursor<'_>) -> Result<Recorded, FormatError> {
    let id = head.take(4)?;
    match id {
        b"8086" | b"8088" | b"V20 " | b"V30 " | b"186 " => Ok(Recorded::I8086),
        b"C286" => Ok(Recorded::I80286),
        b"386E" => Ok(Recorded::I80386),
        _ => Err(head.error(format!("recorded on an unknown processor \"{}\"", id.escape_ascii()))),
    }
}

/// What INIT and FINA hold.
#[derive(Default)]
struct Snapshot {
    registers: Vec<(Register, u64)>,
    masks: Vec<(Register, u64)>,
    ram: Vec<(u32, u8)>,
}

fn test(body: &mut Cursor<'_>, recorded: Recorded, masks: &[(Register, u64)]) -> Result<MooTest, FormatError> {
    let index = body.u32()?;
    let (mut name, mut code, mut exception) = (String::new(), Vec::new(), None);
    let (mut initial, mut last) = (None, None);
    while let Some(chunk) = body.chunk()? {
        let mut inner = chunk.body;
        match &chunk.id {
            b"NAME" => name = String::from_utf8_lossy(inner.counted()?).into_owned(),
            b"BYTS" => code = inner.counted()?.to_vec(),
            b"INIT" => initial = Some(snapshot(&mut inner)?),
            b"FINA" => last = Some(snapshot(&mut inner)?),
            b"EXCP" => exception = Some(Exception { vector: inner.u8()?, flags_at: u64::from(inner.u32()?) }),
            _ => {}
        }
    }
    let (Some(initial), Some(last)) = (initial, last) else {
        return Err(body.error(format!("test {index} lacks its INIT or FINA chunk")));
    };
    let end = match recorded {
        Recorded::I8086 => End::OneInstruction,
        Recorded::I80286 | Recorded::I80386 => End::AfterHalt,
    };
    let mut expect = Expectation { end, registers: Vec::new(), memory: Vec::new(), memory_masks: Vec::new() };
    for &(register, before) in &initial.registers {
        let value = lookup(&last.registers, register).unwrap_or(before);
        let mask = lookup(masks, register).unwrap_or(u64::MAX) & lookup(&last.masks, register).unwrap_or(u64::MAX);
        expect.registers.push(Expected { register, value: Value::int(value), mask });
    }
    expect.memory = spans(initial.ram.iter().chain(&last.ram));
    let case = Case {
        name: index.to_string(),
        text: name,
        code,
        environment: Environment::Real,
        map: Vec::new(),
        load: spans(initial.ram.iter()),
        registers: initial.registers.iter().map(|&(r, v)| (r, Value::int(v))).collect(),
        expect,
        max: MAX_INSTRUCTIONS,
        named_memory_only: false,
        tolerance: Tolerance::Exact,
    };
    Ok(MooTest { case, exception })
}

fn lookup(list: &[(Register, u64)], register: Register) -> Option<u64> {
    list.iter().find(|(r, _)| *r == register).map(|(_, v)| *v)
}

fn snapshot(body: &mut Cursor<'_>) -> Result<Snapshot, FormatError> {
    let mut snapshot = Snapshot::default();
    while let Some(chunk) = body.chunk()? {
        let mut inner = chunk.body;
        match &chunk.id {
            b"REGS" => snapshot.registers = inner.registers_16()?,
            b"RG32" => snapshot.registers = inner.registers_32()?,
            b"RMSK" => snapshot.masks = inner.registers_16()?,
            b"RM32" => snapshot.masks = inner.registers_32()?,
            b"RAM " => {
                let count = inner.u32()?;
                for _ in 0..count {
                    snapshot.ram.push((inner.u32()?, inner.u8()?));
                }
            }
            _ => {}
        }
    }
    Ok(snapshot)
}

/// Single bytes as runs in address order; of several values for one address the last holds.
fn spans<'a>(bytes: impl Iterator<Item = &'a (u32, u8)>) -> Vec<Span> {
    let mut sorted: Vec<(u32, u8)> = bytes.copied().collect();
    sorted.sort_by_key(|(at, _)| *at);
    let mut spans: Vec<Span> = Vec::new();
    for (at, byte) in sorted {
        let at = u64::from(at);
        match spans.last_mut() {
            Some(span) if span.at + span.bytes.len() as u64 == at => span.bytes.push(byte),
            Some(span) if span.at + span.bytes.len() as u64 == at + 1 => {
                span.bytes.pop();
                span.bytes.push(byte);
            }
            _ => spans.push(Span { at, bytes: vec![byte] }),
        }
    }
    spans
}

/// A chunk whose payload lies wholly within its parent.
struct Chunk<'a> {
    id: [u8; 4],
    body: Cursor<'a>,
}

/// A place in a row of bytes that knows where in the file it is.
#[derive(Clone)]
struct Cursor<'a> {
    file: &'a Path,
    data: &'a [u8],
    /// The position of `data[0]` in the file.
    base: u64,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, what: impl Into<String>) -> FormatError {
        FormatError::new(self.file, Position::Byte(self.base + self.at as u64), what)
    }
    fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let left = self.data.len() - self.at;
        if count > left {
            return Err(self.error(format!("{count} bytes should follow, but only {left} are left")));
        }
        let taken = &self.data[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }
    fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.take(1)?[0])
    }
    fn u16(&mut self) -> Result<u16, FormatError> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
    fn u32(&mut self) -> Result<u32, FormatError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
    /// A length of four bytes, then that many bytes.
    fn counted(&mut self) -> Result<&'a [u8], FormatError> {
        let count = self.u32()?;
        self.take(count as usize)
    }
    /// The next chunk, or `None` at the end.
    fn chunk(&mut self) -> Result<Option<Chunk<'a>>, FormatError> {
        if self.at == self.data.len() {
            return Ok(None);
        }
        let bytes = self.take(4)?;
        let id = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let count = self.u32()? as usize;
        let base = self.base + self.at as u64;
        let data = self.take(count)?;
        Ok(Some(Chunk { id, body: Cursor { file: self.file, data, base, at: 0 } }))
    }
    fn registers_16(&mut self) -> Result<Vec<(Register, u64)>, FormatError> {
        let mask = self.u16()?;
        let present = REGISTERS_16.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0);
        present.map(|(_, register)| Ok((*register, u64::from(self.u16()?)))).collect()
    }
    fn registers_32(&mut self) -> Result<Vec<(Register, u64)>, FormatError> {
        let mask = self.u32()?;
        let present = REGISTERS_32.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0);
        present.map(|(_, register)| Ok((*register, u64::from(self.u32()?)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(id: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = id.as_bytes().to_vec();
        out.extend((payload.len() as u32).to_le_bytes());
        out.extend(payload);
        out
    }
    fn words(mask: u16, values: &[u16]) -> Vec<u8> {
        let mut out = mask.to_le_bytes().to_vec();
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        out
    }
    fn ram(entries: &[(u32, u8)]) -> Vec<u8> {
        let mut out = (entries.len() as u32).to_le_bytes().to_vec();
        for (at, byte) in entries {
            out.extend(at.to_le_bytes());
            out.push(*byte);
        }
        out
    }
    fn sample() -> Vec<u8> {
        let initial =
            [chunk("REGS", &words(0x3001, &[7, 0x100, 2])), chunk("RAM ", &ram(&[(0x100, 0x40), (0x101, 0xf4)]))];
        let last = [chunk("REGS", &words(0x1001, &[8, 0x102])), chunk("RMSK", &words(0x2000, &[0xffef]))];
        let mut test = 5u32.to_le_bytes().to_vec();
        test.extend(chunk("NAME", &[6, 0, 0, 0, b'i', b'n', b'c', b' ', b'a', b'x']));
        test.extend(chunk("BYTS", &[1, 0, 0, 0, 0x40]));
        test.extend(chunk("WHAT", &[1, 2, 3]));
        test.extend(chunk("INIT", &initial.concat()));
        test.extend(chunk("FINA", &last.concat()));
        test.extend(chunk("EXCP", &[13, 0, 1, 0, 0]));
        let mut out = chunk("MOO ", b"\x01\x01\x00\x00\x01\x00\x00\x00C286");
        out.extend(chunk("TEST", &test));
        out
    }

    #[test]
    fn a_small_file() {
        let parsed = parse(Path::new("x.MOO"), &sample()).unwrap();
        assert_eq!(parsed.recorded, Recorded::I80286);
        let [test] = parsed.tests.as_slice() else { panic!("one test") };
        assert_eq!((test.case.name.as_str(), test.case.text.as_str()), ("5", "inc ax"));
        assert_eq!(test.case.load, [Span { at: 0x100, bytes: vec![0x40, 0xf4] }]);
        assert_eq!(test.case.initial(Register::Gpr(0)), Some(Value::int(7)));
        let find = |r| test.case.expect.registers.iter().find(|e| e.register == r).copied().unwrap();
        assert_eq!(find(Register::Gpr(0)).value.low(), 8);
        assert_eq!(find(Register::Rip).value.low(), 0x102);
        assert_eq!((find(Register::Flags).value.low(), find(Register::Flags).mask), (2, 0xffef));
        assert_eq!(test.exception, Some(Exception { vector: 13, flags_at: 0x100 }));
    }

    /// Every truncation and every flipped byte is an answer or an error, never a panic.
    #[test]
    fn hostile_input() {
        let good = sample();
        for cut in 1..good.len() {
            let error = parse(Path::new("x.MOO"), &good[..cut]).err();
            let header = chunk("MOO ", &[0; 12]).len();
            assert!(cut == header || error.is_some(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = parse(Path::new("x.MOO"), &bad);
            }
        }
        let error = parse(Path::new("x.MOO"), b"ELF.....").unwrap_err();
        assert!(error.to_string().starts_with("x.MOO: byte"), "{error}");
    }

    #[test]
    fn overlapping_bytes_keep_the_last() {
        let list = [(5, 1), (4, 2), (5, 3), (9, 4)];
        assert_eq!(spans(list.iter()), [Span { at: 4, bytes: vec![2, 3] }, Span { at: 9, bytes: vec![4] }]);
    }
}
