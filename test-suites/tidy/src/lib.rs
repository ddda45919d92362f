//! The source tree as data: every file that a person wrote, and Rust source split into code and comments.
//!
//! The rules themselves are the plain tests beside this crate's `src`. Nothing here compiles or expands anything: a rule that
//! needs types belongs to clippy.

use std::path::{Path, PathBuf};

/// The top folder of the workspace.
pub fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// A file, by its path from the top folder with forward slashes.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// The path from the top folder.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// All text files with this extension, sorted by path. Build output and hidden folders are left out.
pub fn files(extension: &str) -> Vec<TextFile> {
    let top = top();
    let mut found = Vec::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension)
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(&top).unwrap_or(&path);
                found.push(TextFile { path: relative.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// One line of Rust source, split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The code, with the contents of string literals blanked.
    pub code: String,
    /// The comment text, if any.
    pub comment: String,
}

/// Splits Rust source into lines of code and comment. Handles nested block comments, strings, raw strings and characters.
pub fn split(source: &str) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if c == '\n' {
            if state == State::LineComment {
                state = State::Code;
            }
            lines.push(Line::default());
            rest = &rest[1..];
            continue;
        }
        let (taken, next) = state.step(rest);
        if let Some(line) = lines.last_mut() {
            match (state, next) {
                (State::Code, State::Code | State::Text(_)) => line.code.push_str(&rest[..taken]),
                (State::Text(_), State::Code) => line.code.push('"'),
                (State::Text(_), _) => {}
                _ => line.comment.push_str(&rest[..taken]),
            }
        }
        state = next;
        rest = &rest[taken..];
    }
    lines
}

/// Where a scan of Rust source is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    /// At this depth of nesting.
    BlockComment(u32),
    /// In a string that ends with a quote and this many `#`; `None` for one with escapes.
    Text(Option<usize>),
}

impl State {
    /// How many bytes belong together at the start of `rest`, and the state after them.
    fn step(self, rest: &str) -> (usize, State) {
        let one = rest.chars().next().map_or(1, char::len_utf8);
        match self {
            State::Code if rest.starts_with("//") => (2, State::LineComment),
            State::Code if rest.starts_with("/*") => (2, State::BlockComment(1)),
            State::Code if rest.starts_with('"') => (1, State::Text(None)),
            State::Code => match raw_string(rest).or_else(|| character(rest)) {
                Some(found) => found,
                None => (identifier(rest).max(one), State::Code),
            },
            State::LineComment => (one, self),
            State::BlockComment(depth) if rest.starts_with("/*") => (2, State::BlockComment(depth + 1)),
            State::BlockComment(1) if rest.starts_with("*/") => (2, State::Code),
            State::BlockComment(depth) if rest.starts_with("*/") => (2, State::BlockComment(depth - 1)),
            State::BlockComment(_) => (one, self),
            State::Text(None) if rest.starts_with("\\\n") => (1, self),
            State::Text(None) if rest.starts_with('\\') => {
                (1 + rest[1..].chars().next().map_or(0, char::len_utf8), self)
            }
            State::Text(None) if rest.starts_with('"') => (1, State::Code),
            State::Text(Some(hashes)) if rest.starts_with('"') && closes(rest, hashes) => (1 + hashes, State::Code),
            State::Text(_) => (one, self),
        }
    }
}

fn closes(rest: &str, hashes: usize) -> bool {
    rest.bytes().skip(1).take(hashes).filter(|b| *b == b'#').count() == hashes
}

/// The start of r"…", r#"…"#, br"…" and so on.
fn raw_string(rest: &str) -> Option<(usize, State)> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|b| *b == b'#').count();
    after[hashes..].starts_with('"').then(|| (rest.len() - after.len() + hashes + 1, State::Text(Some(hashes))))
}

/// A character literal as a whole, so that '"' starts no string. A lifetime is none.
fn character(rest: &str) -> Option<(usize, State)> {
    let body = rest.strip_prefix('\'')?;
    let mut chars = body.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let end = body[2..].find('\'')? + 2;
        return Some((end + 2, State::Code));
    }
    let (end, quote) = chars.next()?;
    (quote == '\'').then_some((end + 2, State::Code))
}

/// The length of an identifier at the start, so that the r of `for"` is no raw string.
fn identifier(rest: &str) -> usize {
    rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// Whether `code` contains `word` as a whole identifier.
pub fn has_word(code: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word)
        .any(|(at, _)| !part(code[..at].chars().next_back()) && !part(code[at + word.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting() {
        let table = [
            ("a // b", "a ", "// b"),
            ("a /* b /* c */ d */ e", "a  e", "/* b /* c */ d */"),
            (r#"f("x // y") // z"#, r#"f("") "#, "// z"),
            (r##"f(r#"x " // y"#) // z"##, r##"f(r#"") "##, "// z"),
            (r#"g('"', "\" // ") // z"#, r#"g('"', "") "#, "// z"),
            ("fn f<'a>(x: &'a str) {} // z", "fn f<'a>(x: &'a str) {} ", "// z"),
            ("var\"x\"", "var\"\"", ""),
        ];
        for (source, code, comment) in table {
            let lines = split(source);
            assert_eq!(lines.len(), 1);
            assert_eq!((lines[0].code.as_str(), lines[0].comment.as_str()), (code, comment), "{source}");
        }
    }

    #[test]
    fn words() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("#![deny(unsafe_code)]", "unsafe"));
        assert!(!has_word("not_unsafe()", "unsafe"));
    }

    #[test]
    fn the_tree_is_found() {
        assert!(files("rs").iter().any(|f| f.path == "test-suites/tidy/src/lib.rs"));
    }
}
