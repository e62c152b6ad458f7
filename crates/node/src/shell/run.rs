//! Runs scripts: lists, pipelines, loops, expansion, redirections.
//!
//! The commands of a pipeline run one after the other, each with all the output of the one before.

use std::cell::RefCell;
use std::rc::Rc;

use super::parse::{self, Command, Item, List, Part, Redirect, What, When, Word, Wrong};
use super::{Descriptor, Done, Flow, Shell, images, tools};

/// The most that a pipeline or a `$(…)` holds; what is beyond is lost.
const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most that files hold which were written.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Files that may be written.
const FILES_MAX: usize = 256;
/// Shells and lists within one another.
const DEPTH_MAX: usize = 64;
/// Commands are found by their name up to this length.
const WORDS_BYTES_MAX: usize = 1024 * 1024;

/// Where a command reads and writes.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) input: Source,
    pub(super) output: Sink,
    pub(super) errors: Sink,
}

/// What a command reads.
#[derive(Clone)]
pub(super) enum Source {
    /// What the client sends.
    Client,
    /// A text; what is read of it is gone.
    Text(Rc<RefCell<Vec<u8>>>),
}

/// Where a command writes.
#[derive(Clone)]
pub(super) enum Sink {
    /// The client.
    Client(Descriptor),
    /// Held for the next command.
    Held(Rc<RefCell<Vec<u8>>>),
    /// A file.
    File(String),
    /// Nowhere.
    Nowhere,
}

impl Streams {
    /// The client's.
    pub(super) fn of_client() -> Self {
        Self {
            input: Source::Client,
            output: Sink::Client(Descriptor::Stdout),
            errors: Sink::Client(Descriptor::Stderr),
        }
    }
}

