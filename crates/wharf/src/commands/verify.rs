//! `wharf verify`: answers recorded cases, so that anyone can compare this build's decisions with
//! those of the programs it follows.

use std::io::{self, BufRead};

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
    let Verifiable::Scheduler = args.what;
    let profile = Profile::default();
    let mut lines = Lines { input: io::stdin().lock(), number: 0 };
    let (mut answered, mut refused) = (0_u64, 0_u64);
    while let Some((number, line)) = lines.next().map_err(Failure::failed)? {
        match line.and_then(|line| answer(&line, &profile)) {
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

fn answer(line: &[u8], profile: &Profile) -> Result<String, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
    let case = Case::parse(text).map_err(|error| error.to_string())?;
    serde_json::to_string(&case.answer(profile)).map_err(|error| error.to_string())
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
        let error = answer(b"\xff{}", &Profile::default()).expect_err("not UTF-8");
        assert!(error.starts_with("not UTF-8"), "{error}");
    }
}
