//! What a container's process would do, read from its image and command: how long it runs, how it
//! ends, what it prints, and whether it heeds SIGTERM.
//!
//! A model, not a shell: it knows `sleep`, `echo`, `printf`, `date`, `hostname`, `true`, `false`,
//! `exit`, `perl -e`, `tail -f`, `trap`, `wget`, `curl`, `timeout`, `stress`, lists with `;`, `&&`, `||`, `&`,
//! and endless loops (`while true; do … done`). What it does not know is taken for a server: it runs until it is stopped
//! and prints nothing.

mod effort;
mod proportional;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use wharf_load::Phase;

pub use effort::Effort;
pub(crate) use effort::target_of;

/// What a process does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// What it prints before it loops or ends, by the time since its start.
    pub output: Vec<Line>,
    /// After how long it ends by itself, and with which exit code.
    pub end: Option<(Duration, i32)>,
    /// What it repeats after `output` until it is stopped.
    pub rounds: Option<Rounds>,
    /// Whether SIGTERM ends it. The first process of a container has no default signal handlers,
    /// so shells and small tools run on until they are killed.
    pub heeds_term: bool,
    /// What it uses.
    pub effort: Effort,
}

/// A printed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Time since the start of the process (or of the round).
    pub at: Duration,
    /// The text. [`DATE`] stands for the time of printing and [`HOSTNAME`] for the pod's name.
    pub text: String,
}

/// An endless loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// When the first round begins.
    pub start: Duration,
    /// How long a round takes; at least a millisecond.
    pub period: Duration,
    /// What a round prints.
    pub output: Vec<Line>,
}

/// Stands for the output of `date` in [`Line::text`].
pub const DATE: &str = "\u{1}date\u{1}";
/// Stands for the pod's name in [`Line::text`].
pub const HOSTNAME: &str = "\u{1}hostname\u{1}";

/// Stands for the head of an error in glog's form, up to the place in the program.
pub(crate) const ERROR_HEAD: &str = "\u{1}error\u{1}";

/// How long a process that does nothing takes to start and end.
const STARTUP: Duration = Duration::from_millis(20);
/// How long a program of one line computes: what the Job of Kubernetes' documentation takes for the
/// digits of pi.
const COMPUTATION: Duration = Duration::from_secs(5);
/// Scripts longer than this are not looked into.
const SCRIPT_MAX: usize = 4_096;
/// Commands that are looked into, in all. A script that runs a variable which runs the variable
/// again has no end.
const COMMANDS_MAX: usize = SCRIPT_MAX;
/// Commands that run commands (`sh -c`, `exec`) within one another.
const DEPTH_MAX: usize = 16;
/// Bytes that variables may expand to, in all: a short script can repeat a long one many times.
const EXPANDED_MAX: usize = 64 * 1_024;

/// What the process of a container does, with what it is told by the pod that it is in.
pub(crate) fn program_in(pod: &Pod, container: &Container) -> Program {
    proportional::refused(pod, container).unwrap_or_else(|| program_of(container))
}

/// What the process of a container does.
pub fn program_of(container: &Container) -> Program {
    let words: Vec<&str> = container
        .command
        .iter()
        .flatten()
        .chain(container.args.iter().flatten())
        .map(String::as_str)
        .collect();
    let image = container.image.as_deref().unwrap_or_default();
    let mut words = words;
    if container.command.is_none() && ["stress", "stress-ng"].contains(&image_name(image)) {
        // Its entry point is the program of its name.
        words.insert(0, "stress");
    }
    if words.is_empty() || (container.command.is_none() && words[0].starts_with('-')) {
        return of_image(image, container.tty == Some(true) || container.stdin == Some(true));
    }
    let mut run = Run::new(container);
    run.command(&words);
    run.finish()
}

/// The image's name without registry, tag and digest: `pause`, `nginx`.
pub fn image_name(image: &str) -> &str {
    let path = image.split('@').next().unwrap_or(image);
    let last = path.rsplit('/').next().unwrap_or(path);
    last.split(':').next().unwrap_or(last)
}

