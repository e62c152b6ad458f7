//! Scripts as a tree: the part of the POSIX shell's grammar that people type into pods.
//!
//! Lists with `;`, `&`, `&&`, `||` and newlines, pipelines, `while`, `until`, `for`, `if`, groups,
//! assignments, quotes, `$NAME`, `${NAME:-word}`, `$(…)`, `$((…))`, redirections. No functions, no
//! `case`, no here-documents.

/// Scripts longer than this are refused.
const SCRIPT_BYTES_MAX: usize = 64 * 1024;
/// Constructs within one another.
const DEPTH_MAX: usize = 32;

/// Pipelines, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct List(pub(super) Vec<Item>);

/// A pipeline of a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Whether it runs.
    pub(super) when: When,
    /// Whether its exit code is turned round.
    pub(super) negated: bool,
    /// The commands, each with the output of the one before as its input.
    pub(super) commands: Vec<Command>,
    /// Whether the list goes on without waiting for it.
    pub(super) beside: bool,
}

/// When a pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Whatever was before.
    Always,
    /// If what was before succeeded.
    Success,
    /// If what was before failed.
    Failure,
}

/// A command with its redirections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) what: What,
    pub(super) redirects: Vec<Redirect>,
}

/// What a command is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Simple {
        assignments: Vec<(String, Word)>,
        words: Vec<Word>,
    },
    While {
        until: bool,
        condition: List,
        body: List,
    },
    For {
        name: String,
        words: Vec<Word>,
        body: List,
    },
    If {
        branches: Vec<(List, List)>,
        otherwise: Option<List>,
    },
    Group(List),
    /// What it changes of the shell is gone afterwards.
    Subshell(List),
}

/// A redirection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Redirect {
    /// `<`.
    From(Word),
    /// `>` and `>>` of a file descriptor.
    To { descriptor: u8, append: bool, file: Word },
    /// `2>&1`.
    Same { descriptor: u8, other: u8 },
}

/// A word in its parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Word(pub(super) Vec<Part>);

/// A part of a word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// As it stands.
    Text { text: String, quoted: bool },
    /// A variable, and what stands for it if it is not set or empty.
    Variable { name: String, default: Option<String>, quoted: bool },
    /// What commands print.
    Output { list: List, quoted: bool },
    /// A number that is worked out.
    Arithmetic(String),
}

/// Why a script cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// More of it has to come.
    Incomplete,
    /// It is no script, from this on.
    Unexpected(String),
}

/// Parses a script.
pub(super) fn parse(script: &str) -> Result<List, Wrong> {
    parse_at(script, 0)
}

