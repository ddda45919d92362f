//! JSON-lines state vectors: one case a line, recorded on a processor or written by a script.
//!
//! Two layouts share the keys. *Fixed*: the instruction `b` at 10100h in a page of HLTs, 256 bytes of data at 21000h
//! (`mem`), 128 bytes of stack at 307C0h (`stk`), nothing else mapped, CPL 3; `o` names what changed, and what it does not
//! name must be as before. *Free* (any of `map`, `load`, `entry`, `cpl`, `fs`, `gs`): the case brings its own memory map and
//! program and runs to a HLT; only what `o` names is compared. The keys are described in full in docs/vectors.md.
//!
//! Integers are JSON numbers or strings of hexadecimal digits. Unknown keys are errors: a name that is spelt wrongly
//! must not turn a comparison off.

use crate::case::{
    Case, End, Environment, Expectation, Expected, Mapping, Register, Rights, Span, Tolerance, Value, Width,
};
use crate::error::{FormatError, Position};
use serde_json::{Map, Value as Json};
use std::path::Path;

/// Where the fixed layout has its instruction.
const CODE: u64 = 0x10100;
/// Its data.
const MEM: u64 = 0x21000;
/// Its stack bytes.
const STK: u64 = 0x307c0;
/// Instructions after which a fixed case counts as hanging; a REP may count up to a page fault first.
const MAX_FIXED: u64 = 100_000;
/// The same for a free case that gives no `max`.
const MAX_FREE: u64 = 10_000_000;
/// No case may load or map more than this many bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a whole file that was already decompressed. Empty lines and lines that start with `#` are skipped.
pub fn parse(file: &Path, data: &[u8]) -> Result<Vec<Case>, FormatError> {
    let mut cases = Vec::new();
    for (number, line) in data.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let at = Position::Line(number as u64 + 1);
        let json = serde_json::from_slice(line).map_err(|e| FormatError::new(file, at, format!("no JSON: {e}")))?;
        let case = case(&json, number as u64 + 1).map_err(|what| FormatError::new(file, at, what))?;
        cases.push(case);
    }
    Ok(cases)
}

type Parsed<T> = Result<T, String>;

fn case(json: &Json, line: u64) -> Parsed<Case> {
    let object = json.as_object().ok_or("a case is a JSON object")?;
    if let Some(key) = object.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(format!("unknown key \"{key}\""));
    }
    let free = FREE_KEYS.iter().any(|k| object.contains_key(*k));
    let width =
        match integer(object.get("m").ok_or("the key \"m\" (mode) is missing")?).map_err(|e| format!("m: {e}"))? {
            16 | 0x16 => Width::Bits16,
            32 | 0x32 => Width::Bits32,
            64 | 0x64 => Width::Bits64,
            other => return Err(format!("m is {other}, but a mode is 16, 32 or 64")),
        };
    let cpl = optional(object, "cpl")?.unwrap_or(3);
    if cpl > 3 {
        return Err(format!("cpl is {cpl}, but a privilege level is 0 to 3"));
    }
    let code = match object.get("b") {
        Some(value) => hex_bytes(value).map_err(|e| format!("b: {e}"))?,
        None if free => Vec::new(),
        None => return Err("the key \"b\" (instruction bytes) is missing".into()),
    };
    let mut case = Case {
        name: text(object, "id").unwrap_or_else(|| line.to_string()),
        text: text(object, "n").unwrap_or_default(),
        code,
        environment: Environment::Flat { width, cpl: cpl as u8 },
        map: Vec::new(),
        load: Vec::new(),
        registers: Vec::new(),
        expect: Expectation { end: End::OnHalt, registers: Vec::new(), memory: Vec::new(), memory_masks: Vec::new() },
        max: optional(object, "max")?.unwrap_or(if free { MAX_FREE } else { MAX_FIXED }),
        named_memory_only: free,
        tolerance: Tolerance::Exact,
    };
    let entry = if free { free_layout(&mut case, object)? } else { fixed_layout(&mut case)? };
    let inputs = match object.get("i") {
        Some(value) => value.as_object().ok_or("i is an object of registers")?,
        None => &Map::new(),
    };
    initial(&mut case, inputs, free).map_err(|e| format!("i: {e}"))?;
    case.registers.push((Register::Rip, Value::int(entry)));
    for (key, segment) in [("fs", 4), ("gs", 5)] {
        if let Some(base) = optional(object, key)? {
            case.registers.push((Register::SegmentBase(segment), Value::int(base)));
        }
    }
    if !free {
        compare_all_inputs(&mut case);
    }
    let outputs = object.get("o").and_then(Json::as_object).ok_or("the key \"o\" (outputs) is missing or no object")?;
    let layout = Layout { entry, free };
    results(&mut case, outputs, layout).map_err(|e| format!("o: {e}"))?;
    if let Some(undefined) = optional(object, "uf")?
        && let Some(flags) = case.expected_mut(Register::Flags)
    {
        flags.mask &= !undefined;
    }
    Ok(case)
}

