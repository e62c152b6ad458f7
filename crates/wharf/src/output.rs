//! The only place that prints: data on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};

/// Prints data. A reader that has gone away (`| head`) ends the program quietly.
pub(crate) fn data(text: &str) {
    let mut stdout = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    if write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints progress, hints and errors.
pub(crate) fn progress(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows on a terminal what is being done, in place of what was shown before; an empty text wipes
/// it away. Elsewhere it says nothing: logs are for what happened.
pub(crate) fn status(text: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        // Back to the start of the line; then away with the rest of it.
        let _ = write!(stderr, "\r{text}\u{1b}[K").and_then(|()| stderr.flush());
    }
}

/// Emphasis for people: bold on a terminal, plain elsewhere and under `NO_COLOR`.
pub(crate) fn strong(text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || !io::stdout().is_terminal();
    if plain { text.to_owned() } else { format!("\u{1b}[1m{text}\u{1b}[0m") }
}
