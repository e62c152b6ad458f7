//! `wharf`: the command line over the lab and the rehearsal. Parses, dispatches, and turns failures
//! into one line and an exit code.

mod cli;
mod client;
mod commands;
mod extenders;
mod failure;
mod http;
mod kubeconfig;
mod lab;
mod output;
mod prometheus;

use std::process::ExitCode as Exit;

use clap::Parser;

use cli::{Cli, Command, FargateCommand};
use failure::Failure;

// Chosen by measurement: docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Exit {
    lab::process_start();
    // The storage engine may panic on a damaged file; that is caught and told in one line.
    std::panic::set_hook(Box::new(|info| {
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            output::progress(&format!("{info}"));
        }
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to stdout and mistakes to stderr, and knows its own exit codes.
            let _ = error.print();
            return Exit::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(cli.command) {
        Ok(status) => status,
        Err(failure) => {
            output::progress(&failure.to_string());
            Exit::from(failure.code as u8)
        }
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => return commands::up::run(args),
        Command::Run(args) => return commands::run::run(args),
        Command::Demo(args) => commands::demo::run(&args)?,
        Command::Clock(args) => commands::clock::run(&args)?,
        Command::Simulate(args) => commands::simulate::run(&args)?,
        Command::CompareCompute(args) => commands::compare_compute::run(&args)?,
        Command::Why(args) => commands::why::run(&args)?,
        Command::Fargate(FargateCommand::Profile(command)) => commands::fargate::run(&command)?,
        Command::Nodegroup(command) => commands::nodegroup::run(&command)?,
        Command::Logs(args) => commands::logs::run(&args)?,
        Command::Lb(command) => commands::lb::run(&command)?,
        Command::Catalog(args) => commands::catalog::run(&args)?,
        Command::Token(args) => commands::token::run(&args)?,
        Command::Verify(args) => commands::verify::run(&args)?,
        Command::Bench(args) => commands::bench::run(&args)?,
        Command::Version(args) => commands::version::run(&args),
        Command::Completions { shell } => commands::completions::run(shell),
    }
    Ok(Exit::SUCCESS)
}