fn parse_at(script: &str, depth: usize) -> Result<List, Wrong> {
    if script.len() > SCRIPT_BYTES_MAX || depth > DEPTH_MAX {
        return Err(Wrong::Unexpected("too long".to_owned()));
    }
    let tokens = Lexer { rest: script, depth }.tokens()?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth };
    let list = parser.list(&[])?;
    match parser.peek() {
        None => Ok(list),
        Some(token) => Err(Wrong::Unexpected(token.shown())),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(Word),
    /// `;`, `&`, `&&`, `||`, `|`, `(`, `)`; a newline is a `;`.
    Operator(&'static str),
    Redirect(Direction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    From,
    To { descriptor: u8, append: bool },
    Same { descriptor: u8, other: u8 },
}

impl Token {
    /// The word, if it is one without quotes and variables.
    fn bare(&self) -> Option<&str> {
        match self {
            Self::Word(Word(parts)) => match parts.as_slice() {
                [Part::Text { text, quoted: false }] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Operator(operator) => (*operator).to_owned(),
            Self::Redirect(_) => "redirection".to_owned(),
            Self::Word(_) => self.bare().unwrap_or("word").to_owned(),
        }
    }
}

struct Lexer<'s> {
    rest: &'s str,
    depth: usize,
}

impl Lexer<'_> {
    fn next_char(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn tokens(mut self) -> Result<Vec<Token>, Wrong> {
        let mut tokens = Vec::new();
        while let Some(next) = self.rest.chars().next() {
            if next == '\n' {
                self.next_char();
                tokens.push(Token::Operator(";"));
            } else if next.is_whitespace() || self.rest.starts_with("\\\n") {
                self.eat("\\");
                self.next_char();
            } else if next == '#' {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.rest = &self.rest[end..];
            } else if let Some(direction) = self.redirect() {
                tokens.push(Token::Redirect(direction));
            } else if let Some(operator) =
                ["&&", "||", ";", "&", "|", "(", ")"].into_iter().find(|text| self.eat(text))
            {
                tokens.push(Token::Operator(operator));
            } else {
                let word = self.word()?;
                if word.0.is_empty() {
                    return Err(Wrong::Unexpected(next.to_string()));
                }
                tokens.push(Token::Word(word));
            }
        }
        Ok(tokens)
    }

    fn redirect(&mut self) -> Option<Direction> {
        let (digit, rest) = match self.rest.as_bytes() {
            [digit @ b'0'..=b'2', b'>' | b'<', ..] => (Some(digit - b'0'), &self.rest[1..]),
            _ => (None, self.rest),
        };
        if let Some(rest) = rest.strip_prefix('<') {
            self.rest = rest;
            return Some(Direction::From);
        }
        if let Some(rest) = rest.strip_prefix(">&") {
            let descriptor = digit.unwrap_or(1);
            self.rest = rest;
            let other = rest.as_bytes().first().filter(|byte| (b'1'..=b'2').contains(byte));
            let Some(other) = other else {
                return Some(Direction::To { descriptor, append: false });
            };
            self.rest = &rest[1..];
            return Some(Direction::Same { descriptor, other: other - b'0' });
        }
        let rest = rest.strip_prefix('>')?;
        let appended = rest.strip_prefix('>');
        self.rest = appended.unwrap_or(rest);
        Some(Direction::To { descriptor: digit.unwrap_or(1), append: appended.is_some() })
    }

    fn word(&mut self) -> Result<Word, Wrong> {
        let mut parts = Vec::new();
        while let Some(next) = self.rest.chars().next() {
            if next.is_whitespace() || "&|;()<>".contains(next) {
                break;
            }
            match next {
                '\'' => {
                    self.next_char();
                    let (text, rest) = self.rest.split_once('\'').ok_or(Wrong::Incomplete)?;
                    parts.push(Part::Text { text: text.to_owned(), quoted: true });
                    self.rest = rest;
                }
                '"' => {
                    self.next_char();
                    self.quoted(&mut parts)?;
                }
                _ => self.part(&mut parts, false)?,
            }
        }
        Ok(Word(parts))
    }

    fn quoted(&mut self, parts: &mut Vec<Part>) -> Result<(), Wrong> {
        // An empty pair of quotes is a word too.
        parts.push(Part::Text { text: String::new(), quoted: true });
        loop {
            match self.rest.chars().next() {
                None => return Err(Wrong::Incomplete),
                Some('"') => {
                    self.next_char();
                    return Ok(());
                }
                Some(_) => self.part(parts, true)?,
            }
        }
    }

    /// One character, or what a `$`, a backtick or a backslash begins.
    fn part(&mut self, parts: &mut Vec<Part>, quoted: bool) -> Result<(), Wrong> {
        let Some(next) = self.next_char() else { return Err(Wrong::Incomplete) };
        match next {
            '\\' => {
                let Some(escaped) = self.next_char() else { return Err(Wrong::Incomplete) };
                if quoted && !"$`\"\\\n".contains(escaped) {
                    add(parts, '\\', true);
                }
                if escaped != '\n' {
                    // What is escaped is quoted, but does not make an empty word.
                    add(parts, escaped, true);
                }
            }
            '`' => {
                let (script, rest) = self.rest.split_once('`').ok_or(Wrong::Incomplete)?;
                let list = parse_at(script, self.depth + 1)?;
                self.rest = rest;
                parts.push(Part::Output { list, quoted });
            }
            '$' => parts.push(self.dollar(quoted)?),
            _ => add(parts, next, quoted),
        }
        Ok(())
    }

    fn dollar(&mut self, quoted: bool) -> Result<Part, Wrong> {
        if self.eat("((") {
            let (text, rest) = self.rest.split_once("))").ok_or(Wrong::Incomplete)?;
            self.rest = rest;
            return Ok(Part::Arithmetic(text.to_owned()));
        }
        if self.eat("(") {
            let end = closing(self.rest).ok_or(Wrong::Incomplete)?;
            let list = parse_at(&self.rest[..end], self.depth + 1)?;
            self.rest = &self.rest[end + 1..];
            return Ok(Part::Output { list, quoted });
        }
        if self.eat("{") {
            let (inner, rest) = self.rest.split_once('}').ok_or(Wrong::Incomplete)?;
            self.rest = rest;
            let (name, default) = match inner.split_once(":-").or_else(|| inner.split_once('-')) {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (inner, None),
            };
            return Ok(Part::Variable { name: name.to_owned(), default, quoted });
        }
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = match self.rest.chars().next() {
            Some(c) if "?$#@*!".contains(c) || c.is_ascii_digit() => &self.rest[..1],
            _ => &self.rest[..self.rest.find(|c| !of_name(c)).unwrap_or(self.rest.len())],
        };
        self.rest = &self.rest[name.len()..];
        if name.is_empty() {
            return Ok(Part::Text { text: "$".to_owned(), quoted });
        }
        Ok(Part::Variable { name: name.to_owned(), default: None, quoted })
    }
}

/// Adds a character to the text at the end.
fn add(parts: &mut Vec<Part>, character: char, quoted: bool) {
    match parts.last_mut() {
        Some(Part::Text { text, quoted: same }) if *same == quoted => text.push(character),
        _ => parts.push(Part::Text { text: character.to_string(), quoted }),
    }
}

/// Where the parenthesis closes that is open at the start.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at)
    }

    fn bare(&self) -> Option<&'t str> {
        self.peek().and_then(Token::bare)
    }

    fn eat(&mut self, operator: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Operator(next)) if *next == operator);
        self.at += usize::from(is_it);
        is_it
    }

    fn keyword(&mut self, word: &str) -> Result<(), Wrong> {
        match self.peek() {
            None => Err(Wrong::Incomplete),
            Some(token) if token.bare() == Some(word) => {
                self.at += 1;
                Ok(())
            }
            Some(token) => Err(Wrong::Unexpected(token.shown())),
        }
    }

    /// Pipelines up to one of the words, which is left.
    fn list(&mut self, until: &[&str]) -> Result<List, Wrong> {
        let mut items = Vec::new();
        let mut when = When::Always;
        loop {
            while when == When::Always && self.eat(";") {}
            let ends = match self.peek() {
                None => true,
                Some(Token::Operator(")")) => true,
                _ => self.bare().is_some_and(|word| until.contains(&word)),
            };
            if ends {
                if when != When::Always || (self.peek().is_none() && !until.is_empty()) {
                    return Err(Wrong::Incomplete);
                }
                return Ok(List(items));
            }
            let mut item = self.pipeline(when)?;
            when = When::Always;
            if self.eat("&&") {
                when = When::Success;
            } else if self.eat("||") {
                when = When::Failure;
            } else if self.eat("&") {
                item.beside = true;
            } else if !self.eat(";")
                && let Some(token) = self.peek()
                && !matches!(token, Token::Operator(")"))
                && !token.bare().is_some_and(|word| until.contains(&word))
            {
                return Err(Wrong::Unexpected(token.shown()));
            }
            while when != When::Always && self.eat(";") {}
            items.push(item);
        }
    }

    fn pipeline(&mut self, when: When) -> Result<Item, Wrong> {
        let negated = self.bare() == Some("!");
        self.at += usize::from(negated);
        let mut commands = vec![self.command()?];
        while self.eat("|") {
            commands.push(self.command()?);
        }
        Ok(Item { when, negated, commands, beside: false })
    }

    fn command(&mut self) -> Result<Command, Wrong> {
        if self.depth >= DEPTH_MAX {
            return Err(Wrong::Unexpected("too deep".to_owned()));
        }
        self.depth += 1;
        let command = self.command_within();
        self.depth -= 1;
        command
    }

    fn command_within(&mut self) -> Result<Command, Wrong> {
        let what = if self.eat("(") {
            let list = self.list(&[])?;
            if !self.eat(")") {
                return Err(Wrong::Incomplete);
            }
            What::Subshell(list)
        } else {
            match self.bare() {
                Some(word @ ("while" | "until")) => {
                    self.at += 1;
                    let condition = self.list(&["do"])?;
                    What::While { until: word == "until", condition, body: self.body()? }
                }
                Some("for") => self.loop_over()?,
                Some("if") => self.choice()?,
                Some("{") => {
                    self.at += 1;
                    let list = self.list(&["}"])?;
                    self.keyword("}")?;
                    What::Group(list)
                }
                Some(word @ ("do" | "done" | "then" | "else" | "elif" | "fi" | "}")) => {
                    return Err(Wrong::Unexpected(word.to_owned()));
                }
                _ => return self.simple(),
            }
        };
        let mut redirects = Vec::new();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
        }
        Ok(Command { what, redirects })
    }

    /// `do LIST done`.
    fn body(&mut self) -> Result<List, Wrong> {
        self.keyword("do")?;
        let body = self.list(&["done"])?;
        self.keyword("done")?;
        Ok(body)
    }

    fn loop_over(&mut self) -> Result<What, Wrong> {
        self.at += 1;
        let name = self.bare().ok_or(Wrong::Incomplete)?.to_owned();
        self.at += 1;
        let mut words = Vec::new();
        if self.bare() == Some("in") {
            self.at += 1;
            while let Some(Token::Word(word)) = self.peek() {
                words.push(word.clone());
                self.at += 1;
            }
        }
        while self.eat(";") {}
        Ok(What::For { name, words, body: self.body()? })
    }

    fn choice(&mut self) -> Result<What, Wrong> {
        let mut branches = Vec::new();
        loop {
            // `if` or `elif`.
            self.at += 1;
            let condition = self.list(&["then"])?;
            self.keyword("then")?;
            branches.push((condition, self.list(&["elif", "else", "fi"])?));
            match self.bare() {
                Some("elif") => {}
                Some("else") => {
                    self.at += 1;
                    let otherwise = self.list(&["fi"])?;
                    self.keyword("fi")?;
                    return Ok(What::If { branches, otherwise: Some(otherwise) });
                }
                _ => {
                    self.keyword("fi")?;
                    return Ok(What::If { branches, otherwise: None });
                }
            }
        }
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, Wrong> {
        let Some(Token::Redirect(direction)) = self.peek() else { return Ok(None) };
        self.at += 1;
        if let Direction::Same { descriptor, other } = *direction {
            return Ok(Some(Redirect::Same { descriptor, other }));
        }
        let Some(token) = self.peek() else { return Err(Wrong::Unexpected("newline".to_owned())) };
        let Token::Word(file) = token else { return Err(Wrong::Unexpected(token.shown())) };
        self.at += 1;
        let file = file.clone();
        Ok(Some(match *direction {
            Direction::To { descriptor, append } => Redirect::To { descriptor, append, file },
            _ => Redirect::From(file),
        }))
    }

    fn simple(&mut self) -> Result<Command, Wrong> {
        let (mut assignments, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            let Some(Token::Word(word)) = self.peek() else { break };
            self.at += 1;
            match assignment(word).filter(|_| words.is_empty()) {
                Some(assignment) => assignments.push(assignment),
                None => words.push(word.clone()),
            }
        }
        if assignments.is_empty() && words.is_empty() && redirects.is_empty() {
            return Err(match self.peek() {
                Some(token) => Wrong::Unexpected(token.shown()),
                None => Wrong::Incomplete,
            });
        }
        Ok(Command { what: What::Simple { assignments, words }, redirects })
    }
}

