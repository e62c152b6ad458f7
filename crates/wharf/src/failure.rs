//! How a command ends when it cannot do what was asked: one clear line and an exit code.

use std::fmt;

/// Exit codes of `wharf`. Scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// Something failed while doing what was asked.
    Failed = 1,
    /// What was asked cannot be done as it stands: a bad flag, file, directory or port.
    BadInput = 2,
}

/// A failure to tell the user: a single line that says what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: ExitCode,
    message: String,
}

impl Failure {
    /// A failure of something that was asked rightly.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { code: ExitCode::Failed, message: one_line(&message.to_string()) }
    }

    /// A mistake in what was asked.
    pub(crate) fn bad_input(message: impl fmt::Display) -> Self {
        Self { code: ExitCode::BadInput, message: one_line(&message.to_string()) }
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wharf: {}", self.message)
    }
}