const KEYS: [&str; 15] =
    ["m", "b", "n", "i", "o", "uf", "map", "load", "entry", "fs", "gs", "cpl", "max", "id", "comment"];
const FREE_KEYS: [&str; 6] = ["map", "load", "entry", "fs", "gs", "cpl"];

#[derive(Copy, Clone)]
struct Layout {
    entry: u64,
    free: bool,
}

fn fixed_layout(case: &mut Case) -> Parsed<u64> {
    if case.code.is_empty() || case.code.len() > 0xf00 {
        return Err(format!("b has {} bytes", case.code.len()));
    }
    let user = Rights::USER;
    let data = user.with(Rights::WRITE);
    case.map = vec![
        Mapping { linear: 0x10000, length: 0x1000, rights: user.with(Rights::EXECUTE) },
        Mapping { linear: 0x20000, length: 0x3000, rights: data },
        Mapping { linear: 0x30000, length: 0x1000, rights: data },
    ];
    let mut page = vec![0xf4; 0x1000];
    page[0x100..0x100 + case.code.len()].copy_from_slice(&case.code);
    case.load.push(Span { at: 0x10000, bytes: page });
    Ok(CODE)
}

fn free_layout(case: &mut Case, object: &Map<String, Json>) -> Parsed<u64> {
    let Environment::Flat { cpl, .. } = case.environment else { return Err("no flat mode".into()) };
    let mut total = 0u64;
    for entry in array(object, "map")? {
        let Some([linear, length, rights]) = entry.as_array().map(Vec::as_slice) else {
            return Err("map: an entry is [linear, length, rights]".into());
        };
        let length = integer(length).map_err(|e| format!("map length: {e}"))?;
        total = total.saturating_add(length);
        case.map.push(Mapping {
            linear: integer(linear).map_err(|e| format!("map address: {e}"))?,
            length,
            rights: rights_of(rights, cpl)?,
        });
    }
    for entry in array(object, "load")? {
        let span = span(entry).map_err(|e| format!("load: {e}"))?;
        total = total.saturating_add(span.bytes.len() as u64);
        case.load.push(span);
    }
    if total > MAX_BYTES {
        return Err(format!("maps and loads {total} bytes, but a case may have {MAX_BYTES}"));
    }
    let entry = match optional(object, "entry")? {
        Some(entry) => entry,
        None if !case.code.is_empty() => CODE,
        None => case.load.first().map(|s| s.at).ok_or("a case without \"b\" needs \"load\"")?,
    };
    if !case.code.is_empty() {
        let mut bytes = case.code.clone();
        bytes.push(0xf4);
        case.load.push(Span { at: entry, bytes });
    }
    if case.map.is_empty() {
        let rights = Rights::USER.with(Rights::WRITE).with(Rights::EXECUTE);
        case.map = case.load.iter().map(|s| Mapping { linear: s.at, length: s.bytes.len() as u64, rights }).collect();
        case.map.push(Mapping { linear: 0x20000, length: 0x3000, rights });
        case.map.push(Mapping { linear: 0x30000, length: 0x1000, rights });
    }
    Ok(entry)
}

