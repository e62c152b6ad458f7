//! Evaluation: an expression and its variables to a value, with the work counted.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Variables;
use crate::functions::{call, method};
use crate::parser::{Each, Expr, Macro, Operator};
use crate::value::{Key, Map, Value};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A name without a variable.
    #[error("undeclared reference to '{0}'")]
    NoVariable(String),
    /// A map without that key.
    #[error("no such key: {0}")]
    NoKey(String),
    /// An operation on values that do not have it.
    #[error("no such overload: {0}")]
    NoOverload(String),
    /// A function that is not known here.
    #[error("unknown function '{0}'")]
    NoFunction(String),
    /// A number beyond its type.
    #[error("integer overflow")]
    Overflow,
    /// A division by 0.
    #[error("division by zero")]
    DivisionByZero,
    /// A place outside a list.
    #[error("index out of bounds: {0}")]
    OutOfBounds(String),
    /// A value that a function cannot make sense of.
    #[error("{0}")]
    Invalid(String),
    /// The work went beyond the limit.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
}

type Evaluated = Result<Value, EvalError>;

/// What evaluation goes along with.
pub(crate) struct Scope<'e> {
    variables: &'e Variables,
    /// Variables of the macros around, innermost last.
    local: Vec<(&'e str, Value)>,
    cost: &'e mut u64,
}

/// Evaluates an expression.
pub(crate) fn evaluate(expr: &Expr, variables: &Variables, cost: &mut u64) -> Evaluated {
    Scope { variables, local: Vec::new(), cost }.value(expr)
}

impl Scope<'_> {
    /// Takes the cost of looking at so much off what is left.
    pub(crate) fn pay(&mut self, cost: usize) -> Result<(), EvalError> {
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        *self.cost = self.cost.checked_sub(cost).ok_or(EvalError::TooCostly)?;
        Ok(())
    }
}