fn of_image(image: &str, interactive: bool) -> Program {
    let listens = Effort { listens: image_name(image) != "pause", ..Effort::default() };
    let server = Program { heeds_term: true, effort: listens, ..Program::default() };
    let ends = |lines: &[&str]| Program {
        output: lines.iter().map(|text| line(Duration::ZERO, text)).collect(),
        end: Some((STARTUP, 0)),
        ..Program::default()
    };
    match image_name(image) {
        "nginx" => Program { output: nginx_start(), ..server },
        "hello-world" => ends(&["Hello from Docker!"]),
        "busybox" | "alpine" | "ubuntu" | "debian" | "bash" | "centos" | "fedora"
        | "amazonlinux" | "python" | "node"
            if interactive =>
        {
            Program::default()
        }
        "busybox" | "alpine" | "ubuntu" | "debian" | "bash" | "centos" | "fedora"
        | "amazonlinux" | "python" | "node" => ends(&[]),
        _ => server,
    }
}

/// What the official nginx image prints when it starts.
fn nginx_start() -> Vec<Line> {
    [
        "/docker-entrypoint.sh: /docker-entrypoint.d/ is not empty, will attempt to perform configuration",
        "/docker-entrypoint.sh: Looking for shell scripts in /docker-entrypoint.d/",
        "/docker-entrypoint.sh: Configuration complete; ready for start up",
    ]
    .iter()
    .map(|text| line(STARTUP, text))
    .collect()
}

fn line(at: Duration, text: &str) -> Line {
    Line { at, text: text.to_owned() }
}

/// The walk through a command or script.
struct Run<'a> {
    container: &'a Container,
    at: Duration,
    code: i32,
    output: Vec<Line>,
    rounds: Option<Rounds>,
    /// Runs on until it is stopped.
    forever: bool,
    exited: bool,
    heeds_term: bool,
    work: Bounds,
    /// What it did one after the other.
    phases: Vec<Phase>,
    effort: Effort,
}

/// What is left of the bounds on a walk.
#[derive(Clone, Copy)]
struct Bounds {
    commands: usize,
    depth: usize,
    expanded: usize,
}

impl<'a> Run<'a> {
    fn new(container: &'a Container) -> Self {
        Self {
            container,
            at: STARTUP,
            code: 0,
            output: Vec::new(),
            rounds: None,
            forever: false,
            exited: false,
            heeds_term: false,
            work: Bounds { commands: COMMANDS_MAX, depth: DEPTH_MAX, expanded: EXPANDED_MAX },
            phases: Vec::new(),
            effort: Effort::default(),
        }
    }

    fn over(&self) -> bool {
        self.forever || self.exited
    }

    fn finish(self) -> Program {
        Program {
            output: self.output,
            end: (!self.forever).then_some((self.at, self.code)),
            rounds: self.rounds,
            heeds_term: self.heeds_term,
            effort: self.effort,
        }
    }

    /// Runs a command within the bounds; beyond them it is taken for one that runs on.
    fn command(&mut self, words: &[&str]) {
        if self.work.commands == 0 || self.work.depth == 0 {
            self.forever = true;
            return;
        }
        self.work.commands -= 1;
        self.work.depth -= 1;
        self.run(words);
        self.work.depth += 1;
    }

