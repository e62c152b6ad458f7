//! The textual form of label selectors: `a=b,a==b,a!=b,a in (x,y),a notin (x),a,!a,a>1,a<1`.

use super::{Operator, Requirement, SelectorError, aggregate};
use crate::names;

/// The operators a requirement with values may have, as the error text lists them.
const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let tokens = scan(text);
    Parser { tokens: &tokens, position: 0 }.parse()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    kind: Kind,
    text: &'t str,
}

impl Token<'_> {
    /// Whether this can be a key or a value; `in` and `notin` can.
    fn is_identifier(&self) -> bool {
        matches!(self.kind, Kind::Identifier | Kind::In | Kind::NotIn)
    }
}

/// Cuts the text into tokens; the last is always [`Kind::End`]. As upstream, a NUL ends the text.
fn scan(text: &str) -> Vec<Token<'_>> {
    let mut rest = text.split('\0').next().unwrap_or("");
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        let (kind, len) = next_token(rest);
        let (text, after) = rest.split_at(len);
        tokens.push(Token { kind, text });
        if kind == Kind::End {
            return tokens;
        }
        rest = after;
    }
}

fn next_token(rest: &str) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    match (bytes.first(), bytes.get(1)) {
        (None, _) => (Kind::End, 0),
        (Some(b'='), Some(b'=')) => (Kind::DoubleEquals, 2),
        (Some(b'!'), Some(b'=')) => (Kind::NotEquals, 2),
        (Some(b'='), _) => (Kind::Equals, 1),
        (Some(b'!'), _) => (Kind::Not, 1),
        (Some(b'('), _) => (Kind::Open, 1),
        (Some(b')'), _) => (Kind::Close, 1),
        (Some(b','), _) => (Kind::Comma, 1),
        (Some(b'>'), _) => (Kind::Greater, 1),
        (Some(b'<'), _) => (Kind::Less, 1),
        _ => {
            let end = |c: char| is_space(c) || "=!(),><".contains(c);
            let len = rest.find(end).unwrap_or(rest.len());
            let kind = match &rest[..len] {
                "in" => Kind::In,
                "notin" => Kind::NotIn,
                _ => Kind::Identifier,
            };
            (kind, len)
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Parser<'p, 't> {
    tokens: &'p [Token<'t>],
    position: usize,
}

impl<'t> Parser<'_, 't> {
    fn peek(&self) -> Token<'t> {
        // The last token is the end, and stays the next one however often it is taken.
        self.tokens[self.position.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        let first = self.peek();
        if first.kind == Kind::End {
            return Ok(requirements);
        }
        if !first.is_identifier() && first.kind != Kind::Not {
            return Err(expected(first, "!, identifier, or 'end of string'"));
        }
        loop {
            let requirement = self.requirement().map_err(|error| {
                SelectorError::Requirement(match error {
                    SelectorError::Requirement(text)
                    | SelectorError::Syntax(text)
                    | SelectorError::Invalid(text)
                    | SelectorError::Operator(text) => text,
                })
            })?;
            requirements.push(requirement);
            let token = self.take();
            match token.kind {
                Kind::End => return Ok(requirements),
                Kind::Comma => {
                    let next = self.peek();
                    if !next.is_identifier() && next.kind != Kind::Not {
                        return Err(expected(next, "identifier after ','"));
                    }
                }
                _ => return Err(expected(token, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.take();
        let negated = token.kind == Kind::Not;
        if negated {
            token = self.take();
        }
        if !token.is_identifier() {
            return Err(expected(token, "identifier"));
        }
        let key = token.text;
        let errors = names::qualified_name(key);
        if !errors.is_empty() {
            // The API server has no field path here and prints that it is nil.
            return Err(SelectorError::Invalid(aggregate(&[format!(
                "<nil>: Invalid value: {key:?}: {}",
                errors.join("; ")
            )])));
        }
        const NO_VALUES: [&str; 0] = [];
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, NO_VALUES);
        }
        if matches!(self.peek().kind, Kind::End | Kind::Comma) {
            return Requirement::new(key, Operator::Exists, NO_VALUES);
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let token = self.take();
        Ok(match token.kind {
            Kind::In => Operator::In,
            Kind::NotIn => Operator::NotIn,
            Kind::Equals => Operator::Equals,
            Kind::DoubleEquals => Operator::DoubleEquals,
            Kind::NotEquals => Operator::NotEquals,
            Kind::Greater => Operator::GreaterThan,
            Kind::Less => Operator::LessThan,
            _ => return Err(expected(token, BINARY_OPERATORS)),
        })
    }

    /// The values of `in` and `notin`, parentheses included. An empty place between commas or
    /// parentheses is the empty value.
    fn values(&mut self) -> Result<Vec<&'t str>, SelectorError> {
        let open = self.take();
        if open.kind != Kind::Open {
            // Upstream leaves the comma out in this one.
            return Err(SelectorError::Syntax(format!("found '{}' expected: '('", open.text)));
        }
        let first = self.peek();
        if first.kind == Kind::Close {
            self.take();
            return Ok(vec![""]);
        }
        if !first.is_identifier() && first.kind != Kind::Comma {
            return Err(expected(first, "',', ')' or identifier"));
        }
        let mut values = Vec::new();
        loop {
            let token = self.take();
            let next = self.peek();
            if token.is_identifier() {
                values.push(token.text);
                match next.kind {
                    Kind::Comma => {}
                    Kind::Close => break,
                    _ => return Err(expected(next, "',' or ')'")),
                }
            } else if token.kind == Kind::Comma {
                if values.is_empty() {
                    values.push("");
                }
                if next.kind == Kind::Close {
                    values.push("");
                    break;
                }
                if next.kind == Kind::Comma {
                    self.take();
                    values.push("");
                }
            } else {
                return Err(expected(token, "',', or identifier"));
            }
        }
        // The loop ends only in front of the closing parenthesis.
        self.take();
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<&'t str, SelectorError> {
        if matches!(self.peek().kind, Kind::End | Kind::Comma) {
            return Ok("");
        }
        let token = self.take();
        if token.is_identifier() { Ok(token.text) } else { Err(expected(token, "identifier")) }
    }
}

fn expected(found: Token<'_>, expected: &str) -> SelectorError {
    SelectorError::Syntax(format!("found '{}', expected: {expected}", found.text))
}