/// Letters r, w, x, u (user), s (supervisor), or bits 1, 2, 4 as in mmap. User pages unless the case runs at CPL 0–2 or says so.
fn rights_of(json: &Json, cpl: u8) -> Parsed<Rights> {
    let mut rights = if cpl == 3 { Rights::USER } else { Rights::READ };
    let Some(letters) = json.as_str() else {
        let bits = integer(json).map_err(|e| format!("rights: {e}"))?;
        for (bit, right) in [(2, Rights::WRITE), (4, Rights::EXECUTE)] {
            if bits & bit != 0 {
                rights = rights.with(right);
            }
        }
        return Ok(rights);
    };
    if letters.contains('s') {
        rights = Rights::READ;
    }
    for letter in letters.chars() {
        rights = rights.with(match letter {
            'r' | '-' | 's' => Rights::READ,
            'w' => Rights::WRITE,
            'x' => Rights::EXECUTE,
            'u' => Rights::USER,
            other => return Err(format!("rights \"{letters}\": '{other}' is none of r, w, x, u, s")),
        });
    }
    Ok(rights)
}

fn initial(case: &mut Case, inputs: &Map<String, Json>, free: bool) -> Parsed<()> {
    let named = |prefix: &str| inputs.keys().any(|k| k.strip_prefix(prefix).is_some_and(|n| n.len() == 1));
    for (name, json) in inputs {
        match name.as_str() {
            "fpu" => {
                let text = json.as_str().ok_or("fpu is a string")?;
                case.registers.extend(fpu(text)?);
            }
            "mem" | "stk" if !free => {
                let at = if name == "mem" { MEM } else { STK };
                let bytes = hex_bytes(json).map_err(|e| format!("{name}: {e}"))?;
                if bytes.len() > if name == "mem" { 256 } else { 128 } {
                    return Err(format!("{name} has {} bytes", bytes.len()));
                }
                case.load.push(Span { at, bytes });
            }
            "fs" | "gs" => {
                let base = integer(json).map_err(|e| format!("{name}: {e}"))?;
                case.registers.push((Register::SegmentBase(4 + u8::from(name == "gs")), Value::int(base)));
            }
            _ => case.registers.push(register(name, json)?),
        }
    }
    // Registers named one by one are there: their tags say so unless the case gives tags itself.
    let given = |r| case.registers.iter().any(|(have, _)| *have == r);
    if !given(Register::FpuTags) && (named("st") || named("mm")) {
        let mut tags = 0u64;
        for (r, _) in &case.registers {
            match r {
                Register::St(n) => tags |= 1 << n,
                Register::Mm(_) => tags = 0xff,
                _ => {}
            }
        }
        case.registers.push((Register::FpuTags, Value::int(tags)));
    }
    Ok(())
}

/// In the fixed layout what `o` leaves out is unchanged.
fn compare_all_inputs(case: &mut Case) {
    let kept = case.registers.iter().filter(|(r, _)| *r != Register::Rip);
    case.expect.registers = kept.map(|&(register, value)| Expected { register, value, mask: u64::MAX }).collect();
    case.expect.memory = case.load.iter().filter(|s| s.at != CODE & !0xfff).cloned().collect();
}