impl Shell<'_> {
    /// Runs a command given in words.
    pub(super) fn program(&mut self, words: &[String], streams: &Streams) -> Done {
        let Some((first, arguments)) = words.split_first() else { return Ok(0) };
        let name = first.rsplit('/').next().unwrap_or(first);
        if self.depth >= DEPTH_MAX {
            self.complain(streams, "too many commands within one another")?;
            return Ok(2);
        }
        self.breathe(false)?;
        self.depth += 1;
        let done = match (name, images::shell_of(name)) {
            (_, Some(_)) if self.image.has(name) => self.shell(name, arguments, streams),
            _ => match tools::find(name).filter(|_| self.image.has(name)) {
                Some(tool) => tool(self, arguments, streams),
                None => {
                    let says = if first.contains('/') {
                        format!("{first}: No such file or directory")
                    } else {
                        format!("{first}: not found")
                    };
                    self.complain(streams, &says).map(|()| 127)
                }
            },
        };
        self.depth -= 1;
        done
    }

    /// `sh`, `sh -c SCRIPT NAME ARGUMENT…`, `sh FILE`.
    fn shell(&mut self, name: &str, arguments: &[String], streams: &Streams) -> Done {
        let flags = arguments.iter().take_while(|word| word.starts_with('-')).count();
        let takes_script =
            arguments[..flags].iter().any(|word| !word.starts_with("--") && word.contains('c'));
        let rest = &arguments[flags..];
        let saved = (self.variables.clone(), self.folder.clone());
        let done = match (takes_script, rest.split_first()) {
            (true, Some((script, rest))) => {
                let old = std::mem::replace(&mut self.arguments, rest.to_vec());
                let done = self.script(script, streams);
                self.arguments = old;
                done
            }
            (true, None) => {
                self.complain(streams, "-c requires an argument")?;
                Ok(2)
            }
            (false, Some((file, _))) => match self.read_file(file) {
                Some(text) => self.script(&String::from_utf8_lossy(&text), streams),
                None => {
                    self.complain(streams, &format!("can't open '{file}'"))?;
                    Ok(2)
                }
            },
            (false, None) => self.read_and_run(name, streams),
        };
        (self.variables, self.folder) = saved;
        match done {
            Err(Flow::Exit(code)) => Ok(code),
            Err(Flow::Break(_) | Flow::Continue(_)) => Ok(self.code),
            done => done,
        }
    }

    /// Runs a script; one that is none is complained of.
    pub(super) fn script(&mut self, script: &str, streams: &Streams) -> Done {
        match parse::parse(script) {
            Ok(list) => self.list(&list, streams),
            Err(wrong) => {
                let at = match &wrong {
                    Wrong::Incomplete => "unexpected end of file".to_owned(),
                    Wrong::Unexpected(at) => format!("unexpected \"{at}\""),
                };
                self.complain(streams, &format!("syntax error: {at}"))?;
                self.code = 2;
                Ok(2)
            }
        }
    }

    pub(super) fn list(&mut self, list: &List, streams: &Streams) -> Done {
        if self.depth >= DEPTH_MAX {
            self.complain(streams, "too many commands within one another")?;
            return Ok(2);
        }
        self.depth += 1;
        let done = self.items(list, streams);
        self.depth -= 1;
        done
    }

    fn items(&mut self, list: &List, streams: &Streams) -> Done {
        for item in &list.0 {
            let runs = match item.when {
                When::Always => true,
                When::Success => self.code == 0,
                When::Failure => self.code != 0,
            };
            if runs {
                let code = self.item(item, streams)?;
                self.code = if item.negated { i32::from(code == 0) } else { code };
            }
        }
        Ok(self.code)
    }

    fn item(&mut self, item: &Item, streams: &Streams) -> Done {
        let mut input = streams.input.clone();
        let (last, before) = match item.commands.split_last() {
            Some(split) => split,
            None => return Ok(0),
        };
        for command in before {
            let held = Rc::default();
            let output = Sink::Held(Rc::clone(&held));
            let errors = streams.errors.clone();
            self.command(command, &Streams { input, output, errors })?;
            input = Source::Text(held);
        }
        self.command(last, &Streams { input, ..streams.clone() })
    }

    fn command(&mut self, command: &Command, streams: &Streams) -> Done {
        let mut streams = streams.clone();
        for redirect in &command.redirects {
            if let Err(code) = self.redirect(redirect, &mut streams)? {
                return Ok(code);
            }
        }
        match &command.what {
            What::Group(list) => self.list(list, &streams),
            What::Subshell(list) => {
                let saved = (self.variables.clone(), self.folder.clone());
                let done = self.list(list, &streams);
                (self.variables, self.folder) = saved;
                match done {
                    Err(Flow::Exit(code)) => Ok(code),
                    done => done,
                }
            }
            What::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.list(condition, &streams)? == 0 {
                        return self.list(body, &streams);
                    }
                }
                otherwise.as_ref().map_or(Ok(0), |list| self.list(list, &streams))
            }
            What::While { until, condition, body } => {
                let mut code = 0;
                while (self.list(condition, &streams)? == 0) != *until {
                    self.breathe(true)?;
                    match self.round(body, &streams)? {
                        Some(done) => code = done,
                        None => return Ok(0),
                    }
                }
                Ok(code)
            }
            What::For { name, words, body } => {
                let mut values = Vec::new();
                for word in words {
                    values.extend(self.expand(word, &streams)?);
                }
                let mut code = 0;
                for value in values {
                    self.breathe(true)?;
                    self.variables.insert(name.clone(), value);
                    match self.round(body, &streams)? {
                        Some(done) => code = done,
                        None => return Ok(0),
                    }
                }
                Ok(code)
            }
            What::Simple { assignments, words } => self.simple(assignments, words, &streams),
        }
    }

    /// One round of a loop; nothing if the loop is left.
    fn round(&mut self, body: &List, streams: &Streams) -> Result<Option<i32>, Flow> {
        match self.list(body, streams) {
            Ok(code) => Ok(Some(code)),
            Err(Flow::Break(0 | 1)) => Ok(None),
            Err(Flow::Break(loops)) => Err(Flow::Break(loops - 1)),
            Err(Flow::Continue(0 | 1)) => Ok(Some(0)),
            Err(Flow::Continue(loops)) => Err(Flow::Continue(loops - 1)),
            Err(flow) => Err(flow),
        }
    }

    fn simple(
        &mut self,
        assignments: &[(String, Word)],
        words: &[Word],
        streams: &Streams,
    ) -> Done {
        let mut expanded = Vec::new();
        for word in words {
            expanded.extend(self.expand(word, streams)?);
            if expanded.iter().map(String::len).sum::<usize>() > WORDS_BYTES_MAX {
                self.complain(streams, "Argument list too long")?;
                return Ok(126);
            }
        }
        let mut before = Vec::new();
        for (name, word) in assignments {
            let value = self.expand(word, streams)?.join(" ");
            if self.variables.len() < 4 * FILES_MAX && value.len() <= FILE_BYTES_MAX {
                before.push((name.clone(), self.variables.insert(name.clone(), value)));
            }
        }
        if expanded.is_empty() {
            return Ok(0);
        }
        let done = self.built_in(&expanded, streams);
        let done = match done {
            Some(done) => done,
            None => self.program(&expanded, streams),
        };
        // Set for this command alone.
        for (name, value) in before {
            match value {
                Some(value) => self.variables.insert(name, value),
                None => self.variables.remove(&name),
            };
        }
        done
    }

    /// What the shell does itself, because it changes it.
    fn built_in(&mut self, words: &[String], streams: &Streams) -> Option<Done> {
        let (name, arguments) = words.split_first()?;
        let number = |default: i32| {
            arguments.first().and_then(|text| text.parse::<i32>().ok()).unwrap_or(default)
        };
        let loops = || u32::try_from(number(1)).unwrap_or(1);
        Some(match name.as_str() {
            "exit" | "logout" => Err(Flow::Exit(number(self.code) & 0xff)),
            "break" => Err(Flow::Break(loops())),
            "continue" => Err(Flow::Continue(loops())),
            ":" | "set" | "trap" | "wait" | "alias" | "ulimit" | "umask" | "source" | "." => Ok(0),
            "exec" => match arguments {
                [] => Ok(0),
                _ => self.program(arguments, streams).and_then(|code| Err(Flow::Exit(code))),
            },
            "eval" => self.script(&arguments.join(" "), streams),
            "cd" => self.change_folder(arguments.first().map(String::as_str), streams),
            "export" | "readonly" | "local" | "declare" => {
                for word in arguments {
                    if let Some((name, value)) = word.split_once('=') {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                }
                Ok(0)
            }
            "unset" => {
                for name in arguments {
                    self.variables.remove(name);
                }
                Ok(0)
            }
            "shift" => {
                if self.arguments.len() > 1 {
                    self.arguments.remove(1);
                }
                Ok(0)
            }
            "read" => self.read_variable(arguments, streams),
            "type" | "command" | "which" => self.which(arguments, streams),
            "history" => {
                let lines = self.history.iter().enumerate();
                let text: String =
                    lines.map(|(index, line)| format!("{:>5}  {line}\n", index + 1)).collect();
                self.print(streams, &text).map(|()| 0)
            }
            _ => return None,
        })
    }

    fn change_folder(&mut self, to: Option<&str>, streams: &Streams) -> Done {
        let to = to.unwrap_or("/root");
        let folder = self.absolute(to);
        if self.is_folder(&folder) {
            self.folder = folder;
            return Ok(0);
        }
        self.complain(streams, &format!("cd: can't cd to {to}: No such file or directory"))?;
        Ok(2)
    }

    fn read_variable(&mut self, arguments: &[String], streams: &Streams) -> Done {
        let names: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
        let Some(line) = self.read_line(&streams.input)? else { return Ok(1) };
        let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
        let mut rest = line.trim();
        for (index, name) in names.iter().enumerate() {
            let is_last = index + 1 == names.len();
            let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let value = if is_last { rest } else { word };
            self.variables.insert((*name).clone(), value.to_owned());
            rest = after.trim_start();
        }
        Ok(0)
    }

    fn which(&mut self, arguments: &[String], streams: &Streams) -> Done {
        let mut code = 0;
        for name in arguments.iter().filter(|word| !word.starts_with('-')) {
            let there = self.image.has(name)
                && (tools::find(name).is_some() || images::shell_of(name).is_some());
            if there {
                self.print(streams, &format!("/usr/bin/{name}\n"))?;
            } else {
                code = 127;
            }
        }
        Ok(code)
    }

    /// Changes where a command reads or writes; the exit code if it cannot.
    fn redirect(
        &mut self,
        redirect: &Redirect,
        streams: &mut Streams,
    ) -> Result<Result<(), i32>, Flow> {
        match redirect {
            Redirect::From(word) => {
                let name = self.expand(word, streams)?.join(" ");
                match self.read_file(&name) {
                    Some(text) => streams.input = Source::Text(Rc::new(RefCell::new(text))),
                    None => {
                        self.complain(
                            streams,
                            &format!("can't open {name}: No such file or directory"),
                        )?;
                        return Ok(Err(1));
                    }
                }
            }
            Redirect::To { descriptor, append, file } => {
                let name = self.expand(file, streams)?.join(" ");
                let sink = if name == "/dev/null" {
                    Sink::Nowhere
                } else {
                    let path = self.absolute(&name);
                    let exists = self.written.contains_key(&path);
                    if !exists && self.written.len() >= FILES_MAX {
                        let says = format!("can't create {name}: No space left on device");
                        self.complain(streams, &says)?;
                        return Ok(Err(1));
                    }
                    let text = self.read_file(&path).filter(|_| *append).unwrap_or_default();
                    self.written.insert(path.clone(), text);
                    Sink::File(path)
                };
                match descriptor {
                    2 => streams.errors = sink,
                    _ => streams.output = sink,
                }
            }
            Redirect::Same { descriptor: 2, other: 1 } => streams.errors = streams.output.clone(),
            Redirect::Same { descriptor: 1, other: 2 } => streams.output = streams.errors.clone(),
            Redirect::Same { .. } => {}
        }
        Ok(Ok(()))
    }

    /// A word as the words that it comes to.
    fn expand(&mut self, word: &Word, streams: &Streams) -> Result<Vec<String>, Flow> {
        let mut words: Vec<String> = Vec::new();
        let mut open: Option<String> = None;
        for part in &word.0 {
            let (text, quoted) = match part {
                Part::Text { text, quoted } => {
                    let is_home =
                        !quoted && open.is_none() && (text == "~" || text.starts_with("~/"));
                    let text = if is_home { text.replacen('~', "/root", 1) } else { text.clone() };
                    open.get_or_insert_default().push_str(&text);
                    continue;
                }
                Part::Variable { name, default, quoted } => {
                    let value = self.variable(name);
                    (
                        value.filter(|v| !v.is_empty()).or(default.clone()).unwrap_or_default(),
                        *quoted,
                    )
                }
                Part::Arithmetic(text) => (self.arithmetic(text).to_string(), true),
                Part::Output { list, quoted } => {
                    let held = Rc::default();
                    let output = Sink::Held(Rc::clone(&held));
                    let code = self.list(list, &Streams { output, ..streams.clone() })?;
                    self.code = code;
                    let text = String::from_utf8_lossy(&held.borrow()).into_owned();
                    (text.trim_end_matches('\n').to_owned(), *quoted)
                }
            };
            if quoted {
                open.get_or_insert_default().push_str(&text);
                continue;
            }
            // What is not quoted falls into words.
            if text.starts_with(char::is_whitespace) {
                words.extend(open.take());
            }
            let mut pieces = text.split_whitespace().peekable();
            while let Some(piece) = pieces.next() {
                open.get_or_insert_default().push_str(piece);
                if pieces.peek().is_some() {
                    words.extend(open.take());
                }
            }
            if text.ends_with(char::is_whitespace) {
                words.extend(open.take());
            }
        }
        words.extend(open);
        Ok(words)
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "?" => Some(self.code.to_string()),
            "$" | "!" => Some("7".to_owned()),
            "#" => Some(self.arguments.len().saturating_sub(1).to_string()),
            "@" | "*" => Some(self.arguments.get(1..).unwrap_or_default().join(" ")),
            "PWD" => Some(self.folder.clone()),
            "RANDOM" => Some((self.host.now().as_nanos() / 1_000 % 32_768).to_string()),
            name => match name.parse::<usize>() {
                Ok(index) => self.arguments.get(index).cloned(),
                Err(_) => self.variables.get(name).cloned(),
            },
        }
    }

    /// `+ - * / %` and parentheses over whole numbers; 0 for anything else.
    fn arithmetic(&self, text: &str) -> i64 {
        let mut text = Numbers { rest: text, depth: 0 };
        text.sum(&|name| {
            self.variable(name).and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        })
    }

    /// Writes a text where a command's output goes.
    pub(super) fn print(&mut self, streams: &Streams, text: &str) -> Result<(), Flow> {
        self.write(&streams.output, text.as_bytes())
    }

    /// Says what is wrong: on the error stream, with the shell's name.
    pub(super) fn complain(&mut self, streams: &Streams, says: &str) -> Result<(), Flow> {
        let text = format!("{}: {says}\n", self.image.shell_name());
        self.write(&streams.errors, text.as_bytes())
    }

    /// Writes bytes.
    pub(super) fn write(&mut self, sink: &Sink, bytes: &[u8]) -> Result<(), Flow> {
        match sink {
            Sink::Nowhere => {}
            Sink::Held(held) => append(&mut held.borrow_mut(), bytes, HELD_BYTES_MAX),
            Sink::File(path) => {
                append(self.written.entry(path.clone()).or_default(), bytes, FILE_BYTES_MAX);
            }
            Sink::Client(descriptor) => {
                let (descriptor, bytes) = if self.tty {
                    (Descriptor::Stdout, for_terminal(bytes))
                } else {
                    (*descriptor, bytes.to_vec())
                };
                if !bytes.is_empty() && !self.host.write(descriptor, &bytes) {
                    return Err(Flow::Gone);
                }
            }
        }
        Ok(())
    }

    /// Whether what is written there is seen on a terminal.
    pub(super) fn is_terminal(&self, sink: &Sink) -> bool {
        self.tty && matches!(sink, Sink::Client(_))
    }

    /// All that is to be read.
    pub(super) fn read_all(&mut self, source: &Source) -> Result<Vec<u8>, Flow> {
        let mut all = Vec::new();
        while let Some(line) = self.read_line(source)? {
            append(&mut all, &line, HELD_BYTES_MAX);
        }
        Ok(all)
    }

    /// The next line with its end, nothing at the end.
    pub(super) fn read_line(&mut self, source: &Source) -> Result<Option<Vec<u8>>, Flow> {
        match source {
            Source::Client => self.read_from_client(),
            Source::Text(text) => {
                let mut text = text.borrow_mut();
                let end =
                    text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
                let line: Vec<u8> = text.drain(..end).collect();
                Ok((!line.is_empty()).then_some(line))
            }
        }
    }
}

