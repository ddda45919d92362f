//! Lists of cases that are known to fail, each with its reason. A listed case that passes is an error too, so that a
//! list only ever shrinks by being edited.
//!
//! One entry a line: `PATTERN = REASON`. The pattern is compared with "suite/case text", `*` stands for any run of
//! characters. Empty lines and lines that start with `#` are skipped; an entry without a reason is an error.

use crate::error::{FormatError, Position};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    pattern: String,
    reason: String,
}

/// A list of expected failures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExpectedFailures {
    entries: Vec<Entry>,
}

impl ExpectedFailures {
    /// Reads a list.
    pub fn parse(file: &Path, text: &str) -> Result<ExpectedFailures, FormatError> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = Position::Line(number as u64 + 1);
            let (pattern, reason) = line
                .split_once(" = ")
                .map(|(p, r)| (p.trim(), r.trim()))
                .filter(|(p, r)| !p.is_empty() && r.len() >= 10)
                .ok_or_else(|| {
                    FormatError::new(file, at, "an entry is \"PATTERN = REASON\", with a reason in words")
                })?;
            entries.push(Entry { pattern: pattern.to_owned(), reason: reason.to_owned() });
        }
        Ok(ExpectedFailures { entries })
    }

    /// Adds another list.
    pub fn extend(&mut self, other: ExpectedFailures) {
        self.entries.extend(other.entries);
    }

    /// Why the case with this full name is expected to fail, if it is.
    pub fn reason(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|e| glob(&e.pattern, name)).map(|e| e.reason.as_str())
    }
}

/// Whether `name` matches `pattern`, where `*` stands for any run of characters.
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return name.is_empty() };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let table = [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*b*", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*", "", true),
            ("ab*ba", "aba", false),
            ("", "x", false),
        ];
        for (pattern, name, matches) in table {
            assert_eq!(glob(pattern, name), matches, "{pattern} on {name}");
        }
    }

    #[test]
    fn reasons_are_needed() {
        let file = Path::new("expected.txt");
        let list = ExpectedFailures::parse(file, "# list\n\nm64-x87/* fsin* = last bits differ by vendor\n").unwrap();
        assert_eq!(list.reason("m64-x87/17 fsin"), Some("last bits differ by vendor"));
        assert_eq!(list.reason("m64-x87/17 fcos"), None);
        for bad in ["m64-x87/*", "m64-x87/* = ", " = because it is so", "x = short"] {
            let error = ExpectedFailures::parse(file, bad).unwrap_err();
            assert_eq!(error.position, Position::Line(1), "{bad}");
        }
    }
}
