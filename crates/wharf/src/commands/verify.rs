//! `wharf verify`: answers recorded cases, so that anyone can compare this build's decisions with
//! those of the programs it follows.

mod provision;

use std::io::{self, BufRead};

use wharf_autoscale::{hpa, vpa};
use wharf_scheduler::Profile;
use wharf_scheduler::cases::Case;

use crate::cli::{Verifiable, VerifyArgs};
use crate::failure::Failure;
use crate::output;

/// The longest line that is read. A case of 10,000 nodes with their pods is a tenth of it.
const LINE_BYTES_MAX: usize = 1 << 30;

/// Answers each line of stdin with a line on stdout, in order. A line that cannot be answered is
/// told on stderr, and the others are answered all the same.
pub(crate) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let answer = match args.what {
        Verifiable::Scheduler => scheduler,
        Verifiable::Hpa => hpa,
        Verifiable::Vpa => vpa,
        Verifiable::Provision { packing } => return provision::run(packing),
    };
    let mut lines = Lines { input: io::stdin().lock(), number: 0 };
    let (mut answered, mut refused) = (0_u64, 0_u64);
    while let Some((number, line)) = lines.next().map_err(Failure::failed)? {
        match line.and_then(|line| answer(text(&line)?)) {
            Ok(answer) => {
                answered += 1;
                output::data(&answer);
            }
            Err(error) => {
                refused += 1;
                output::progress(&format!("wharf: line {number}: {error}"));
            }
        }
    }
    if refused > 0 {
        let (cases, all) = (if refused == 1 { "line" } else { "lines" }, answered + refused);
        return Err(Failure::bad_input(format!(
            "{refused} {cases} of {all} could not be answered"
        )));
    }
    Ok(())
}

fn text(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))
}

fn scheduler(text: &str) -> Result<String, String> {
    let case = Case::parse(text).map_err(|error| error.to_string())?;
    in_json(&case.answer(&Profile::default()))
}

/// The answer to a history of passes: its name, and what each pass did.
fn hpa(text: &str) -> Result<String, String> {
    let case: hpa::cases::Case = serde_json::from_str(text).map_err(|error| error.to_string())?;
    in_json(&serde_json::json!({"id": case.id.clone(), "steps": case.run()}))
}

/// The answer to a history of usage: its name, and what was recommended and kept.
fn vpa(text: &str) -> Result<String, String> {
    let case: vpa::cases::Case = serde_json::from_str(text).map_err(|error| error.to_string())?;
    in_json(&serde_json::json!({"id": case.id.clone(), "results": case.run()}))
}

fn in_json(answer: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(answer).map_err(|error| error.to_string())
}

/// Lines with their numbers, from 1; blank ones are passed over.
struct Lines<R> {
    input: R,
    number: u64,
}

/// A line's number, and what it holds or why it cannot be read.
type Line = (u64, Result<Vec<u8>, String>);

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let mut line = Vec::new();
            let limit = LINE_BYTES_MAX as u64 + 1;
            if io::Read::take(&mut self.input, limit).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.len() > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                self.input.skip_until(b'\n')?;
                let error = format!("longer than {LINE_BYTES_MAX} bytes");
                return Ok(Some((self.number, Err(error))));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some((self.number, Ok(line))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers() {
        let mut lines = Lines { input: &b"a\n\n \r\nb"[..], number: 0 };
        let mut next = || lines.next().expect("memory can be read");
        assert_eq!(next(), Some((1, Ok(b"a\n".to_vec()))));
        assert_eq!(next(), Some((4, Ok(b"b".to_vec()))));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let error = text(b"\xff{}").expect_err("not UTF-8");
        assert!(error.starts_with("not UTF-8"), "{error}");
    }
}