impl<'e> Scope<'e> {
    fn value(&mut self, expr: &'e Expr) -> Evaluated {
        self.pay(1)?;
        match expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Variable(name) => self.variable(name),
            Expr::Member(of, name) => {
                let of = self.value(of)?;
                member(&of, &Value::text(name))
            }
            Expr::Index(of, index) => {
                let of = self.value(of)?;
                let index = self.value(index)?;
                element(&of, &index)
            }
            Expr::Call(of, name, arguments) => {
                let of = of.as_ref().map(|of| self.value(of)).transpose()?;
                let arguments = arguments
                    .iter()
                    .map(|argument| self.value(argument))
                    .collect::<Result<Vec<_>, _>>()?;
                match of {
                    Some(of) => method(&of, name, &arguments, self),
                    None => call(name, &arguments, self),
                }
            }
            Expr::List(items) => {
                let items = items.iter().map(|item| self.value(item));
                Ok(Value::List(items.collect::<Result<_, _>>()?))
            }
            Expr::Map(entries) => self.map(entries),
            Expr::Not(of) => Ok(Value::Bool(!truth(&self.value(of)?, "!")?)),
            Expr::Negative(of) => match self.value(of)? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(EvalError::Overflow),
                Value::Double(value) => Ok(Value::Double(-value)),
                other => Err(no_overload("-", &[&other])),
            },
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.binary(*operator, &left, &right)
            }
            Expr::And(parts) => self.decide(parts, false),
            Expr::Or(parts) => self.decide(parts, true),
            Expr::If(condition, then, otherwise) => {
                if truth(&self.value(condition)?, "?:")? {
                    self.value(then)
                } else {
                    self.value(otherwise)
                }
            }
            Expr::Has(of, name) => match self.value(of)? {
                Value::Map(map) => {
                    Ok(Value::Bool(map.entries.contains_key(&Key::String(name.as_str().into()))))
                }
                other => Err(no_overload("has", &[&other])),
            },
            Expr::Each(each) => self.each(each),
        }
    }

    fn variable(&self, name: &str) -> Evaluated {
        let local = self.local.iter().rev().find(|(known, _)| *known == name);
        match local.map(|(_, value)| value).or_else(|| self.variables.get(name)) {
            Some(value) => Ok(value.clone()),
            None => Err(EvalError::NoVariable(name.to_owned())),
        }
    }

    /// `&&` and `||`: the first part that decides does, whatever errors the others have.
    fn decide(&mut self, parts: &'e [Expr], decides: bool) -> Evaluated {
        let mut failed = None;
        for part in parts {
            let sign = if decides { "||" } else { "&&" };
            match self.value(part).and_then(|value| truth(&value, sign)) {
                Ok(value) if value == decides => return Ok(Value::Bool(decides)),
                Ok(_) => {}
                Err(EvalError::TooCostly) => return Err(EvalError::TooCostly),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn map(&mut self, entries: &'e [(Expr, Expr)]) -> Evaluated {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let key = self.value(key)?;
            let Some(key) = key.key() else { return Err(no_overload("{}", &[&key])) };
            let value = self.value(value)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(EvalError::Invalid(format!(
                    "insert failed: key {} already exists",
                    shown(&key)
                )));
            }
        }
        Ok(Value::Map(Arc::new(Map { entries: map, otherwise: None })))
    }

    fn each(&mut self, each: &'e Each) -> Evaluated {
        let over = self.value(&each.over)?;
        let items: Vec<Value> = match &over {
            Value::List(items) => items.to_vec(),
            Value::Map(map) => map.entries.keys().map(Key::value).collect(),
            other => return Err(no_overload("comprehension", &[other])),
        };
        let mut failed = None;
        let mut matches = 0_usize;
        let mut chosen = Vec::new();
        for item in items {
            self.local.push((&each.variable, item.clone()));
            let condition = each.condition.as_ref().map_or(Ok(true), |condition| {
                self.value(condition).and_then(|value| truth(&value, "comprehension"))
            });
            let transformed = match (&condition, &each.transform) {
                (Ok(true), Some(transform)) => Some(self.value(transform)),
                _ => None,
            };
            self.local.pop();
            match condition {
                Ok(false) if each.which == Macro::All => return Ok(Value::Bool(false)),
                Ok(true) if each.which == Macro::Exists => return Ok(Value::Bool(true)),
                Ok(true) => {
                    matches += 1;
                    match each.which {
                        Macro::Filter => chosen.push(item),
                        Macro::Map => chosen.extend(transformed.transpose()?),
                        _ => {}
                    }
                }
                Ok(false) => {}
                // Another element may decide all the same.
                Err(error)
                    if error != EvalError::TooCostly
                        && matches!(each.which, Macro::All | Macro::Exists) =>
                {
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(match each.which {
            Macro::All => Value::Bool(true),
            Macro::Exists => Value::Bool(false),
            Macro::ExistsOne => Value::Bool(matches == 1),
            Macro::Filter | Macro::Map => Value::List(chosen.into()),
        })
    }

    fn binary(&mut self, operator: Operator, left: &Value, right: &Value) -> Evaluated {
        self.pay(size(left).min(size(right)) / 8)?;
        let sign = sign(operator);
        let ordered = |wanted: fn(Ordering) -> bool| match left.compare(right) {
            Some(ordering) => Ok(Value::Bool(wanted(ordering))),
            // Not a number is neither less nor greater than any.
            None if matches!((left, right), (Value::Double(_), _) | (_, Value::Double(_)))
                && is_number(left)
                && is_number(right) =>
            {
                Ok(Value::Bool(false))
            }
            None => Err(no_overload(sign, &[left, right])),
        };
        match operator {
            Operator::Equal => Ok(Value::Bool(left.equals(right))),
            Operator::NotEqual => Ok(Value::Bool(!left.equals(right))),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::In => self.contains(left, right),
            _ => self.arithmetic(operator, left, right),
        }
    }

    fn contains(&mut self, item: &Value, of: &Value) -> Evaluated {
        match of {
            Value::List(items) => {
                for candidate in items.iter() {
                    self.pay(1 + size(candidate).min(size(item)) / 8)?;
                    if candidate.equals(item) {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            Value::Map(map) => {
                let key = item.key();
                Ok(Value::Bool(key.is_some_and(|key| map.entries.contains_key(&key))))
            }
            other => Err(no_overload("in", &[item, other])),
        }
    }

    fn arithmetic(&mut self, operator: Operator, left: &Value, right: &Value) -> Evaluated {
        let divides = matches!(operator, Operator::Divide | Operator::Remainder);
        match (left, right) {
            (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) if divides => {
                Err(EvalError::DivisionByZero)
            }
            (Value::Int(left), Value::Int(right)) => {
                let result = match operator {
                    Operator::Add => left.checked_add(*right),
                    Operator::Subtract => left.checked_sub(*right),
                    Operator::Multiply => left.checked_mul(*right),
                    Operator::Divide => left.checked_div(*right),
                    _ => left.checked_rem(*right),
                };
                result.map(Value::Int).ok_or(EvalError::Overflow)
            }
            (Value::Uint(left), Value::Uint(right)) => {
                let result = match operator {
                    Operator::Add => left.checked_add(*right),
                    Operator::Subtract => left.checked_sub(*right),
                    Operator::Multiply => left.checked_mul(*right),
                    Operator::Divide => left.checked_div(*right),
                    _ => left.checked_rem(*right),
                };
                result.map(Value::Uint).ok_or(EvalError::Overflow)
            }
            (Value::Double(left), Value::Double(right)) => match operator {
                Operator::Add => Ok(Value::Double(left + right)),
                Operator::Subtract => Ok(Value::Double(left - right)),
                Operator::Multiply => Ok(Value::Double(left * right)),
                Operator::Divide => Ok(Value::Double(left / right)),
                _ => Err(EvalError::NoOverload("double % double".to_owned())),
            },
            (Value::String(left), Value::String(right)) if operator == Operator::Add => {
                self.pay((left.len() + right.len()) / 8)?;
                Ok(Value::text(format!("{left}{right}")))
            }
            (Value::List(left), Value::List(right)) if operator == Operator::Add => {
                self.pay(left.len() + right.len())?;
                Ok(Value::List(left.iter().chain(right.iter()).cloned().collect()))
            }
            _ => Err(no_overload(sign(operator), &[left, right])),
        }
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

/// How much there is to look at in a value.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::List(items) => 8 * items.len(),
        Value::Map(map) => 8 * map.entries.len(),
        _ => 8,
    }
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Equal => "==",
        Operator::NotEqual => "!=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        Operator::In => "in",
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::Remainder => "%",
    }
}

/// The error of an operation that these values do not have.
pub(crate) fn no_overload(operation: &str, values: &[&Value]) -> EvalError {
    let types: Vec<_> = values.iter().map(|value| value.type_name()).collect();
    EvalError::NoOverload(format!("{operation}({})", types.join(", ")))
}

fn truth(value: &Value, operation: &str) -> Result<bool, EvalError> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => Err(no_overload(operation, &[other])),
    }
}

fn member(of: &Value, name: &Value) -> Evaluated {
    match of {
        Value::Map(_) => element(of, name),
        other => Err(no_overload("member access", &[other])),
    }
}

fn element(of: &Value, index: &Value) -> Evaluated {
    match of {
        Value::Map(map) => {
            let Some(key) = index.key() else { return Err(no_overload("[]", &[of, index])) };
            let found = map.entries.get(&key).or(map.otherwise.as_ref());
            found.cloned().ok_or_else(|| EvalError::NoKey(shown(&key)))
        }
        Value::List(items) => {
            let Some(Key::Int(place)) = index.key() else {
                return Err(no_overload("[]", &[of, index]));
            };
            let found = usize::try_from(place).ok().and_then(|place| items.get(place));
            found.cloned().ok_or_else(|| EvalError::OutOfBounds(place.to_string()))
        }
        other => Err(no_overload("[]", &[other, index])),
    }
}

fn shown(key: &Key) -> String {
    match key {
        Key::Bool(key) => key.to_string(),
        Key::Int(key) => key.to_string(),
        Key::String(key) => key.to_string(),
    }
}