fn results(case: &mut Case, outputs: &Map<String, Json>, layout: Layout) -> Parsed<()> {
    let exception = outputs.get("exc").map(integer).transpose().map_err(|e| format!("exc: {e}"))?;
    if let Some(vector) = exception {
        let error_code = outputs.get("err").map(integer).transpose().map_err(|e| format!("err: {e}"))?;
        let cr2 = outputs.get("cr2").map(integer).transpose().map_err(|e| format!("cr2: {e}"))?;
        let vector = u8::try_from(vector).map_err(|_| format!("exc is {vector}, but a vector is 0 to 255"))?;
        case.expect.end = End::Fault { vector, error_code: error_code.map(|e| e as u32), cr2 };
    }
    for (name, json) in outputs {
        match name.as_str() {
            "exc" | "err" | "cr2" => {}
            "rip" => {
                if let Some(rip) = stopped_at(case, json, layout)? {
                    expect(case, Register::Rip, Value::int(rip));
                }
            }
            "fpu" => {
                let text = json.as_str().ok_or("fpu is a string")?;
                for (register, value) in fpu(text)? {
                    expect(case, register, value);
                }
            }
            "mem" | "stk" => {
                let base = match (layout.free, name.as_str()) {
                    (true, _) => 0,
                    (false, "mem") => MEM,
                    (false, _) => STK,
                };
                for entry in json.as_array().ok_or_else(|| format!("{name} is a list"))? {
                    let mut span = span(entry).map_err(|e| format!("{name}: {e}"))?;
                    span.at = span.at.wrapping_add(base);
                    change_memory(&mut case.expect.memory, span);
                }
            }
            _ => {
                let (register, value) = register(name, json)?;
                expect(case, register, value);
            }
        }
    }
    Ok(())
}

/// `rip`: "far" is not compared; a hexadecimal string is a linear address; a number is an offset from the entry, in the
/// free layout also a linear address when it lies in a mapped range.
fn stopped_at(case: &Case, json: &Json, layout: Layout) -> Parsed<Option<u64>> {
    if json.as_str() == Some("far") {
        return Ok(None);
    }
    if let Some(offset) = json.as_i64() {
        let at = offset as u64;
        let mapped = case.map.iter().any(|m| at.wrapping_sub(m.linear) < m.length);
        let absolute = layout.free && mapped;
        return Ok(Some(if absolute { at } else { layout.entry.wrapping_add(at) }));
    }
    integer(json).map(Some).map_err(|e| format!("rip: {e}"))
}

fn expect(case: &mut Case, register: Register, value: Value) {
    match case.expected_mut(register) {
        Some(expected) => expected.value = value,
        None => case.expect.registers.push(Expected { register, value, mask: u64::MAX }),
    }
}

/// Overwrites the bytes of `change` in the expected memory, or adds them.
fn change_memory(memory: &mut Vec<Span>, change: Span) {
    for (offset, byte) in change.bytes.iter().enumerate() {
        let at = change.at.wrapping_add(offset as u64);
        let mut found = false;
        for span in memory.iter_mut() {
            if let Some(slot) = span.bytes.get_mut(at.wrapping_sub(span.at) as usize) {
                *slot = *byte;
                found = true;
            }
        }
        if !found {
            memory.push(Span { at, bytes: vec![*byte] });
        }
    }
}

fn register(name: &str, json: &Json) -> Parsed<(Register, Value)> {
    let register = Register::from_name(name).ok_or_else(|| format!("unknown register \"{name}\""))?;
    let exactly = |lengths: &[usize]| {
        let bytes = hex_bytes(json).map_err(|e| format!("{name}: {e}"))?;
        if lengths.contains(&bytes.len()) {
            Ok(Value::bytes(&bytes))
        } else {
            Err(format!("{name} has {} bytes, but {lengths:?} are possible", bytes.len()))
        }
    };
    let value = match register {
        Register::St(_) => exactly(&[10])?,
        Register::Mm(_) => exactly(&[8])?,
        Register::Vector(_) => exactly(&[16, 32])?,
        _ => Value::int(integer(json).map_err(|e| format!("{name}: {e}"))?),
    };
    Ok((register, value))
}

/// "cw 037f sw 0000 tag ff" and eight registers of ten bytes, ST(0) first.
fn fpu(text: &str) -> Parsed<Vec<(Register, Value)>> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let ["cw", cw, "sw", sw, "tag", tag, registers @ ..] = words.as_slice() else {
        return Err("fpu is \"cw HEX sw HEX tag HEX\" and eight registers".into());
    };
    if registers.len() != 8 {
        return Err(format!("fpu has {} registers, not eight", registers.len()));
    }
    let mut out = Vec::with_capacity(11);
    let fields = [(Register::FpuControl, cw), (Register::FpuStatus, sw), (Register::FpuTags, tag)];
    for (register, digits) in fields {
        let value =
            u64::from_str_radix(digits, 16).map_err(|_| format!("fpu: \"{digits}\" is no hexadecimal number"))?;
        out.push((register, Value::int(value)));
    }
    for (n, digits) in registers.iter().enumerate() {
        let bytes = from_hex(digits)?;
        if bytes.len() != 10 {
            return Err(format!("fpu: register {n} has {} bytes, not ten", bytes.len()));
        }
        out.push((Register::St(n as u8), Value::bytes(&bytes)));
    }
    Ok(out)
}

