//! A value of a configuration file together with its path, read strictly: what is not known is
//! refused, and every refusal says where it is and what would do.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};
use wharf_model::duration::GoDuration;

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Its path: `profiles[0].schedulerName`; empty for the whole file.
    pub(super) path: String,
    /// What is wrong, and what is allowed.
    pub(super) says: String,
}

/// A value at a path.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The whole of a file.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    /// A complaint about this field.
    pub(super) fn wrong(&self, says: impl Display) -> Wrong {
        Wrong { path: self.path.clone(), says: says.to_string() }
    }

    /// A complaint about a field in this one.
    pub(super) fn wrong_at(&self, name: &str, says: impl Display) -> Wrong {
        Wrong { path: self.below(name), says: says.to_string() }
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn expected(&self, what: &str) -> Wrong {
        let found = match self.value {
            Value::Null => "nothing".to_owned(),
            Value::Object(_) => "a mapping".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            other => other.to_string(),
        };
        self.wrong(format!("expected {what}, found {found}"))
    }

    /// The value as a mapping which has no other fields than these.
    pub(super) fn only(&self, known: &[&str]) -> Result<Self, Wrong> {
        let map = self.map()?;
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(self.clone()),
            Some(key) => Err(self
                .wrong_at(key, format!("unknown field; the fields here are {}", known.join(", ")))),
        }
    }

    fn map(&self) -> Result<&'a Map<String, Value>, Wrong> {
        self.value.as_object().ok_or_else(|| self.expected("a mapping"))
    }

    /// A field of this mapping; `None` if it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self { path: self.below(name), value })
    }

    /// The elements of a list field; none if it is absent.
    pub(super) fn items(&self, name: &str) -> Result<Vec<Self>, Wrong> {
        let Some(field) = self.get(name) else { return Ok(Vec::new()) };
        let list = field.value.as_array().ok_or_else(|| field.expected("a list"))?;
        Ok(list
            .iter()
            .enumerate()
            .map(|(index, value)| Self { path: format!("{}[{index}]", field.path), value })
            .collect())
    }

    /// This value as text.
    pub(super) fn text(&self) -> Result<&'a str, Wrong> {
        self.value.as_str().ok_or_else(|| self.expected("a text"))
    }

    /// A text field.
    pub(super) fn text_at(&self, name: &str) -> Result<Option<&'a str>, Wrong> {
        self.get(name).map(|field| field.text()).transpose()
    }

    /// A text field that has to be there and say something.
    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, Wrong> {
        match self.text_at(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong_at(name, "is required")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, Wrong> {
        self.items(name)?.iter().map(Self::text).collect()
    }

    /// A whole number field within a range.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Wrong> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let number = field.value.as_i64().filter(|number| range.contains(number));
        let allowed = match (*range.start(), *range.end()) {
            (start, i64::MAX) => format!("a whole number of at least {start}"),
            (start, end) => format!("a whole number from {start} to {end}"),
        };
        number.map(Some).ok_or_else(|| field.expected(&allowed))
    }

    /// A fractional number field of at least 0.
    pub(super) fn rate(&self, name: &str) -> Result<Option<f64>, Wrong> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let number = field.value.as_f64();
        number.map(Some).ok_or_else(|| field.expected("a number"))
    }

    /// A true-or-false field.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Wrong> {
        let Some(field) = self.get(name) else { return Ok(None) };
        field.value.as_bool().map(Some).ok_or_else(|| field.expected("true or false"))
    }

    /// A duration field in Go's form.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Wrong> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let duration = field.value.as_str().and_then(|text| GoDuration::parse(text).ok());
        duration
            .map(|duration| Some(duration.0))
            .ok_or_else(|| field.expected("a duration such as 30s or 5m"))
    }
}
