//! Functions and methods: CEL's own, and Kubernetes' for texts, lists, quantities and versions
//! (<https://kubernetes.io/docs/reference/using-api/cel/>).

use std::cmp::Ordering;

use regex::RegexBuilder;
use wharf_model::quantity::Quantity;

use crate::eval::{EvalError, Scope, no_overload, size};
use crate::value::Value;
use crate::version::Version;

/// The memory that a compiled pattern may take up.
const PATTERN_BYTES_MAX: usize = 1 << 18;

type Evaluated = Result<Value, EvalError>;

/// A function.
pub(crate) fn call(name: &str, arguments: &[Value], scope: &mut Scope<'_>) -> Evaluated {
    let known = || no_overload(name, &arguments.iter().collect::<Vec<_>>());
    match (name, arguments) {
        ("size", [of]) => length(of, scope),
        ("type", _) => Err(EvalError::NoFunction(name.to_owned())),
        ("int", [value]) => to_int(value).ok_or_else(known)?,
        ("uint", [value]) => to_uint(value).ok_or_else(known)?,
        ("double", [value]) => to_double(value).ok_or_else(known)?,
        ("string", [value]) => to_string(value).ok_or_else(known),
        ("bool", [Value::Bool(value)]) => Ok(Value::Bool(*value)),
        ("dyn", [value]) => Ok(value.clone()),
        ("quantity", [Value::String(text)]) => match Quantity::parse(text) {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(error) => Err(EvalError::Invalid(error.to_string())),
        },
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        ("semver", [Value::String(text)]) => match text.parse() {
            Ok(version) => Ok(Value::Version(version)),
            Err(error) => Err(EvalError::Invalid(format!("{text:?} is {error}"))),
        },
        ("isSemver", [Value::String(text)]) => Ok(Value::Bool(text.parse::<Version>().is_ok())),
        (
            "size" | "int" | "uint" | "double" | "string" | "bool" | "dyn" | "quantity"
            | "isQuantity" | "semver" | "isSemver",
            _,
        ) => Err(known()),
        _ => Err(EvalError::NoFunction(name.to_owned())),
    }
}

/// A method of a value.
pub(crate) fn method(
    of: &Value,
    name: &str,
    arguments: &[Value],
    scope: &mut Scope<'_>,
) -> Evaluated {
    scope.pay(size(of) / 8)?;
    let found = match of {
        Value::String(text) => text_method(text, name, arguments, scope)?,
        Value::List(items) => list_method(items, name, arguments, scope)?,
        Value::Map(_) if name == "size" && arguments.is_empty() => Some(length(of, scope)?),
        Value::Quantity(quantity) => quantity_method(quantity, name, arguments)?,
        Value::Version(version) => version_method(version, name, arguments),
        _ => None,
    };
    found.ok_or_else(|| {
        let values: Vec<_> = std::iter::once(of).chain(arguments).collect();
        no_overload(name, &values)
    })
}

