//! Runs the vectors of the tree (`test-suites/vectors`): each must pass, or be listed with its reason.

use std::path::{Path, PathBuf};
use umbra_conformance::expected::ExpectedFailures;
use umbra_conformance::report::Report;
use umbra_conformance::run::Runner;
use umbra_conformance::suite::{self, Options};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}

#[test]
fn own_vectors_pass() {
    let list = folder().join("expected.txt");
    let expected = ExpectedFailures::parse(&list, &std::fs::read_to_string(&list).unwrap()).unwrap();
    let options = Options { expected, ..Options::default() };
    let mut runner = Runner::new("max").unwrap();
    let mut report = Report::default();
    for file in suite::find(&folder()).unwrap() {
        report.suites.push(suite::run_file(&mut runner, &file, &options).unwrap());
    }
    let counts = report.counts();
    assert!(counts.total() >= 750, "only {} vectors were found", counts.total());
    assert!(counts.good(), "{}", report.to_text(5));
}

/// A vector that is wrong must be found, in each thing that a vector can say.
#[test]
fn wrong_vectors_fail() {
    let lines = [
        r#"{"m":64,"b":"48ffc0","n":"inc rax","i":{"rax":"1","fl":"202"},"o":{"rax":"3","rip":3}}"#,
        r#"{"m":64,"b":"48ffc0","n":"inc rax","i":{"rax":"1","fl":"202"},"o":{"rax":"2","rip":3,"fl":"203"}}"#,
        r#"{"m":64,"b":"48ffc0","n":"inc rax","i":{"rax":"1","fl":"202"},"o":{"rax":"2","rip":4}}"#,
        r#"{"m":64,"b":"48ffc0","n":"inc rax","i":{"rax":"1","fl":"202"},"o":{"exc":6,"rip":0}}"#,
        r#"{"m":64,"b":"8a07","n":"mov al,[rdi]","i":{"rdi":"6000"},"o":{"exc":14,"err":5,"cr2":"6000","rip":0}}"#,
        r#"{"m":64,"b":"8a07","n":"mov al,[rdi]","i":{"rdi":"6000"},"o":{"exc":14,"err":4,"cr2":"6001","rip":0}}"#,
        r#"{"m":64,"b":"8807","n":"mov [rdi],al","i":{"rdi":"21000","rax":"7"},"o":{"rip":2}}"#,
        r#"{"m":64,"b":"660fefc0","n":"pxor xmm0,xmm0","i":{"v0":"01000000000000000000000000000000"},"o":{"rip":4}}"#,
        r#"{"m":64,"n":"hang","max":1000,"load":[["1000","ebfe"]],"o":{"rip":0}}"#,
    ];
    let file = std::env::temp_dir().join(format!("umbra-wrong-{}.jsonl", std::process::id()));
    std::fs::write(&file, lines.join("\n")).unwrap();
    let mut runner = Runner::new("max").unwrap();
    let suite = suite::run_file(&mut runner, &file, &Options::default()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let report = Report { suites: vec![suite] };
    assert_eq!(report.counts().failed, lines.len() as u64, "{}", report.to_text(20));
}

/// Shards are disjoint and together everything.
#[test]
fn shards_cover_everything() {
    let file = folder().join("shifts.jsonl");
    let mut runner = Runner::new("max").unwrap();
    let mut count = |shard| {
        let options = Options { shard, ..Options::default() };
        suite::run_file(&mut runner, &file, &options).unwrap().counts.total()
    };
    let whole = count(None);
    let parts: u64 = (1..=3).map(|i| count(suite::Shard::parse(&format!("{i}/3")))).sum();
    assert_eq!(whole, parts);
}
