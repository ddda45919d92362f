//! `--until` and `--fail-on`: a regular expression that runs along with a stream, whatever chunks the stream comes in.
//!
//! The expression is compiled to a lazily built automaton that takes one byte at a time, so that a match may lie across any
//! number of chunks and nothing is searched twice. Lines end with `\n`; `^` and `$` match at lines (a `\r` before the `\n`
//! is taken as part of the line end). A match that looks at what follows it (`$`, `\b`) is seen when the next byte comes.

use crate::exit_status::Failure;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};

/// A regular expression and where it stands in its stream.
pub struct Matcher {
    dfa: DFA,
    cache: Cache,
    state: LazyStateID,
    /// The expression does not look beyond its match.
    at_once: bool,
    matched: bool,
}

impl Matcher {
    /// Compiles an expression; `option` names where it came from.
    pub fn new(option: &str, expression: &str) -> Result<Matcher, Failure> {
        let bad = |what: &dyn std::fmt::Display| {
            let what = what.to_string();
            let last = what.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("unreadable").to_owned();
            let last = last.trim_start_matches("error: ").to_owned();
            Failure::input(format!(
                "{option} \"{expression}\" is not a regular expression ({last}); try a plain text such as \"login:\""
            ))
        };
        let config = syntax::Config::new().multi_line(true).crlf(true).utf8(false);
        let hir = syntax::parse_with(expression, &config).map_err(|error| bad(&error))?;
        if hir.properties().minimum_len() == Some(0) {
            return Err(Failure::input(format!(
                "{option} \"{expression}\" matches an empty text, so that it would match at once; try a text that must appear"
            )));
        }
        let at_once = hir.properties().look_set_suffix_any().is_empty();
        let dfa = DFA::builder()
            .configure(DFA::config().match_kind(MatchKind::All).unicode_word_boundary(true))
            .thompson(regex_automata::nfa::thompson::Config::new().utf8(false).nfa_size_limit(Some(8 << 20)))
            .syntax(config)
            .build(expression)
            .map_err(|error| bad(&error))?;
        let mut cache = dfa.create_cache();
        let state = start_state(&dfa, &mut cache, None).ok_or_else(|| bad(&"too large"))?;
        Ok(Matcher { dfa, cache, state, at_once, matched: false })
    }

    /// Takes the next bytes of the stream; tells whether the expression has matched by now.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if self.matched {
                break;
            }
            self.step(byte);
        }
        self.matched
    }

    fn step(&mut self, byte: u8) {
        let next = self.dfa.next_state(&mut self.cache, self.state, byte).ok();
        self.state = match next {
            Some(state) if state.is_match() => {
                self.matched = true;
                state
            }
            Some(state) if !state.is_quit() && !state.is_dead() => state,
            // The automaton gave up (a byte that Unicode's \b cannot judge, or no memory): it begins anew after this byte.
            _ => match start_state(&self.dfa, &mut self.cache, Some(byte)) {
                Some(state) => state,
                None => self.state,
            },
        };
        if self.at_once && !self.matched {
            let end = self.dfa.next_eoi_state(&mut self.cache, self.state);
            self.matched = end.is_ok_and(|state| state.is_match());
        }
    }
}

fn start_state(dfa: &DFA, cache: &mut Cache, before: Option<u8>) -> Option<LazyStateID> {
    let config = start::Config::new().anchored(Anchored::No).look_behind(before);
    dfa.start_state(cache, &config).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the expression has matched first: the number of bytes fed, each chunk of this size.
    fn matched_at(expression: &str, text: &[u8], chunk: usize) -> Option<usize> {
        let mut matcher = Matcher::new("--until", expression).unwrap();
        let mut fed = 0;
        for part in text.chunks(chunk) {
            fed += part.len();
            if matcher.feed(part) {
                return Some(fed);
            }
        }
        None
    }

    #[test]
    fn matches_across_chunk_borders() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], Option<usize>)] = &[
            ("login:",           b"\r\nlocalhost login: ",       Some(18)),
            ("BOOT-OK",          b"BOOT-BOOT-OK 1.2\n",          Some(12)),
            ("a+b",              b"xaaaab",                       Some(6)),
            ("^done$",           b"not done\nundone\ndone\n",     Some(21)),
            ("^done$",           b"x\r\ndone\r\n",                Some(8)),
            ("^done",            b"done",                         Some(4)),
            ("panic|oops",       b"kernel Oops: no",              None),
            ("(?i)panic|oops",   b"kernel Oops: no",              Some(11)),
            ("\\bok\\b",         b"book ok.",                     Some(8)),
            ("a.c",              b"a\nc abc",                     Some(7)),
            ("\\d{3}",           b"12 123",                       Some(6)),
            ("ALL-DONE",         b"all-done",                     None),
            ("\u{e4}",           "z\u{e4}".as_bytes(),            Some(3)),
            ("\\bok",            b"\xff ok",                      Some(4)),
        ];
        for &(expression, text, expected) in cases {
            assert_eq!(matched_at(expression, text, 1), expected, "{expression}");
            for chunk in [2, 3, 7, 64] {
                let found = matched_at(expression, text, chunk);
                assert_eq!(
                    found,
                    expected.map(|at| at.next_multiple_of(chunk).min(text.len())),
                    "{expression} by {chunk}"
                );
            }
        }
    }

    #[test]
    fn bad_expressions_get_a_sentence() {
        for expression in ["(", "[a", "*", "a{99999999}", "", "x*", "(?P<n>"] {
            let Err(failure) = Matcher::new("--until", expression) else { panic!("{expression} passed") };
            assert!(failure.sentence.starts_with("--until \""), "{failure}");
            assert!(failure.sentence.contains("; try "), "{failure}");
        }
    }
}