fn length(of: &Value, scope: &mut Scope<'_>) -> Evaluated {
    scope.pay(size(of) / 8)?;
    let length = match of {
        Value::String(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.entries.len(),
        other => return Err(no_overload("size", &[other])),
    };
    Ok(whole(length))
}

fn whole(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

fn to_int(value: &Value) -> Option<Evaluated> {
    let number = match value {
        Value::Int(value) => Some(*value),
        Value::Uint(value) => i64::try_from(*value).ok(),
        Value::Double(value) => {
            in_range(*value, -(2_f64.powi(63)), 2_f64.powi(63)).then(|| value.trunc() as i64)
        }
        Value::String(text) => {
            let number =
                text.parse().map_err(|_| EvalError::Invalid(format!("{text:?} is not an int")));
            return Some(number.map(Value::Int));
        }
        _ => return None,
    };
    Some(number.map(Value::Int).ok_or(EvalError::Overflow))
}

fn to_uint(value: &Value) -> Option<Evaluated> {
    let number = match value {
        Value::Int(value) => u64::try_from(*value).ok(),
        Value::Uint(value) => Some(*value),
        Value::Double(value) => {
            in_range(*value, -1.0, 2_f64.powi(64)).then(|| value.trunc() as u64)
        }
        Value::String(text) => {
            let number =
                text.parse().map_err(|_| EvalError::Invalid(format!("{text:?} is not a uint")));
            return Some(number.map(Value::Uint));
        }
        _ => return None,
    };
    Some(number.map(Value::Uint).ok_or(EvalError::Overflow))
}

/// Whether a number is between two others, neither of them included.
fn in_range(value: f64, low: f64, high: f64) -> bool {
    value > low && value < high
}

fn to_double(value: &Value) -> Option<Evaluated> {
    Some(Ok(Value::Double(match value {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::Double(value) => *value,
        Value::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return Some(Err(EvalError::Invalid(format!("{text:?} is not a double")))),
        },
        _ => return None,
    })))
}

fn to_string(value: &Value) -> Option<Value> {
    Some(match value {
        Value::String(_) => value.clone(),
        Value::Bool(value) => Value::text(value.to_string()),
        Value::Int(value) => Value::text(value.to_string()),
        Value::Uint(value) => Value::text(value.to_string()),
        Value::Double(value) => Value::text(value.to_string()),
        Value::Version(value) => Value::text(value.to_string()),
        Value::Quantity(value) => Value::text(value.to_string()),
        _ => return None,
    })
}

fn text_method(
    text: &str,
    name: &str,
    arguments: &[Value],
    scope: &mut Scope<'_>,
) -> Result<Option<Value>, EvalError> {
    Ok(Some(match (name, arguments) {
        ("size", []) => whole(text.chars().count()),
        ("startsWith", [Value::String(start)]) => Value::Bool(text.starts_with(&**start)),
        ("endsWith", [Value::String(end)]) => Value::Bool(text.ends_with(&**end)),
        ("contains", [Value::String(part)]) => {
            scope.pay(part.len() / 8)?;
            Value::Bool(text.contains(&**part))
        }
        ("matches", [Value::String(pattern)]) => Value::Bool(matches(text, pattern, scope)?),
        ("lowerAscii", []) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", []) => Value::text(text.to_ascii_uppercase()),
        ("trim", []) => Value::text(text.trim()),
        ("indexOf", [Value::String(part)]) => {
            text.find(&**part).map_or(Value::Int(-1), |at| whole(text[..at].chars().count()))
        }
        ("split", [Value::String(separator)]) => {
            scope.pay(text.len())?;
            let parts: Vec<_> = if separator.is_empty() {
                text.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                text.split(&**separator).map(Value::text).collect()
            };
            Value::List(parts.into())
        }
        ("replace", [Value::String(from), Value::String(to)]) => {
            // In the worst case there is one more of the new text than there are characters.
            scope.pay((text.len() + 1).saturating_mul(to.len() + 1) / 8)?;
            Value::text(text.replace(&**from, to))
        }
        ("substring", [Value::Int(from)]) => substring(text, *from, None)?,
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to))?,
        _ => return Ok(None),
    }))
}

fn matches(text: &str, pattern: &str, scope: &mut Scope<'_>) -> Result<bool, EvalError> {
    // Patterns are linear in the text; compiling one costs some hundred steps and more.
    scope.pay(100 + pattern.len() * (1 + text.len() / 8))?;
    let pattern = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    match pattern {
        Ok(pattern) => Ok(pattern.is_match(text)),
        Err(error) => Err(EvalError::Invalid(format!("pattern: {error}"))),
    }
}

fn substring(text: &str, from: i64, to: Option<i64>) -> Evaluated {
    let count = text.chars().count();
    let to = to.map_or(Ok(count), usize::try_from);
    match (usize::try_from(from), to) {
        (Ok(from), Ok(to)) if from <= to && to <= count => {
            Ok(Value::text(text.chars().skip(from).take(to - from).collect::<String>()))
        }
        _ => Err(EvalError::OutOfBounds(from.to_string())),
    }
}

