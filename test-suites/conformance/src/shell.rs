//! Command lines as text that a person can paste into a shell.

/// One word, quoted if it needs to be.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A whole command line.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The words of a text, as a shell would split it: blanks separate, quotes hold together, a backslash takes the next
/// character as it is. `None` if a quote has no end.
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut current: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(current.take()),
            '\'' => current.get_or_insert_default().push_str(&quoted(&mut chars, '\'')?),
            '"' => current.get_or_insert_default().push_str(&quoted(&mut chars, '"')?),
            '\\' => current.get_or_insert_default().extend(chars.next()),
            c => current.get_or_insert_default().push(c),
        }
    }
    words.extend(current);
    Some(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, quote: char) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            c if c == quote => return Some(text),
            '\\' if quote == '"' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        let words = ["umbra", "--append", "a b 'c'", "", "x=1", "$HOME", "\\n\n"];
        let line = line(words);
        assert!(line.starts_with("umbra --append 'a b "));
        assert_eq!(split(&line).unwrap(), words);
    }

    #[test]
    fn what_a_shell_would_split() {
        let table: [(&str, &[&str]); 4] = [
            (r#"-cpu max -append "a b" c"#, &["-cpu", "max", "-append", "a b", "c"]),
            (r"a\ b 'c d'e", &["a b", "c de"]),
            ("  ", &[]),
            (r#""a\"b""#, &["a\"b"]),
        ];
        for (text, words) in table {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert_eq!((split("'a"), split("\"a\\")), (None, None));
    }
}
