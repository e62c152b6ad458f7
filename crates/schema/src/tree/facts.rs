//! How lists and maps of the built-in kinds merge: `data/merge-facts.csv`.
//!
//! One row per field: the field with its definition (`core.v1.Container.env`; the definition alone
//! for the object as a whole), how server-side apply merges it (`atomic`, `granular`, `set`, or
//! `map:` with its keys joined by `+`), and how a strategic merge patch does (`merge`, `merge:` with
//! its key, `retainKeys`, `replace`, joined by `+`).

use serde_json::{Value, json};

use super::{Listed, Merge};

const TEXT: &str = include_str!("../../data/merge-facts.csv");

/// What the file says of one field.
pub(crate) struct Fact {
    /// `core.v1.Container`.
    pub(crate) definition: &'static str,
    /// The field; none for the object as a whole.
    pub(crate) field: Option<&'static str>,
    /// How server-side apply merges it.
    pub(crate) listed: Listed,
    /// How a strategic merge patch merges it.
    pub(crate) merge: Merge,
}

impl Fact {
    /// The fact as OpenAPI extensions.
    pub(crate) fn extensions(&self, is_list: bool) -> Vec<(&'static str, Value)> {
        let mut all = Vec::new();
        let of_type = if is_list { "x-kubernetes-list-type" } else { "x-kubernetes-map-type" };
        match &self.listed {
            Listed::Unsaid => {}
            Listed::Atomic => all.push((of_type, json!("atomic"))),
            Listed::Granular => all.push((of_type, json!("granular"))),
            Listed::Set => all.push((of_type, json!("set"))),
            Listed::Map(keys) => {
                let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
                all.push(("x-kubernetes-list-map-keys", json!(keys)));
                all.push((of_type, json!("map")));
            }
        }
        let strategies = [
            (self.merge.merge, "merge"),
            (self.merge.retain_keys, "retainKeys"),
            (self.merge.replace, "replace"),
        ];
        let strategies: Vec<&str> =
            strategies.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        if !strategies.is_empty() {
            all.push(("x-kubernetes-patch-strategy", json!(strategies.join(","))));
        }
        if let Some(key) = &self.merge.key {
            all.push(("x-kubernetes-patch-merge-key", json!(key)));
        }
        all
    }
}

/// All rows.
pub(crate) fn all() -> impl Iterator<Item = Fact> {
    TEXT.lines().skip(1).filter(|line| !line.is_empty()).map(row)
}

fn row(line: &'static str) -> Fact {
    let mut columns = line.split(',');
    let mut next = || columns.next().unwrap_or_default();
    let (name, listed, merge) = (next(), next(), next());
    // Definitions begin with a capital letter, fields do not.
    let (definition, field) = match name.rsplit_once('.') {
        Some((definition, field)) if !field.starts_with(|c: char| c.is_ascii_uppercase()) => {
            (definition, Some(field))
        }
        _ => (name, None),
    };
    Fact { definition, field, listed: parse_listed(listed), merge: parse_merge(merge) }
}

fn parse_listed(text: &str) -> Listed {
    match text.split_once(':') {
        Some((_, keys)) => Listed::Map(keys.split('+').map(Box::from).collect()),
        None => match text {
            "atomic" => Listed::Atomic,
            "granular" => Listed::Granular,
            "set" => Listed::Set,
            _ => Listed::Unsaid,
        },
    }
}

fn parse_merge(text: &str) -> Merge {
    let mut merge = Merge::default();
    for word in text.split('+') {
        match word.split_once(':').unwrap_or((word, "")) {
            ("merge", key) => {
                merge.merge = true;
                merge.key = (!key.is_empty()).then(|| key.into());
            }
            ("retainKeys", _) => merge.retain_keys = true,
            ("replace", _) => merge.replace = true,
            _ => {}
        }
    }
    merge
}

/// The full name of a definition that the file names shortly.
pub(crate) fn full_name(short: &str) -> String {
    let prefix = match short.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{prefix}.{short}")
}

#[cfg(test)]
mod tests {
    use super::super::Tree;
    use super::*;

    #[test]
    fn every_row_names_a_field_that_exists() {
        let tree = Tree::get();
        let mut wrong = Vec::new();
        for fact in all() {
            let name = full_name(fact.definition);
            let found = tree.definitions.iter().find(|definition| *definition.name == *name);
            let known = found.is_some_and(|definition| {
                fact.field.is_none_or(|field| definition.field(field).is_some())
            });
            if !known {
                wrong.push(format!("{}.{}", fact.definition, fact.field.unwrap_or_default()));
            }
        }
        assert!(wrong.is_empty(), "no such fields: {wrong:?}");
    }

    #[test]
    fn rows_are_sorted_and_say_something() {
        let mut before = "";
        for line in TEXT.lines().skip(1) {
            let name = line.split(',').next().unwrap();
            assert!(before < name, "{name} is not after {before}");
            before = name;
            let fact = row(line);
            assert!(fact.listed != Listed::Unsaid || fact.merge != Merge::default(), "{line}");
        }
    }
}
