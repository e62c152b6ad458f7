//! Tokens to expressions.

use crate::LENGTH_MAX;
use crate::lexer::{Kind, Token, tokens};
use crate::value::Value;

/// How deep an expression may be: each operator, bracket or member access is a level. Evaluating
/// and dropping one takes a frame of the stack per level.
const DEPTH_MAX: usize = 200;
/// How deep brackets and conditions may nest: parsing takes several frames per level.
const NESTING_MAX: usize = 40;

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct ParseError {
    /// Where, in bytes.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

/// An expression.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Literal(Value),
    Variable(String),
    Member(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    /// A function, or a method of a value.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `has(value.name)`.
    Has(Box<Expr>, String),
    Each(Box<Each>),
}

/// A macro that binds a variable to each element of a list, or key of a map.
#[derive(Clone, Debug)]
pub(crate) struct Each {
    pub(crate) which: Macro,
    pub(crate) over: Expr,
    pub(crate) variable: String,
    /// The condition; for `map` with three arguments, which elements to take.
    pub(crate) condition: Option<Expr>,
    /// What `map` makes of an element.
    pub(crate) transform: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Binary operators by how tightly they bind, loosest first.
const LEVELS: [&[(&str, Operator)]; 3] = [
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("in", Operator::In),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)],
];

/// Words that cannot be names of variables.
const RESERVED: [&str; 19] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "true",
    "var",
    "void",
];

/// Parses a text.
pub(crate) fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > LENGTH_MAX {
        let what = format!("the expression is longer than {LENGTH_MAX} bytes");
        return Err(ParseError { at: LENGTH_MAX, what });
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, nesting: 0 };
    let parsed = parser.expression()?;
    if *parser.peek() != Kind::End {
        return parser.fail("an operator or the end was expected");
    }
    Ok(parsed.expr)
}

/// An expression and how deep it is.
struct Deep {
    expr: Expr,
    depth: usize,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
}

type Parsed = Result<Deep, ParseError>;

impl Parser {
    fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn advance(&mut self) {
        // The last token is the end, and nothing goes past it.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn fail<T>(&self, what: &str) -> Result<T, ParseError> {
        Err(ParseError { at: self.tokens[self.at].at, what: what.to_owned() })
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = match self.peek() {
            Kind::Sign(found) => *found == sign,
            Kind::Identifier(word) => sign == "in" && word == "in",
            _ => false,
        };
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.takes(sign) { Ok(()) } else { self.fail(&format!("{sign:?} was expected")) }
    }