fn append(to: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let room = most.saturating_sub(to.len());
    to.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Line feeds as a terminal wants them.
fn for_terminal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

struct Numbers<'t> {
    rest: &'t str,
    depth: usize,
}

impl Numbers<'_> {
    fn eat(&mut self, wanted: &[char]) -> Option<char> {
        self.rest = self.rest.trim_start();
        let next = self.rest.chars().next().filter(|next| wanted.contains(next))?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn sum(&mut self, variable: &dyn Fn(&str) -> i64) -> i64 {
        let mut sum = self.product(variable);
        while let Some(sign) = self.eat(&['+', '-']) {
            let next = self.product(variable);
            sum = if sign == '+' { sum.wrapping_add(next) } else { sum.wrapping_sub(next) };
        }
        sum
    }

    fn product(&mut self, variable: &dyn Fn(&str) -> i64) -> i64 {
        let mut product = self.atom(variable);
        while let Some(sign) = self.eat(&['*', '/', '%']) {
            let next = self.atom(variable);
            product = match sign {
                '*' => product.wrapping_mul(next),
                '/' => product.checked_div(next).unwrap_or(0),
                _ => product.checked_rem(next).unwrap_or(0),
            };
        }
        product
    }

    fn atom(&mut self, variable: &dyn Fn(&str) -> i64) -> i64 {
        if self.depth > DEPTH_MAX {
            return 0;
        }
        self.depth += 1;
        let value = if self.eat(&['(']).is_some() {
            let value = self.sum(variable);
            self.eat(&[')']);
            value
        } else if self.eat(&['-']).is_some() {
            self.atom(variable).wrapping_neg()
        } else {
            self.eat(&['$']);
            let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            self.rest = rest;
            word.parse().unwrap_or_else(|_| variable(word))
        };
        self.depth -= 1;
        value
    }
}
