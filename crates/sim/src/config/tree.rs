//! A YAML document in which every value knows where it stands, and a way to read it that notices which
//! fields were never asked for.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Tree,
}

/// A place in the file; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: Place,
    pub(super) says: String,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        let (line, column) = (spanned.referenced.line(), spanned.referenced.column());
        Ok(Self { place: Place { line, column }, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

impl Tree {
    /// What it is, for people.
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// A map under reading.
pub(super) struct Fields<'t> {
    path: String,
    place: Place,
    entries: &'t [(String, Node)],
    asked: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// The fields of a map; `path` names it, and is empty for the document.
    pub(super) fn of(node: &'t Node, path: &str) -> Result<Self, Wrong> {
        match &node.value {
            Tree::Map(entries) => {
                Ok(Self { path: path.to_owned(), place: node.place, entries, asked: Vec::new() })
            }
            other => Err(wrong(node, path, &format!("is a map, not {}", other.kind()))),
        }
    }

    /// The path of a field.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field, if it is there and not null.
    pub(super) fn get(&mut self, name: &'static str) -> Option<&'t Node> {
        self.asked.push(name);
        let entry = self.entries.iter().find(|(key, _)| key == name);
        entry.map(|(_, node)| node).filter(|node| !matches!(node.value, Tree::Null))
    }

    /// Whether a field is there. Whatever it holds is taken.
    pub(super) fn has(&mut self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// A text, if it is there. A number is one too, as in `version: 1.30`.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Wrong> {
        let path = self.path(name);
        self.get(name).map(|node| text(node, &path)).transpose()
    }

    /// A text that has to be there.
    pub(super) fn required_text(&mut self, name: &'static str) -> Result<(String, Place), Wrong> {
        let path = self.path(name);
        match self.get(name) {
            Some(node) => Ok((text(node, &path)?, node.place)),
            None => Err(Wrong { place: self.place, says: format!("{path} is missing") }),
        }
    }

    /// `true` or `false`, if it is there.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Wrong> {
        let path = self.path(name);
        self.get(name)
            .map(|node| match node.value {
                Tree::Bool(value) => Ok(value),
                ref other => {
                    Err(wrong(node, &path, &format!("is true or false, not {}", other.kind())))
                }
            })
            .transpose()
    }

    /// A count, if it is there.
    pub(super) fn count(&mut self, name: &'static str) -> Result<Option<u32>, Wrong> {
        let path = self.path(name);
        self.get(name)
            .map(|node| match node.value {
                Tree::Integer(value) => u32::try_from(value)
                    .map_err(|_| wrong(node, &path, &format!("is a count, not {value}"))),
                ref other => Err(wrong(node, &path, &format!("is a count, not {}", other.kind()))),
            })
            .transpose()
    }

    /// The items of a list with their paths; none if it is not there.
    pub(super) fn list(&mut self, name: &'static str) -> Result<Vec<(String, &'t Node)>, Wrong> {
        let path = self.path(name);
        let Some(node) = self.get(name) else { return Ok(Vec::new()) };
        match &node.value {
            Tree::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, item)| (format!("{path}[{index}]"), item))
                .collect()),
            other => Err(wrong(node, &path, &format!("is a list, not {}", other.kind()))),
        }
    }

    /// A list of texts; empty if it is not there.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<(String, Place)>, Wrong> {
        let items = self.list(name)?;
        items.into_iter().map(|(path, item)| Ok((text(item, &path)?, item.place))).collect()
    }

    /// A map of texts; empty if it is not there.
    pub(super) fn text_map(&mut self, name: &'static str) -> Result<Vec<(String, String)>, Wrong> {
        let path = self.path(name);
        let Some(node) = self.get(name) else { return Ok(Vec::new()) };
        entries(node, &path)?
            .iter()
            .map(|(key, value)| Ok((key.clone(), text(value, &format!("{path}.{key}"))?)))
            .collect()
    }

    /// The paths of the fields that were never asked for.
    pub(super) fn unknown(&self) -> impl Iterator<Item = String> {
        let unknown = self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.as_str()));
        unknown.map(|(key, node)| {
            format!(
                "{}:{}: there is no field {}",
                node.place.line,
                node.place.column,
                self.path(key)
            )
        })
    }
}

/// The entries of a map.
pub(super) fn entries<'t>(node: &'t Node, path: &str) -> Result<&'t [(String, Node)], Wrong> {
    match &node.value {
        Tree::Map(entries) => Ok(entries),
        other => Err(wrong(node, path, &format!("is a map, not {}", other.kind()))),
    }
}

/// A refusal of a value: the text says what its field is.
pub(super) fn wrong(node: &Node, path: &str, says: &str) -> Wrong {
    let path = if path.is_empty() { "the document" } else { path };
    Wrong { place: node.place, says: format!("{path} {says}") }
}

fn text(node: &Node, path: &str) -> Result<String, Wrong> {
    match &node.value {
        Tree::Text(text) => Ok(text.clone()),
        Tree::Integer(number) => Ok(number.to_string()),
        Tree::Float(number) => Ok(number.to_string()),
        other => Err(wrong(node, path, &format!("is a text, not {}", other.kind()))),
    }
}