fn span(json: &Json) -> Parsed<Span> {
    let Some([at, bytes]) = json.as_array().map(Vec::as_slice) else {
        return Err("an entry is [address, bytes in hexadecimal]".into());
    };
    Ok(Span { at: integer(at)?, bytes: hex_bytes(bytes)? })
}

fn array<'a>(object: &'a Map<String, Json>, key: &str) -> Parsed<&'a [Json]> {
    match object.get(key) {
        None => Ok(&[]),
        Some(json) => json.as_array().map(Vec::as_slice).ok_or_else(|| format!("{key} is a list")),
    }
}

fn text(object: &Map<String, Json>, key: &str) -> Option<String> {
    match object.get(key)? {
        Json::String(s) => Some(s.clone()),
        other => Some(other.to_string()),
    }
}

fn optional(object: &Map<String, Json>, key: &str) -> Parsed<Option<u64>> {
    object.get(key).map(integer).transpose().map_err(|e| format!("{key}: {e}"))
}

/// A JSON number (negative ones as two's complement), or a string of hexadecimal digits with or without 0x.
fn integer(json: &Json) -> Parsed<u64> {
    match json {
        Json::Number(n) => {
            n.as_u64().or(n.as_i64().map(|n| n as u64)).ok_or_else(|| format!("{n} does not fit in 64 bits"))
        }
        Json::String(s) => {
            let digits = s.strip_prefix("0x").unwrap_or(s);
            u64::from_str_radix(digits, 16).map_err(|_| format!("\"{s}\" is no hexadecimal number of 64 bits"))
        }
        other => Err(format!("{other} is no number")),
    }
}

fn hex_bytes(json: &Json) -> Parsed<Vec<u8>> {
    from_hex(json.as_str().ok_or_else(|| format!("{json} is no string of hexadecimal bytes"))?)
}

