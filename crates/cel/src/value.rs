//! Values, and when they are equal or ordered.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_model::quantity::Quantity;

use crate::version::Version;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// A text.
    String(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// A map.
    Map(Arc<Map>),
    /// Kubernetes' quantity.
    Quantity(Quantity),
    /// A semantic version.
    Version(Version),
}

/// A map, which may stand for something where it has no entry.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// The entries.
    pub entries: BTreeMap<Key, Value>,
    /// What a key without an entry gives; `None` makes it an error. Such keys are not in the map
    /// all the same.
    pub otherwise: Option<Value>,
}

/// The key of an entry. An unsigned integer is the same key as the signed one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A text.
    String(Arc<str>),
}

impl Value {
    /// A text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(text.as_ref().into())
    }

    /// A map with texts as keys.
    pub fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (Key::String(key.into()), value));
        Self::Map(Arc::new(Map { entries: entries.collect(), otherwise: None }))
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Quantity(_) => "quantity",
            Self::Version(_) => "semver",
        }
    }

    /// The key that the value is, if it can be one.
    pub(crate) fn key(&self) -> Option<Key> {
        match self {
            Self::Bool(value) => Some(Key::Bool(*value)),
            Self::Int(value) => Some(Key::Int(i128::from(*value))),
            Self::Uint(value) => Some(Key::Int(i128::from(*value))),
            // A whole number is the same key, however it is written.
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 1e18 => {
                Some(Key::Int(*value as i128))
            }
            Self::String(value) => Some(Key::String(value.clone())),
            _ => None,
        }
    }

    /// Whether two values are equal. Numbers are compared as numbers; values of other types that
    /// differ are not equal.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(one), Self::List(other)) => {
                one.len() == other.len()
                    && one.iter().zip(other.iter()).all(|(one, other)| one.equals(other))
            }
            (Self::Map(one), Self::Map(other)) => {
                one.entries.len() == other.entries.len()
                    && one.entries.iter().all(|(key, value)| {
                        other.entries.get(key).is_some_and(|other| value.equals(other))
                    })
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// How two values of an ordered type stand to each other; `None` if they do not.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::String(one), Self::String(other)) => Some(one.cmp(other)),
            (Self::Quantity(one), Self::Quantity(other)) => Some(one.cmp(other)),
            (Self::Version(one), Self::Version(other)) => Some(one.cmp(other)),
            (Self::Double(one), other) => match other {
                Self::Double(other) => one.partial_cmp(other),
                other => compare_double(*one, other.integer()?),
            },
            (one, Self::Double(other)) => {
                compare_double(*other, one.integer()?).map(Ordering::reverse)
            }
            (one, other) => Some(one.integer()?.cmp(&other.integer()?)),
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::Uint(value) => Some(i128::from(*value)),
            _ => None,
        }
    }
}

fn compare_double(double: f64, integer: i128) -> Option<Ordering> {
    // Beyond 2^53 not every integer is a double; the nearest one is what upstream compares too.
    double.partial_cmp(&(integer as f64))
}

impl Key {
    /// The key as a value.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => match i64::try_from(*value) {
                Ok(value) => Value::Int(value),
                Err(_) => Value::Uint(u64::try_from(*value).unwrap_or(u64::MAX)),
            },
            Self::String(value) => Value::String(value.clone()),
        }
    }
}