fn list_method(
    items: &[Value],
    name: &str,
    arguments: &[Value],
    scope: &mut Scope<'_>,
) -> Result<Option<Value>, EvalError> {
    let extreme = |wanted: Ordering| -> Evaluated {
        let Some((first, rest)) = items.split_first() else {
            return Err(EvalError::Invalid(format!("{name} called on empty list")));
        };
        let mut extreme = first;
        for item in rest {
            match item.compare(extreme) {
                Some(ordering) if ordering == wanted => extreme = item,
                Some(_) => {}
                None => return Err(no_overload(name, &[extreme, item])),
            }
        }
        Ok(extreme.clone())
    };
    Ok(Some(match (name, arguments) {
        ("size", []) => whole(items.len()),
        ("min", []) => extreme(Ordering::Less)?,
        ("max", []) => extreme(Ordering::Greater)?,
        ("isSorted", []) => Value::Bool(items.windows(2).all(|pair| {
            matches!(pair[0].compare(&pair[1]), Some(Ordering::Less | Ordering::Equal))
        })),
        ("indexOf", [item]) => {
            scope.pay(items.len())?;
            items.iter().position(|known| known.equals(item)).map_or(Value::Int(-1), whole)
        }
        ("sum", []) => {
            let mut sum = Value::Int(0);
            for (index, item) in items.iter().enumerate() {
                sum = match (&sum, item) {
                    (_, Value::Int(_) | Value::Uint(_) | Value::Double(_)) if index == 0 => {
                        item.clone()
                    }
                    (Value::Int(sum), Value::Int(item)) => {
                        Value::Int(sum.checked_add(*item).ok_or(EvalError::Overflow)?)
                    }
                    (Value::Uint(sum), Value::Uint(item)) => {
                        Value::Uint(sum.checked_add(*item).ok_or(EvalError::Overflow)?)
                    }
                    (Value::Double(sum), Value::Double(item)) => Value::Double(sum + item),
                    (sum, item) => return Err(no_overload("sum", &[sum, item])),
                };
            }
            sum
        }
        _ => return Ok(None),
    }))
}

fn quantity_method(
    of: &Quantity,
    name: &str,
    arguments: &[Value],
) -> Result<Option<Value>, EvalError> {
    let whole_units = || {
        let units = of.value_ceil();
        let exact = Quantity::from_units(units, of.format()) == *of;
        exact.then_some(units)
    };
    // An integer counts as that many units.
    let other = match arguments {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(units)] if matches!(name, "add" | "sub") => {
            Some(Quantity::from_units(*units, of.format()))
        }
        _ => None,
    };
    Ok(Some(match (name, arguments, other) {
        ("compareTo", _, Some(other)) => Value::Int(of.cmp(&other) as i64),
        ("isGreaterThan", _, Some(other)) => Value::Bool(*of > other),
        ("isLessThan", _, Some(other)) => Value::Bool(*of < other),
        ("add", _, Some(other)) => Value::Quantity(of.add(&other)),
        ("sub", _, Some(other)) => Value::Quantity(of.sub(&other)),
        ("sign", [], _) => Value::Int(of.cmp(&Quantity::ZERO) as i64),
        ("isInteger", [], _) => Value::Bool(whole_units().is_some()),
        ("asInteger", [], _) => {
            let invalid = || EvalError::Invalid("cannot convert value to integer".to_owned());
            Value::Int(whole_units().ok_or_else(invalid)?)
        }
        ("asApproximateFloat", [], _) => Value::Double(of.as_f64()),
        _ => return Ok(None),
    }))
}

fn version_method(of: &Version, name: &str, arguments: &[Value]) -> Option<Value> {
    let part = |index: usize| Value::Int(i64::try_from(of.numbers[index]).unwrap_or(i64::MAX));
    Some(match (name, arguments) {
        ("major", []) => part(0),
        ("minor", []) => part(1),
        ("patch", []) => part(2),
        ("compareTo", [Value::Version(other)]) => Value::Int(of.cmp(other) as i64),
        ("isGreaterThan", [Value::Version(other)]) => Value::Bool(of > other),
        ("isLessThan", [Value::Version(other)]) => Value::Bool(of < other),
        _ => return None,
    })
}
