//! The shell that somebody types into, and lines from a terminal: echo, corrections, history, Ctrl-C
//! and Ctrl-D.

use super::parse::{self, Wrong};
use super::run::{Source, Streams};
use super::{Descriptor, Done, Flow, INTERRUPTED, Shell, Wake, images};

/// Ctrl-C.
pub(super) const INTERRUPT: u8 = 3;
const END: u8 = 4;
const CLEAR: u8 = 12;
const KILL: u8 = 21;
const ERASE_WORD: u8 = 23;
const ESCAPE: u8 = 27;
/// Lines that are remembered.
const HISTORY_MAX: usize = 200;
/// Longer lines are cut.
const LINE_BYTES_MAX: usize = 16 * 1024;

impl Shell<'_> {
    /// Reads commands and runs them until the input ends or the shell is left.
    pub(super) fn read_and_run(&mut self, name: &str, streams: &Streams) -> Done {
        let is_interactive = self.tty && matches!(streams.input, Source::Client);
        let kind = images::shell_of(name).unwrap_or(images::ShellKind::Ash);
        let mut script = String::new();
        loop {
            let prompt = match (is_interactive, script.is_empty()) {
                (false, _) => String::new(),
                (true, true) => kind.prompt(&self.host_name(), &self.folder),
                (true, false) => "> ".to_owned(),
            };
            let line = if is_interactive {
                self.edit_line(&prompt, true)
            } else {
                self.read_line(&streams.input)
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) if is_interactive => {
                    // Ctrl-D says so.
                    self.host.write(Descriptor::Stdout, b"exit\r\n");
                    return Err(Flow::Exit(self.code));
                }
                Ok(None) if script.is_empty() => return Ok(self.code),
                Ok(None) => return self.script(&script, streams),
                Err(Flow::Interrupt) if is_interactive => {
                    script.clear();
                    self.code = INTERRUPTED;
                    self.host.write(Descriptor::Stdout, b"\r\n");
                    continue;
                }
                Err(flow) => return Err(flow),
            };
            script.push_str(&String::from_utf8_lossy(&line));
            if script.len() <= LINE_BYTES_MAX && parse::parse(&script) == Err(Wrong::Incomplete) {
                continue;
            }
            if is_interactive {
                self.remember(script.trim_end());
            }
            let whole = std::mem::take(&mut script);
            match self.script(&whole, streams) {
                Err(Flow::Interrupt) if is_interactive => {
                    self.code = INTERRUPTED;
                    self.host.write(Descriptor::Stdout, b"\r\n");
                }
                Err(flow @ (Flow::Exit(_) | Flow::Gone | Flow::Interrupt)) => return Err(flow),
                Ok(_) | Err(Flow::Break(_) | Flow::Continue(_)) => {}
            }
        }
    }

    fn remember(&mut self, line: &str) {
        if line.is_empty() || self.history.last().is_some_and(|last| last == line) {
            return;
        }
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(line.to_owned());
    }

    /// A line that a command reads from the client.
    pub(super) fn read_from_client(&mut self) -> Result<Option<Vec<u8>>, Flow> {
        if self.tty {
            return self.edit_line("", false);
        }
        loop {
            if let Some(end) = self.typed.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.typed.drain(..=end).collect()));
            }
            if self.ended || self.typed.len() > LINE_BYTES_MAX {
                let rest: Vec<u8> = self.typed.drain(..).collect();
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let wake = self.host.wait(None);
            self.take(wake)?;
        }
    }

    /// The next byte that is typed; nothing at the end.
    fn key(&mut self) -> Result<Option<u8>, Flow> {
        loop {
            if let Some(byte) = self.typed.pop_front() {
                return Ok(Some(byte));
            }
            if self.ended {
                return Ok(None);
            }
            match self.host.wait(None) {
                Wake::Input(bytes) => self.typed.extend(bytes),
                wake => self.take(wake)?,
            }
        }
    }

    fn echo(&mut self, text: &[u8]) -> Result<(), Flow> {
        if self.host.write(Descriptor::Stdout, text) { Ok(()) } else { Err(Flow::Gone) }
    }

    /// Reads a line as a terminal lets one type it.
    fn edit_line(&mut self, prompt: &str, with_history: bool) -> Result<Option<Vec<u8>>, Flow> {
        self.echo(prompt.as_bytes())?;
        let mut line = String::new();
        let mut partial: Vec<u8> = Vec::new();
        let mut at = self.history.len();
        loop {
            let Some(byte) = self.key()? else {
                return Ok((!line.is_empty()).then(|| line.into_bytes()));
            };
            match byte {
                b'\r' | b'\n' => {
                    self.echo(b"\r\n")?;
                    line.push('\n');
                    return Ok(Some(line.into_bytes()));
                }
                INTERRUPT => {
                    self.echo(b"^C")?;
                    return Err(Flow::Interrupt);
                }
                END if line.is_empty() => return Ok(None),
                8 | 127 if line.pop().is_some() => self.echo(b"\x08 \x08")?,
                KILL | ERASE_WORD => {
                    let kept = if byte == KILL {
                        0
                    } else {
                        line.trim_end().rfind(' ').map_or(0, |space| space + 1)
                    };
                    self.replace(&mut line, prompt, kept, "")?;
                }
                CLEAR => self.echo(format!("\x1b[H\x1b[2J{prompt}{line}").as_bytes())?,
                ESCAPE => {
                    // `ESC [ A` and the like: up and down walk through the history.
                    let direction = match (self.key()?, self.key()?) {
                        (Some(b'[' | b'O'), direction) => direction,
                        _ => None,
                    };
                    let to = match direction {
                        Some(b'A') => at.checked_sub(1),
                        Some(b'B') => Some((at + 1).min(self.history.len())),
                        _ => None,
                    };
                    if let Some(to) = to.filter(|_| with_history) {
                        at = to;
                        let text = self.history.get(at).cloned().unwrap_or_default();
                        self.replace(&mut line, prompt, 0, &text)?;
                    }
                }
                0..=31 | 127 => {}
                byte if line.len() < LINE_BYTES_MAX => {
                    // Characters of several bytes come byte by byte.
                    partial.push(byte);
                    match std::str::from_utf8(&partial) {
                        Ok(text) => {
                            line.push_str(text);
                            let text = std::mem::take(&mut partial);
                            self.echo(&text)?;
                        }
                        Err(error) if error.error_len().is_none() => {}
                        Err(_) => partial.clear(),
                    }
                }
                _ => {}
            }
        }
    }

    /// Keeps the head of a line and puts something behind it, on the terminal too.
    fn replace(
        &mut self,
        line: &mut String,
        prompt: &str,
        kept: usize,
        text: &str,
    ) -> Result<(), Flow> {
        line.truncate(kept);
        line.push_str(text);
        let prompt = prompt.rsplit('\n').next().unwrap_or(prompt);
        self.echo(format!("\r\x1b[K{prompt}{line}").as_bytes())
    }
}