    fn run(&mut self, words: &[&str]) {
        let Some((first, rest)) = words.split_first() else { return };
        let name = first.rsplit('/').next().unwrap_or(first);
        self.phases.push(effort::start_of(name));
        match name {
            "sh" | "bash" | "ash" | "dash" => self.shell(rest),
            "exec" | "env" | "tini" | "dumb-init" if !rest.is_empty() => {
                let rest: Vec<&str> =
                    rest.iter().copied().skip_while(|word| *word == "--").collect();
                self.command(&rest);
            }
            "sleep" => self.sleep(rest),
            "wget" | "curl" => self.request(rest),
            "timeout" => self.timeout(rest),
            "perl" if rest.iter().any(|word| is_one_liner(word)) => self.compute(),
            "stress" | "stress-ng" => self.stress(rest),
            _ if effort::is_busy(name, rest) => self.burn(),
            "echo" => {
                let no_line_feed = rest.first() == Some(&"-n");
                let words = rest.iter().filter(|word| !["-n", "-e"].contains(word));
                let text = words.copied().collect::<Vec<_>>().join(" ");
                if !(no_line_feed && text.is_empty()) {
                    self.print(&text);
                }
            }
            "printf" => {
                let text = rest.first().copied().unwrap_or_default().replace("\\n", "\n");
                self.print(text.trim_end_matches('\n'));
            }
            "date" => self.print(DATE),
            "hostname" => self.print(HOSTNAME),
            "true" | ":" | "set" | "cd" | "mkdir" | "touch" | "rm" | "cp" | "mv" | "chmod"
            | "chown" | "export" | "ls" | "id" | "ps" => self.code = 0,
            // It reads what somebody types.
            "cat" if rest.is_empty() && self.container.stdin == Some(true) => self.forever = true,
            "cat" => self.code = 0,
            "false" => self.code = 1,
            "exit" => {
                self.code = rest.first().and_then(|code| code.parse().ok()).unwrap_or(self.code);
                self.exited = true;
            }
            "trap" => {
                self.heeds_term |= rest.iter().any(|word| ["TERM", "SIGTERM", "15"].contains(word));
            }
            "tail" => self.forever = true,
            "wait" => self.forever = true,
            _ if name.contains('=') => {}
            _ => {
                self.forever = true;
                // A server of its own replaces or is the first process.
                self.heeds_term = true;
                self.effort.listens = true;
            }
        }
    }

    fn shell(&mut self, arguments: &[&str]) {
        let script = arguments
            .iter()
            .position(|word| word.starts_with('-') && word.contains('c'))
            .and_then(|flag| arguments.get(flag + 1));
        match script {
            Some(script) if script.len() <= SCRIPT_MAX => self.script(script),
            Some(_) => self.forever = true,
            None if self.container.tty == Some(true) || self.container.stdin == Some(true) => {
                self.forever = true;
            }
            None if arguments.is_empty() => {}
            // A script file of the image.
            None => self.forever = true,
        }
    }

    fn script(&mut self, script: &str) {
        let tokens = tokenize(script);
        self.list(&tokens);
    }

    fn list(&mut self, tokens: &[Token]) {
        let mut rest = tokens;
        let mut runs = true;
        while !rest.is_empty() && !self.over() {
            if let Some((condition, body, after)) = split_loop(rest) {
                if runs && after.first() == Some(&Token::Operator("&")) {
                    self.beside(|run| run.endless(condition, body));
                } else if runs {
                    self.endless(condition, body);
                }
                rest = after;
            } else {
                let end = rest.iter().position(Token::is_operator).unwrap_or(rest.len());
                let beside = rest.get(end) == Some(&Token::Operator("&"));
                let words: Vec<String> = rest[..end].iter().map(|t| self.expand(t)).collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                if runs && !words.is_empty() && !self.over() {
                    if is_control(words[0]) {
                        self.forever = true;
                        return;
                    }
                    if beside {
                        self.beside(|run| run.command(&words));
                    } else {
                        self.command(&words);
                    }
                }
                rest = &rest[end..];
            }
            if let Some((operator, after)) = rest.split_first() {
                runs = match operator {
                    Token::Operator("&&") => self.code == 0,
                    Token::Operator("||") => self.code != 0,
                    _ => true,
                };
                rest = after;
            }
        }
    }

    /// `while true; do BODY; done`, `while sleep 1; do BODY; done`.
    fn endless(&mut self, condition: &[Token], body: &[Token]) {
        if self.work.depth == 0 {
            self.forever = true;
            return;
        }
        let mut round = Run::new(self.container);
        round.at = Duration::ZERO;
        round.work = Bounds { depth: self.work.depth - 1, ..self.work };
        round.list(condition);
        let entered = round.code == 0;
        if entered {
            round.list(body);
        }
        self.work = Bounds { depth: self.work.depth, ..round.work };
        if !entered {
            return;
        }
        self.effort.take_round(self.at, &round.effort, round.phases, round.forever || round.exited);
        self.heeds_term |= round.heeds_term;
        if round.exited {
            let start = self.at;
            self.output.extend(shifted(round.output, start));
            (self.at, self.code, self.exited) = (start + round.at, round.code, true);
            return;
        }
        self.forever = true;
        if round.forever {
            let start = self.at;
            self.output.extend(shifted(round.output, start));
        } else {
            self.rounds = Some(Rounds {
                start: self.at,
                period: round.at.max(Duration::from_millis(1)),
                output: round.output,
            });
        }
    }

