//! `wharf completions`.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::output;

/// Prints the completion script of a shell.
pub(crate) fn run(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wharf", &mut script);
    output::data(&String::from_utf8_lossy(&script));
}
