//! Runs the fuzzers' properties as tests: on every seed, on seeds with a few edits, and on rubbish.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Pieces that parsers trip over.
const PIECES: [&str; 20] = [
    "-1",
    "0",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "2147483648",
    "1e400",
    "1e-400",
    ".5",
    "null",
    "\"\"",
    "{}",
    "[]",
    ",",
    ":",
    "=",
    "\u{e9}",
    "\u{1f600}",
    "\0",
    "\n",
];

/// Checks a property on the seeds of a fuzzer and on `cases` inputs made of them.
pub(crate) fn check(target: &str, cases: u32, property: fn(&[u8])) {
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| property(seed));
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let strategy = prop_oneof![
        4 => mutated(seeds),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => "\\PC{0,40}".prop_map(String::into_bytes),
    ];
    let outcome = runner.run(&strategy, |input| {
        property(&input);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{target}: {error}");
    }
}

/// The seeds of a fuzzer.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has seeds");
    files.iter().map(|file| std::fs::read(file).expect("readable")).collect()
}

/// A seed with up to six edits.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (0..5_u8, any::<Index>(), any::<Index>(), any::<Index>());
    (any::<Index>(), proptest::collection::vec(edit, 0..6)).prop_map(move |(seed, edits)| {
        let mut text = seeds[seed.index(seeds.len())].clone();
        for (what, at, length, choice) in edits {
            let start = at.index(text.len() + 1);
            let end = start + length.index((text.len() - start).min(16) + 1);
            let insert = match what {
                0 => Vec::new(),
                1 => vec![choice.index(256) as u8],
                2 => text[start..end].repeat(2),
                3 => {
                    let other = &seeds[choice.index(seeds.len())];
                    let from = length.index(other.len() + 1);
                    other[from..(from + 20).min(other.len())].to_vec()
                }
                _ => PIECES[choice.index(PIECES.len())].as_bytes().to_vec(),
            };
            text.splice(start..end, insert);
        }
        text
    })
}