    fn sleep(&mut self, arguments: &[&str]) {
        let mut total = Duration::ZERO;
        for argument in arguments {
            if argument.starts_with("inf") {
                self.forever = true;
                return;
            }
            match seconds(argument) {
                Some(duration) => total += duration,
                None => {
                    self.print(&format!("sleep: invalid time interval '{argument}'"));
                    self.code = 1;
                    return;
                }
            }
        }
        self.at += total;
        self.phases.push(Phase::Pause(total.as_secs_f64()));
        self.code = 0;
    }

    /// Computes for a while and ends well.
    fn compute(&mut self) {
        self.at += COMPUTATION;
        self.phases.push(Phase::Burn(COMPUTATION.as_secs_f64()));
        self.code = 0;
    }

    fn print(&mut self, text: &str) {
        self.code = 0;
        self.output.extend(text.split('\n').map(|text| line(self.at, text)));
    }

    /// Replaces `$NAME`, `${NAME}`, `$(date)` and `$(hostname)`; what is not set is empty, as in
    /// a shell.
    fn expand(&mut self, token: &Token) -> String {
        let Token::Word { text, literal } = token else { return String::new() };
        if *literal || !text.contains(['$', '`']) {
            return text.clone();
        }
        let (mut expanded, mut rest) = (String::new(), text.as_str());
        while let Some(dollar) = rest.find(['$', '`']) {
            expanded.push_str(&rest[..dollar]);
            let tail = &rest[dollar..];
            let (name, after) = if let Some(tail) = tail.strip_prefix("$(") {
                tail.split_once(')').unwrap_or((tail, ""))
            } else if let Some(tail) = tail.strip_prefix('`') {
                tail.split_once('`').unwrap_or((tail, ""))
            } else if let Some(tail) = tail.strip_prefix("${") {
                tail.split_once('}').unwrap_or((tail, ""))
            } else {
                let tail = &tail[1..];
                let end = tail
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(tail.len());
                tail.split_at(end)
            };
            let value = self.variable(name);
            if value.len() > self.work.expanded {
                self.forever = true;
                return expanded;
            }
            self.work.expanded -= value.len();
            expanded.push_str(value);
            rest = after;
        }
        expanded + rest
    }

    fn variable(&self, name: &str) -> &'a str {
        match name.split_whitespace().next().unwrap_or_default() {
            "date" => DATE,
            "hostname" | "HOSTNAME" => HOSTNAME,
            name => {
                let mut env = self.container.env.iter().flatten();
                let variable = env.find(|variable| variable.name == name);
                variable.and_then(|variable| variable.value.as_deref()).unwrap_or_default()
            }
        }
    }
}

fn shifted(lines: Vec<Line>, by: Duration) -> impl Iterator<Item = Line> {
    lines.into_iter().map(move |line| Line { at: line.at + by, ..line })
}

/// `10`, `0.5`, `2m`: what `sleep` takes.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3_600),
        b'd' => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let nanos = whole.checked_mul(1_000_000_000)?.checked_add(nanos)?.checked_mul(unit)?;
    Some(Duration::from_nanos(nanos))
}

/// Whether an option of an interpreter is followed by a program of one line: `-e`, `-wle`.
fn is_one_liner(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|flags| !flags.starts_with('M') && flags.ends_with(['e', 'E']))
}

/// Words that begin a construct this does not follow.
fn is_control(word: &str) -> bool {
    ["if", "for", "while", "until", "case", "function", "{", "("].contains(&word)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word {
        text: String,
        /// In single quotes: nothing in it is expanded.
        literal: bool,
    },
    Operator(&'static str),
}

impl Token {
    fn is_operator(&self) -> bool {
        matches!(self, Self::Operator(_))
    }
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word { text, .. } if text == word)
    }
}

