//! Why a decision fell as it did, as data: what `wharf why` prints and the views show.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;

/// One decision about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The kind of the object it is about.
    pub kind: Kind,
    /// Which object.
    pub key: ObjectKey,
    /// Which system decided (`scheduler`, `provisioner`, `disruption`, `kubelet`).
    pub by: &'static str,
    /// The decision in one line.
    pub decision: String,
    /// What spoke for it, most important first.
    pub because: Vec<Because>,
}

/// One fact behind a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Because {
    /// The rule or candidate (`NodeResourcesFit`, `c5a.2xlarge`, `price`).
    pub rule: Cow<'static, str>,
    /// What it said.
    pub says: Says,
}

/// What a rule said, or what was said of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Words, with the numbers.
    Text(String),
    /// Words, and the numbers in them for scripts.
    Told {
        /// The words.
        text: String,
        /// The numbers by name.
        numbers: Vec<(Cow<'static, str>, i64)>,
    },
    /// Scores: their sum, and each with who gave it. Words are made of them only when somebody
    /// asks: every pod that is placed has some.
    Scores {
        /// The sum.
        total: i64,
        /// Who gave how much.
        by: Vec<(Cow<'static, str>, i64)>,
    },
}

impl Because {
    /// A fact.
    pub fn new(rule: impl Into<Cow<'static, str>>, says: impl Into<String>) -> Self {
        Self { rule: rule.into(), says: Says::Text(says.into()) }
    }

    /// A fact with its numbers.
    pub fn told(
        rule: impl Into<Cow<'static, str>>,
        text: impl Into<String>,
        numbers: Vec<(&'static str, i64)>,
    ) -> Self {
        let numbers = numbers.into_iter().map(|(name, number)| (name.into(), number)).collect();
        Self { rule: rule.into(), says: Says::Told { text: text.into(), numbers } }
    }

    /// A candidate's scores.
    pub fn scored(
        candidate: impl Into<Cow<'static, str>>,
        total: i64,
        by: Vec<(Cow<'static, str>, i64)>,
    ) -> Self {
        Self { rule: candidate.into(), says: Says::Scores { total, by } }
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Told { text, .. } => f.write_str(text),
            Self::Scores { total, by } => {
                write!(f, "score {total}")?;
                for (index, (name, score)) in by.iter().enumerate() {
                    write!(f, "{} {name} {score}", if index == 0 { ":" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl Serialize for Because {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("rule", &self.rule)?;
        fields.serialize_entry("says", &self.says.to_string())?;
        if let Says::Told { numbers, .. } = &self.says {
            let numbers: BTreeMap<_, _> =
                numbers.iter().map(|(name, number)| (name.as_ref(), *number)).collect();
            fields.serialize_entry("numbers", &numbers)?;
        }
        if let Says::Scores { total, by } = &self.says {
            let scores: BTreeMap<_, _> = by
                .iter()
                .map(|(name, score)| (name.as_ref(), *score))
                .chain([("total", *total)])
                .collect();
            fields.serialize_entry("scores", &scores)?;
        }
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scores_are_words_and_numbers() {
        let because =
            Because::scored("n1", 395, vec![("TaintToleration".into(), 300), ("Fit".into(), 95)]);
        assert_eq!(
            serde_json::to_value(&because).expect("JSON"),
            json!({
                "rule": "n1",
                "says": "score 395: TaintToleration 300, Fit 95",
                "scores": {"TaintToleration": 300, "Fit": 95, "total": 395}
            })
        );
        let told = serde_json::to_value(Because::told("cpu", "70%", vec![("percent", 70)]));
        assert_eq!(
            told.expect("JSON"),
            json!({"rule": "cpu", "says": "70%", "numbers": {"percent": 70}})
        );
        let plain = serde_json::to_value(Because::new("price", "less")).expect("JSON");
        assert_eq!(plain, json!({"rule": "price", "says": "less"}));
    }
}
