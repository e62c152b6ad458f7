//! Text to tokens.

use crate::parser::ParseError;

/// A token with where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Identifier(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    String(String),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

/// Longer signs first: the first that fits is taken.
const SIGNS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", "+", "-", "*", "/", "%", ".", ",",
    "(", ")", "[", "]", "{", "}", "=",
];

/// Cuts a text into tokens; the last one is [`Kind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
        at += rest.len() - trimmed.len();
        if let Some(comment) = trimmed.strip_prefix("//") {
            at += 2 + comment.find('\n').unwrap_or(comment.len());
            continue;
        }
        let (kind, length) = next(trimmed).map_err(|what| ParseError { at, what })?;
        let end = kind == Kind::End;
        tokens.push(Token { at, kind });
        if end {
            return Ok(tokens);
        }
        at += length;
    }
}

fn next(text: &str) -> Result<(Kind, usize), String> {
    let Some(first) = text.chars().next() else { return Ok((Kind::End, 0)) };
    let raw = text.strip_prefix(['r', 'R']).filter(|rest| rest.starts_with(['"', '\'']));
    if let Some(rest) = raw {
        let (string, length) = string(rest, true)?;
        return Ok((Kind::String(string), length + 1));
    }
    if matches!(first, '"' | '\'') {
        let (string, length) = string(text, false)?;
        return Ok((Kind::String(string), length));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = text.find(|c| !word(c)).unwrap_or(text.len());
        return Ok((Kind::Identifier(text[..length].to_owned()), length));
    }
    let fraction = first == '.' && text[1..].starts_with(|c: char| c.is_ascii_digit());
    if first.is_ascii_digit() || fraction {
        return number(text);
    }
    match SIGNS.into_iter().find(|sign| text.starts_with(sign)) {
        Some(sign) => Ok((Kind::Sign(sign), sign.len())),
        None => Err(format!("unexpected {first:?}")),
    }
}

fn number(text: &str) -> Result<(Kind, usize), String> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = u64::from_str_radix(&hex[..length], 16)
            .map_err(|_| "not a hexadecimal number that fits 64 bits".to_owned())?;
        return Ok(whole(value, length + 2, text));
    }
    let mut length = digits(text);
    let mut double = false;
    if text[length..].starts_with('.') {
        let fraction = digits(&text[length + 1..]);
        if fraction > 0 {
            double = true;
            length += 1 + fraction;
        }
    }
    if text[length..].starts_with(['e', 'E']) {
        let rest = &text[length + 1..];
        let sign = usize::from(rest.starts_with(['+', '-']));
        let exponent = digits(&rest[sign..]);
        if exponent == 0 {
            return Err("an exponent without digits".to_owned());
        }
        double = true;
        length += 1 + sign + exponent;
    }
    if double {
        let value = text[..length].parse().map_err(|_| "not a number".to_owned())?;
        return Ok((Kind::Double(value), length));
    }
    let value =
        text[..length].parse().map_err(|_| "a number that does not fit 64 bits".to_owned())?;
    Ok(whole(value, length, text))
}

fn whole(value: u64, length: usize, text: &str) -> (Kind, usize) {
    if text[length..].starts_with(['u', 'U']) {
        (Kind::Uint(value), length + 1)
    } else {
        (Kind::Int(value), length)
    }
}

/// A quoted text and how long it is with its quotes.
fn string(text: &str, raw: bool) -> Result<(String, usize), String> {
    let open = || "a text without end".to_owned();
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let (end, multiline) =
        if text.starts_with(&triple) { (triple.as_str(), true) } else { (quote, false) };
    let mut value = String::new();
    let mut at = end.len();
    loop {
        let rest = &text[at..];
        if rest.starts_with(end) {
            return Ok((value, at + end.len()));
        }
        let c = rest.chars().next().ok_or_else(open)?;
        if c == '\n' && !multiline {
            return Err(open());
        }
        if c == '\\' && !raw {
            let (c, length) = escape(&rest[1..])?;
            value.push(c);
            at += 1 + length;
        } else {
            value.push(c);
            at += c.len_utf8();
        }
    }
}

/// The character of an escape after its backslash, and how long that is.
fn escape(text: &str) -> Result<(char, usize), String> {
    let unknown = || "an unknown escape in a text".to_owned();
    let c = text.chars().next().ok_or_else(unknown)?;
    let plain = match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '\\' | '"' | '\'' | '`' | '?' => c,
        'x' | 'X' | 'u' | 'U' | '0'..='3' => {
            let (skip, length, radix) = match c {
                'x' | 'X' => (1, 2, 16),
                'u' => (1, 4, 16),
                'U' => (1, 8, 16),
                _ => (0, 3, 8),
            };
            let digits = text.get(skip..skip + length).ok_or_else(unknown)?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(unknown());
            }
            let code = u32::from_str_radix(digits, radix).map_err(|_| unknown())?;
            return Ok((char::from_u32(code).ok_or_else(unknown)?, skip + length));
        }
        _ => return Err(unknown()),
    };
    Ok((plain, 1))
}