fn from_hex(digits: &str) -> Parsed<Vec<u8>> {
    let odd = || format!("\"{}\" is no row of hexadecimal bytes", digits.chars().take(40).collect::<String>());
    let nibble = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    if !digits.len().is_multiple_of(2) {
        return Err(odd());
    }
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.map(|p| Some(nibble(p[0])? << 4 | nibble(p[1])?)).collect::<Option<Vec<u8>>>().ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Case, String> {
        let cases = parse(Path::new("x.jsonl"), line.as_bytes()).map_err(|e| e.to_string())?;
        cases.into_iter().next().ok_or_else(|| "none".into())
    }

    const FIXED: &str = r#"{"m":64,"b":"0007","n":"add [rdi],al","i":{"rax":"1","rdi":"21000","fl":"202","mem":"ff00"},
        "o":{"rip":2,"fl":"257","mem":[[0,"00"]]},"uf":"10"}"#;

    #[test]
    fn fixed_layout() {
        let case = one(&FIXED.replace('\n', " ")).unwrap();
        assert_eq!(case.environment, Environment::Flat { width: Width::Bits64, cpl: 3 });
        let find = |r| case.expect.registers.iter().find(|e| e.register == r).copied().unwrap();
        assert_eq!(find(Register::Rip).value.low(), 0x10102);
        assert_eq!((find(Register::Flags).value.low(), find(Register::Flags).mask), (0x257, !0x10));
        assert_eq!(find(Register::Gpr(0)).value.low(), 1, "what is left out is unchanged");
        assert_eq!(case.expect.memory, [Span { at: 0x21000, bytes: vec![0, 0] }]);
        assert_eq!(case.load[0].bytes[0x100..0x103], [0, 7, 0xf4]);
    }

    #[test]
    fn free_layout() {
        let case =
            one(r#"{"m":16,"entry":"7000","cpl":0,"fs":"1234","max":9,"map":[["7000",4096,"rx"],[32768,"2000","rwu"]],
            "load":[["7000","90f4"]],"i":{"st2":"0102030405060708ff3f"},"o":{"rip":1,"rax":0,"mem":[["8000","aabb"]]}}"#
                .replace('\n', " ")
                .as_str())
            .unwrap();
        assert_eq!(case.environment, Environment::Flat { width: Width::Bits16, cpl: 0 });
        assert_eq!(case.map[0], Mapping { linear: 0x7000, length: 4096, rights: Rights::EXECUTE });
        assert!(case.map[1].rights.has(Rights::USER.with(Rights::WRITE)));
        assert_eq!(case.initial(Register::SegmentBase(4)), Some(Value::int(0x1234)));
        assert_eq!(case.initial(Register::FpuTags), Some(Value::int(4)));
        assert_eq!(case.max, 9);
        let named: Vec<Register> = case.expect.registers.iter().map(|e| e.register).collect();
        assert_eq!(named, [Register::Gpr(0), Register::Rip], "only what is named is compared");
        assert_eq!(case.expect.registers[1].value.low(), 0x7001);
    }

    #[test]
    fn faults_are_observed() {
        let case = one(r#"{"m":32,"b":"8b00","i":{"fl":"2"},"o":{"exc":14,"err":4,"cr2":"0","rip":0}}"#).unwrap();
        assert_eq!(case.expect.end, End::Fault { vector: 14, error_code: Some(4), cr2: Some(0) });
        let far = one(r#"{"m":32,"b":"8b00","i":{},"o":{"exc":14,"rip":"far"}}"#).unwrap();
        assert!(!far.expect.registers.iter().any(|e| e.register == Register::Rip));
    }

    #[test]
    fn bad_lines_say_what_and_where() {
        let fixed = |key: &str, value: &str| format!(r#"{{"m":64,"b":"90","i":{{}},"o":{{}},"{key}":{value}}}"#);
        let table = [
            ("{".to_string(), "no JSON"),
            ("[]".into(), "a case is a JSON object"),
            (r#"{"b":"90","i":{},"o":{}}"#.into(), "\"m\""),
            (r#"{"m":8,"b":"90","i":{},"o":{}}"#.into(), "16, 32 or 64"),
            (r#"{"m":64,"i":{},"o":{}}"#.into(), "\"b\""),
            (r#"{"m":64,"b":"9","i":{},"o":{}}"#.into(), "hexadecimal bytes"),
            (r#"{"m":64,"b":"90","i":{}}"#.into(), "\"o\""),
            (r#"{"m":64,"b":"90","i":{"rex":"1"},"o":{}}"#.into(), "unknown register"),
            (r#"{"m":64,"b":"90","i":{"rax":"xyz"},"o":{}}"#.into(), "hexadecimal number"),
            (r#"{"m":64,"b":"90","i":{"v0":"00"},"o":{}}"#.into(), "[16, 32]"),
            (r#"{"m":64,"b":"90","i":{"fpu":"cw 1"},"o":{}}"#.into(), "eight registers"),
            (r#"{"m":64,"b":"90","i":{},"o":{"exc":400}}"#.into(), "0 to 255"),
            (r#"{"m":64,"b":"90","i":{},"o":{"mem":[[1]]}}"#.into(), "[address, bytes"),
            (fixed("typo", "1"), "unknown key"),
            (fixed("cpl", "4"), "0 to 3"),
            (fixed("map", "[[1,2]]"), "[linear, length, rights]"),
            (fixed("map", r#"[[1,2,"rq"]]"#), "none of r, w, x"),
            (fixed("map", r#"[[1,999999999999,"r"]]"#), "bytes, but a case may have"),
        ];
        for (line, expected) in table {
            let error = one(&line).expect_err(&line);
            assert!(error.contains(expected) && error.starts_with("x.jsonl:1: "), "{line} → {error}");
        }
    }
}
