//! Programs that are run to their end, with their output read while they run.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use super::PATIENCE;

/// A program that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// The command, for messages.
    pub(crate) command: String,
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

impl Finished {
    /// Its stdout, if it went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// Its stderr, if it failed with an exit code.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        self.stderr
    }

    /// Its stderr, if it failed.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert_ne!(self.code, Some(0), "this should have failed: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "{command} ended with {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Finished {
    run_with_input(command, "")
}

/// Runs a command to its end with a text as its standard input.
pub(crate) fn run_with_input(mut command: Command, input: &str) -> Finished {
    let text = shown(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{text} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program may end without reading all of it.
        let _ = stdin.write_all(input.as_bytes());
    });
    let stdout = read_to_end(child.stdout.take().expect("stdout is piped"));
    let stderr = read_to_end(child.stderr.take().expect("stderr is piped"));
    let outputs = [stdout, stderr].map(|output| output.recv_timeout(PATIENCE));
    if outputs.iter().any(Result::is_err) {
        let _ = child.kill();
    }
    let status = child.wait().expect("the child was started here");
    let [Ok(stdout), Ok(stderr)] = outputs else {
        panic!("{text} ran longer than {}s and was killed", PATIENCE.as_secs())
    };
    writer.join().expect("writing to a pipe does not panic");
    Finished { command: text, code: status.code(), stdout, stderr }
}

/// The lines of a stream as they come.
pub(crate) fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Keep reading when nobody listens any more: a full pipe would stop the program.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// What a stream has brought so far.
pub(crate) fn text_of(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut text = shared.lock().expect("no holder panics");
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

fn read_to_end(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