/// `NAME=word`.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some((Part::Text { text, quoted: false }, rest)) = word.0.split_first() else {
        return None;
    };
    let (name, value) = text.split_once('=')?;
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| {
        let mut parts = vec![Part::Text { text: value.to_owned(), quoted: true }];
        parts.extend(rest.iter().cloned());
        (name.to_owned(), Word(parts))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_and_what_is_wrong() {
        for script in
            ["while true; do", "if true", "echo 'a", "echo \"a", "a &&", "a |", "$(a", "{ a"]
        {
            assert_eq!(parse(script), Err(Wrong::Incomplete), "{script}");
        }
        for (script, at) in
            [("done", "done"), ("; )", ")"), ("a && && b", "&&"), ("| a", "|"), ("a > ; b", ";")]
        {
            assert_eq!(parse(script), Err(Wrong::Unexpected(at.to_owned())), "{script}");
        }
        for script in [
            "",
            ";",
            "# nothing",
            "a; b &",
            "a\n\nb",
            "for i in 1 2; do echo $i; done",
            "( a ) | b > c 2>&1",
        ] {
            assert!(parse(script).is_ok(), "{script}");
        }
    }

    #[test]
    fn constructs_within_one_another_have_a_bound() {
        assert!(parse(&"( ".repeat(10_000)).is_err());
        assert!(parse(&"$( ".repeat(10_000)).is_err());
        assert!(parse(&"while ".repeat(10_000)).is_err());
        assert!(parse(&"a;".repeat(40_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_script_panics(words in proptest::collection::vec(
            "while|do|done|if|then|fi|for|in|;|&&|\\||\\(|\\)|\\{|\\}|\\$\\(|\\$\\(\\(|\\$\\{|`|'|\"|>|2>&1|\\\\|\\$|é|\\PC{0,4}", 0..20,
        )) {
            let _ = parse(&words.join(" "));
            let _ = parse(&words.concat());
        }
    }
}