/// Splits a script into words and the operators `;`, `&`, `&&`, `||`, `|`. Redirections are left
/// out with their target.
fn tokenize(script: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = script.chars().peekable();
    let mut word: Option<(String, bool)> = None;
    let mut skip_next = false;
    while let Some(c) = characters.next() {
        let mut operator = None;
        match c {
            '\'' => {
                let (text, literal) = word.get_or_insert_with(|| (String::new(), true));
                *literal = text.is_empty();
                text.extend(characters.by_ref().take_while(|c| *c != '\''));
                continue;
            }
            '"' => {
                let (text, literal) = word.get_or_insert_with(Default::default);
                *literal = false;
                text.extend(characters.by_ref().take_while(|c| *c != '"'));
                continue;
            }
            '$' if characters.peek() == Some(&'(') => {
                let (text, _) = word.get_or_insert_with(Default::default);
                text.push('$');
                text.extend(characters.by_ref().take_while(|c| *c != ')'));
                text.push(')');
                continue;
            }
            ';' | '\n' => operator = Some(";"),
            '&' => operator = Some(if characters.next_if_eq(&'&').is_some() { "&&" } else { "&" }),
            '|' => operator = Some(if characters.next_if_eq(&'|').is_some() { "||" } else { "|" }),
            '>' | '<' => {
                // The file descriptor before it, and what follows, are not words.
                word = None;
                while characters.next_if(|c| ['>', '&', ' '].contains(c)).is_some() {}
                skip_next = true;
                continue;
            }
            c if c.is_whitespace() => {}
            c => {
                word.get_or_insert_with(Default::default).0.push(c);
                continue;
            }
        }
        if let Some((text, literal)) = word.take()
            && !std::mem::take(&mut skip_next)
        {
            tokens.push(Token::Word { text, literal });
        }
        tokens.extend(operator.map(Token::Operator));
    }
    if let Some((text, literal)) = word
        && !skip_next
    {
        tokens.push(Token::Word { text, literal });
    }
    tokens
}

type Tokens<'t> = &'t [Token];