    /// Makes a level of what has these parts.
    fn level(&self, depths: impl IntoIterator<Item = usize>, expr: Expr) -> Parsed {
        let depth = 1 + depths.into_iter().max().unwrap_or(0);
        if depth > DEPTH_MAX {
            return self.fail(&format!("the expression is deeper than {DEPTH_MAX} levels"));
        }
        Ok(Deep { expr, depth })
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return self.fail(&format!("brackets nest deeper than {NESTING_MAX} levels"));
        }
        let condition = self.any_of("||", Expr::Or, |parser| {
            parser.any_of("&&", Expr::And, |parser| parser.binary(0))
        })?;
        let parsed = if self.takes("?") {
            let then = self.expression()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            let depths = [condition.depth, then.depth, otherwise.depth];
            let parts = [condition, then, otherwise].map(|part| Box::new(part.expr));
            let [condition, then, otherwise] = parts;
            self.level(depths, Expr::If(condition, then, otherwise))
        } else {
            Ok(condition)
        };
        self.nesting -= 1;
        parsed
    }

    /// Parts joined by `&&` or `||`. A long row of them is one level.
    fn any_of(
        &mut self,
        sign: &str,
        join: fn(Vec<Expr>) -> Expr,
        part: impl Fn(&mut Self) -> Parsed,
    ) -> Parsed {
        let first = part(self)?;
        if !matches!(self.peek(), Kind::Sign(found) if *found == sign) {
            return Ok(first);
        }
        let mut depth = first.depth;
        let mut parts = vec![first.expr];
        while self.takes(sign) {
            let next = part(self)?;
            depth = depth.max(next.depth);
            parts.push(next.expr);
        }
        self.level([depth], join(parts))
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let found = operators.iter().find(|(sign, _)| self.takes(sign));
            let Some((_, operator)) = found else { return Ok(left) };
            let right = self.binary(level + 1)?;
            let depths = [left.depth, right.depth];
            let expr = Expr::Binary(*operator, Box::new(left.expr), Box::new(right.expr));
            left = self.level(depths, expr)?;
        }
    }

    fn unary(&mut self) -> Parsed {
        if self.takes("!") {
            let negated = self.repeated("!")?;
            return match negated {
                (parsed, true) => self.level([parsed.depth], Expr::Not(Box::new(parsed.expr))),
                // An even number of them still asks for a truth value.
                (parsed, false) => {
                    let once = self.level([parsed.depth], Expr::Not(Box::new(parsed.expr)))?;
                    self.level([once.depth], Expr::Not(Box::new(once.expr)))
                }
            };
        }
        if self.takes("-") {
            // The lowest integer has no positive counterpart: its sign belongs to it.
            if *self.peek() == Kind::Int(1 << 63) {
                self.advance();
                let lowest = Deep { expr: Expr::Literal(Value::Int(i64::MIN)), depth: 1 };
                return self.members(lowest);
            }
            return match self.repeated("-")? {
                (parsed, true) => self.level([parsed.depth], Expr::Negative(Box::new(parsed.expr))),
                (parsed, false) => Ok(parsed),
            };
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    /// What follows a row of the same sign, and whether their number is odd.
    fn repeated(&mut self, sign: &str) -> Result<(Deep, bool), ParseError> {
        let mut odd = true;
        while self.takes(sign) {
            odd = !odd;
        }
        let primary = self.primary()?;
        Ok((self.members(primary)?, odd))
    }

    fn members(&mut self, mut value: Deep) -> Parsed {
        loop {
            if self.takes(".") {
                let name = self.name()?;
                value = if self.takes("(") {
                    self.method(value, name)?
                } else {
                    let depth = value.depth;
                    self.level([depth], Expr::Member(Box::new(value.expr), name))?
                };
            } else if self.takes("[") {
                let index = self.expression()?;
                self.expect("]")?;
                let depths = [value.depth, index.depth];
                let expr = Expr::Index(Box::new(value.expr), Box::new(index.expr));
                value = self.level(depths, expr)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn name(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Kind::Identifier(name) => {
                let name = name.clone();
                self.advance();
                Ok(name)
            }
            _ => self.fail("a name was expected"),
        }
    }

    fn primary(&mut self) -> Parsed {
        let kind = self.peek().clone();
        let literal = match kind {
            Kind::Int(value) => match i64::try_from(value) {
                Ok(value) => Value::Int(value),
                Err(_) => return self.fail("a number that does not fit 64 bits with a sign"),
            },
            Kind::Uint(value) => Value::Uint(value),
            Kind::Double(value) => Value::Double(value),
            Kind::String(value) => Value::text(value),
            Kind::Identifier(name) => return self.identifier(name),
            Kind::Sign("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Kind::Sign("[") => {
                self.advance();
                let (items, depths) = self.list("]")?;
                return self.level(depths, Expr::List(items));
            }
            Kind::Sign("{") => return self.map(),
            Kind::End => return self.fail("the expression ends too soon"),
            Kind::Sign(_) => return self.fail("a value was expected"),
        };
        self.advance();
        self.level([], Expr::Literal(literal))
    }

    fn identifier(&mut self, name: String) -> Parsed {
        let literal = match name.as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            word if RESERVED.contains(&word) => {
                return self.fail(&format!("{word:?} is a reserved word"));
            }
            _ => None,
        };
        self.advance();
        if let Some(literal) = literal {
            return self.level([], Expr::Literal(literal));
        }
        if !self.takes("(") {
            return self.level([], Expr::Variable(name));
        }
        let (mut arguments, depths) = self.list(")")?;
        if name != "has" {
            return self.level(depths, Expr::Call(None, name, arguments));
        }
        match (arguments.pop(), arguments.is_empty()) {
            (Some(Expr::Member(of, member)), true) => self.level(depths, Expr::Has(of, member)),
            _ => self.fail("has() takes one member access, such as has(a.b)"),
        }
    }

    /// Expressions with commas between, up to a closing bracket; and how deep they are.
    fn list(&mut self, end: &str) -> Result<(Vec<Expr>, Vec<usize>), ParseError> {
        let (mut items, mut depths) = (Vec::new(), Vec::new());
        while !self.takes(end) {
            let item = self.expression()?;
            items.push(item.expr);
            depths.push(item.depth);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok((items, depths))
    }

    fn map(&mut self) -> Parsed {
        self.advance();
        let (mut entries, mut depths) = (Vec::new(), Vec::new());
        while !self.takes("}") {
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            depths.extend([key.depth, value.depth]);
            entries.push((key.expr, value.expr));
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        self.level(depths, Expr::Map(entries))
    }

    /// A method call, or a macro that looks like one.
    fn method(&mut self, of: Deep, name: String) -> Parsed {
        let (arguments, mut depths) = self.list(")")?;
        depths.push(of.depth);
        let which = match (name.as_str(), arguments.len()) {
            ("all", 2) => Macro::All,
            ("exists", 2) => Macro::Exists,
            ("exists_one" | "existsOne", 2) => Macro::ExistsOne,
            ("filter", 2) => Macro::Filter,
            ("map", 2 | 3) => Macro::Map,
            _ => {
                let expr = Expr::Call(Some(Box::new(of.expr)), name, arguments);
                return self.level(depths, expr);
            }
        };
        let mut arguments = arguments.into_iter();
        let Some(Expr::Variable(variable)) = arguments.next() else {
            return self.fail(&format!("the first argument of {name}() is to be a name"));
        };
        let last = arguments.next_back();
        let (condition, transform) =
            if which == Macro::Map { (arguments.next(), last) } else { (last, None) };
        let each = Each { which, over: of.expr, variable, condition, transform };
        self.level(depths, Expr::Each(Box::new(each)))
    }
}