/// Splits `while CONDITION; do BODY; done REST` into its parts.
fn split_loop(tokens: Tokens<'_>) -> Option<(Tokens<'_>, Tokens<'_>, Tokens<'_>)> {
    let (first, rest) = tokens.split_first()?;
    if !first.is("while") {
        return None;
    }
    let body = rest.iter().position(|token| token.is("do"))?;
    let mut depth = 1;
    let length = rest[body + 1..].iter().position(|token| {
        depth += i32::from(token.is("do")) - i32::from(token.is("done"));
        depth == 0
    })?;
    let done = body + 1 + length;
    Some((&rest[..body], &rest[body + 1..done], &rest[done + 1..]))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;

    fn program(image: &str, command: &[&str]) -> Program {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        program_of(&Container {
            image: Some(image.to_owned()),
            command: (!command.is_empty()).then(|| words(command)),
            ..Container::default()
        })
    }

    fn sh(script: &str) -> Program {
        program("busybox", &["/bin/sh", "-c", script])
    }

    /// A script with `$A` set.
    fn sh_with(script: &str, variable: &str) -> Program {
        let text = |text: &str| text.to_owned();
        let variable = EnvVar { name: text("A"), value: Some(text(variable)), ..EnvVar::default() };
        program_of(&Container {
            command: Some(vec![text("sh"), text("-c"), text(script)]),
            env: Some(vec![variable]),
            ..Container::default()
        })
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn how_commands_end() {
        let ends: &[(&str, Option<(u64, i32)>)] = &[
            ("sleep 10", Some((10, 0))),
            ("sleep 1m 30s", Some((90, 0))),
            ("sleep 0.5", Some((0, 0))),
            ("sleep infinity", None),
            ("sleep 5 && exit 3", Some((5, 3))),
            ("false && sleep 100", Some((0, 1))),
            ("false || sleep 100", Some((100, 0))),
            ("echo hello; false", Some((0, 1))),
            ("exit 0; sleep 100", Some((0, 0))),
            ("tail -f /dev/null", None),
            ("while true; do date; sleep 5; done", None),
            ("while :; do sleep 1; exit 4; done", Some((1, 4))),
            ("while false; do sleep 1; done; exit 2", Some((0, 2))),
            ("for i in 1 2; do echo $i; done", None),
            ("echo a > /tmp/x; sleep 3600", Some((3600, 0))),
            ("my-server --port 80", None),
            ("sleep never", Some((0, 1))),
        ];
        for (script, expected) in ends {
            let end = sh(script).end.map(|(after, code)| (after.as_secs(), code));
            assert_eq!(end, *expected, "{script}");
        }
        assert_eq!(
            program("busybox", &["sleep", "3600"]).end.map(|end| end.0.as_secs()),
            Some(3600)
        );
        let pi = program("perl:5.34.0", &["perl", "-Mbignum=bpi", "-wle", "print bpi(2000)"]);
        assert_eq!(pi.end.map(|(after, code)| (after.as_secs(), code)), Some((5, 0)));
        assert_eq!(program("perl:5.34.0", &["perl", "-MCGI", "server.pl"]).end, None);
        assert_eq!(program("registry.k8s.io/pause:3.7", &[]).end, None);
        assert_eq!(program("busybox:1.36", &[]).end, Some((STARTUP, 0)));
    }

    /// The stack ran out on the first three, memory on the last.
    #[test]
    fn commands_that_run_commands_come_to_an_end() {
        let many = vec!["exec"; 100_000];
        assert_eq!(program("busybox", &many).end, None);
        let again = "sh -c \"$A\"; ";
        assert_eq!(sh_with(again, again).end, None);
        assert_eq!(sh_with(again, &again.repeat(100)).end, None);
        let long = sh_with(&"echo $A; ".repeat(400), &"x".repeat(60_000));
        let printed = long.output.iter().map(|line| line.text.len()).sum::<usize>();
        assert!((60_000..=EXPANDED_MAX).contains(&printed), "{printed}");
    }

    proptest::proptest! {
        #[test]
        fn no_script_panics(words in proptest::collection::vec(
            "while|true|do|done|;|&&|sh -c|exec|\\$A|`date`|\\$\\(date\\)|sleep|[0-9.]{1,21}[smhd]?|echo|'|\"|\\PC{0,3}", 0..20,
        )) {
            let script = words.join(" ");
            let _ = sh_with(&script, &script);
        }
    }

    #[test]
    fn who_heeds_sigterm() {
        assert!(program("public.ecr.aws/eks-distro/kubernetes/pause:3.7", &[]).heeds_term);
        assert!(program("nginx", &[]).heeds_term);
        assert!(!program("busybox", &["sleep", "10"]).heeds_term);
        assert!(!sh("while true; do sleep 1; done").heeds_term);
        assert!(sh("trap 'exit 0' TERM; while true; do sleep 1; done").heeds_term);
        assert!(!program("netshoot", &["tail"]).heeds_term);
    }

    #[test]
    fn what_is_printed() {
        let looped =
            sh("echo start; while true; do echo \"$(date) from $HOSTNAME\"; sleep 5; done");
        assert_eq!(texts(&looped.output), ["start"]);
        let rounds = looped.rounds.expect("it loops");
        assert_eq!(rounds.period.as_secs(), 5);
        assert_eq!(texts(&rounds.output), [format!("{DATE} from {HOSTNAME}")]);
        assert_eq!(texts(&sh("echo 'it costs $5'; echo a  b").output), ["it costs $5", "a b"]);
        assert_eq!(texts(&sh("printf 'a\\nb\\n' && echo \"${NONE}c\"").output), ["a", "b", "c"]);
        assert_eq!(
            texts(&sh("while sleep 2; do echo tick; done").rounds.expect("loops").output),
            ["tick"]
        );
    }

    #[test]
    fn rubbish_is_survived() {
        for script in [
            "",
            ";",
            "'",
            "\"",
            "$(",
            "`",
            "while",
            "while true; do",
            "done",
            "> ",
            "&&",
            "echo ${",
        ] {
            sh(script);
        }
        assert_eq!(image_name("localhost:5000/a/pause:3.7@sha256:00"), "pause");
    }
}
