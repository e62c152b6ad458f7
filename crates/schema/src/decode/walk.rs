//! One walk over a document against the field tree: unknown fields, repeated fields, wrong types.
//!
//! The walk reads straight from the parser, so that a plain body costs no allocation here. Paths
//! are chains on the stack and become text only for a finding.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use wharf_model::kinds::Kind;
use wharf_model::quantity::Quantity;

use super::envelope::syntax_error;
use crate::tree::{Definition, DefinitionId, Shape, Tree, is_custom};

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// `unknown field "a.b"` and `duplicate field "a.b"` in document order.
    pub(super) strict: Vec<String>,
    /// The first wrong type, in Go's words.
    pub(super) mismatch: Option<String>,
    /// The same in the words of Go's conversion from maps, which strategic patches go through.
    pub(super) conversion: Option<String>,
    /// A wrong type in a custom resource outside its metadata.
    pub(super) custom_mismatch: bool,
    /// Whether the document must be rewritten before it is decoded.
    pub(super) rewrite: bool,
}

impl Findings {
    fn add(&mut self, what: &str, place: Place<'_>) {
        if self.strict.len() < STRICT_MAX {
            let mut path = String::new();
            place.strict(&mut path);
            self.strict.push(format!("{what} field {path:?}"));
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.strict.is_empty() && self.mismatch.is_none()
    }
}

/// Upstream tells no more than this many unknown and repeated fields.
const STRICT_MAX: usize = 100;

/// Walks over JSON text. The error is a syntax error in Go's words.
pub(super) fn bytes(kind: Kind, json: &[u8]) -> Result<Findings, String> {
    match Tree::get().root(kind) {
        Some(root) => bytes_of(root, is_custom(kind), json),
        None => Ok(Findings::default()),
    }
}

/// The same for a definition that is not the stored form of a kind.
pub(super) fn bytes_of(root: DefinitionId, custom: bool, json: &[u8]) -> Result<Findings, String> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let mut findings = Findings::default();
    let shape = Shape::Object(root);
    let walk = Walk::root(custom, &shape, &mut findings);
    walk.deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|error| syntax_error(&error, json))?;
    Ok(findings)
}

/// Walks over a value.
pub(super) fn value(kind: Kind, value: &Value) -> Findings {
    match Tree::get().root(kind) {
        Some(root) => value_of(root, is_custom(kind), value),
        None => Findings::default(),
    }
}

/// The same for a definition that is not the stored form of a kind.
pub(super) fn value_of(root: DefinitionId, custom: bool, value: &Value) -> Findings {
    let mut findings = Findings::default();
    let shape = Shape::Object(root);
    let walk = Walk::root(custom, &shape, &mut findings);
    if let Err(error) = walk.deserialize(value) {
        findings.mismatch.get_or_insert(error.to_string());
    }
    findings
}

/// Where the walk is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    /// As strict decoding shows it: `spec.containers[0].image`.
    fn strict(&self, f: &mut String) {
        match self {
            Place::Root => {}
            Place::Field(parent, name) | Place::Key(parent, name) => {
                parent.strict(f);
                if !f.is_empty() {
                    f.push('.');
                }
                f.push_str(name);
            }
            Place::Index(parent, index) => {
                parent.strict(f);
                f.push_str(&format!("[{index}]"));
            }
        }
    }

    /// As Go's type errors show it, which know fields only: `spec.containers.image`.
    fn fields(&self, f: &mut String) {
        match self {
            Place::Root => {}
            Place::Field(parent, name) => {
                parent.fields(f);
                if !f.is_empty() {
                    f.push('.');
                }
                f.push_str(name);
            }
            Place::Key(parent, _) | Place::Index(parent, _) => parent.fields(f),
        }
    }

    fn is_metadata(&self) -> bool {
        match self {
            Place::Root => false,
            Place::Field(Place::Root, name) => *name == "metadata",
            Place::Field(parent, _) | Place::Key(parent, _) | Place::Index(parent, _) => {
                parent.is_metadata()
            }
        }
    }
}

struct Walk<'a> {
    tree: &'static Tree,
    shape: &'a Shape,
    place: Place<'a>,
    /// The innermost object with a name.
    owner: &'a str,
    custom: bool,
    /// Whether the value is an item of a list or map, where null is not the same as absent.
    item: bool,
    findings: &'a mut Findings,
}

impl<'a> Walk<'a> {
    fn root(custom: bool, shape: &'a Shape, findings: &'a mut Findings) -> Self {
        Self {
            tree: Tree::get(),
            shape,
            place: Place::Root,
            owner: "",
            custom,
            item: false,
            findings,
        }
    }

    /// Notes that a value of type `given` (Go's word for it) stands where another belongs.
    fn mismatch(&mut self, given: &str) {
        let expected = go_type(self.tree, self.shape);
        let mut path = String::new();
        self.place.fields(&mut path);
        let text = match self.shape {
            // Decoded by methods of their own, which know nothing of the field.
            Shape::Time | Shape::MicroTime => {
                format!("json: cannot unmarshal {given} into Go value of type string")
            }
            Shape::IntOrString => {
                format!("json: cannot unmarshal {given} into Go value of type int32")
            }
            Shape::Quantity => wharf_model::quantity::QuantityError::Format.to_string(),
            _ if path.is_empty() => {
                format!("json: cannot unmarshal {given} into Go value of type {expected}")
            }
            _ => format!(
                "json: cannot unmarshal {given} into Go struct field {}.{path} of type {expected}",
                self.owner
            ),
        };
        if self.findings.mismatch.is_none() {
            self.findings.conversion = Some(conversion(self.shape, given, &expected, &text));
        }
        self.wrong(text);
    }

    fn wrong(&mut self, text: String) {
        if self.custom && !self.place.is_metadata() {
            self.findings.custom_mismatch = true;
        }
        if self.findings.mismatch.is_none() {
            self.findings.conversion.get_or_insert_with(|| text.clone());
            self.findings.mismatch = Some(text);
        }
    }

    fn text(&mut self, text: &str) {
        match self.shape {
            Shape::String | Shape::Any | Shape::IntOrString => {}
            Shape::LooseQuantity => {}
            Shape::Quantity => match Quantity::parse(text) {
                Ok(quantity) if quantity.to_api().0 == text => {}
                Ok(_) => self.findings.rewrite = true,
                Err(error) => self.wrong(error.to_string()),
            },
            Shape::Bytes => match base64_error(text) {
                None => {
                    self.findings.rewrite |= text.contains(['\n', '\r']);
                }
                Some(at) => self.wrong(format!("illegal base64 data at input byte {at}")),
            },
            Shape::Time => self.time(text, "2006-01-02T15:04:05Z07:00"),
            Shape::MicroTime => self.time(text, "2006-01-02T15:04:05.000000Z07:00"),
            _ => self.mismatch("string"),
        }
    }

    fn time(&mut self, text: &str, layout: &str) {
        // k8s_openapi's `Time` reads with the same parser.
        let fits = serde_json::from_value::<
            k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime,
        >(Value::from(text));
        if fits.is_err() {
            self.wrong(format!(
                "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
            ));
        }
    }

    fn integer(&mut self, value: i128) {
        let limits = match self.shape {
            Shape::Int32 | Shape::IntOrString => i128::from(i32::MIN)..=i128::from(i32::MAX),
            Shape::Int64 | Shape::LooseQuantity => i128::from(i64::MIN)..=i128::from(i64::MAX),
            Shape::Number | Shape::Any => return,
            Shape::Quantity => {
                self.findings.rewrite = true;
                return;
            }
            _ => return self.mismatch("number"),
        };
        if !limits.contains(&value) {
            self.mismatch(&format!("number {value}"));
        }
    }

    fn float(&mut self, value: f64) {
        match self.shape {
            Shape::Number | Shape::Any => {}
            // A custom resource's schema knows integers and texts, no fractions.
            Shape::LooseQuantity => self.mismatch("number"),
            Shape::Quantity => self.text_of_number(value),
            Shape::Int32 | Shape::Int64 | Shape::IntOrString => {
                self.mismatch(&format!("number {value}"));
            }
            _ => self.mismatch("number"),
        }
    }

    fn text_of_number(&mut self, value: f64) {
        self.findings.rewrite = true;
        if Quantity::parse(&value.to_string()).is_err() {
            self.mismatch("number");
        }
    }

    fn null(&mut self) {
        // A field that is null is absent to the built-in kinds' decoders; an item is not.
        if self.shape != &Shape::Any && (self.item || self.custom) {
            self.findings.rewrite = true;
        }
    }

    fn list<'de, A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let Shape::List(inner) = self.shape else {
            if self.shape != &Shape::Any {
                self.mismatch("array");
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut index = 0;
        loop {
            let item = Walk {
                tree: self.tree,
                shape: inner,
                place: Place::Index(&self.place, index),
                owner: self.owner,
                custom: self.custom,
                item: true,
                findings: self.findings,
            };
            if list.next_element_seed(item)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn object<'de, A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        match self.shape {
            Shape::Object(id) => self.fields(self.tree.definition(*id), map),
            Shape::Map(inner) => self.entries(inner, map),
            shape => {
                if shape != &Shape::Any {
                    self.mismatch("object");
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }

    fn fields<'de, A: MapAccess<'de>>(
        &mut self,
        definition: &Definition,
        mut map: A,
    ) -> Result<(), A::Error> {
        // Fields seen so far; no definition has anywhere near 128 of them.
        debug_assert!(definition.fields.len() <= 128);
        let mut seen = 0_u128;
        let owner = if definition.name.is_empty() { self.owner } else { definition.short_name() };
        while let Some(key) = map.next_key_seed(FieldName(definition))? {
            let index = match key {
                Key::Known(index) => index,
                Key::Unknown(name) => {
                    self.findings.add("unknown", Place::Field(&self.place, &name));
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let field = &definition.fields[index];
            let bit = 1_u128 << (index % 128);
            if seen & bit != 0 {
                self.findings.add("duplicate", Place::Field(&self.place, &field.name));
            }
            seen |= bit;
            map.next_value_seed(Walk {
                tree: self.tree,
                shape: &field.shape,
                place: Place::Field(&self.place, &field.name),
                owner,
                custom: self.custom,
                item: false,
                findings: self.findings,
            })?;
        }
        Ok(())
    }

    fn entries<'de, A: MapAccess<'de>>(
        &mut self,
        inner: &Shape,
        mut map: A,
    ) -> Result<(), A::Error> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(Walk {
                tree: self.tree,
                shape: inner,
                place: Place::Key(&self.place, &key),
                owner: self.owner,
                custom: self.custom,
                item: true,
                findings: self.findings,
            })?;
            if seen.contains(&key) {
                self.findings.add("duplicate", Place::Key(&self.place, &key));
            }
            seen.insert(key);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }
    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        if !matches!(self.shape, Shape::Boolean | Shape::Any) {
            self.mismatch("bool");
        }
        Ok(())
    }
    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.integer(value.into());
        Ok(())
    }
    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.integer(value.into());
        Ok(())
    }
    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.float(value);
        Ok(())
    }
    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }
    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.null();
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.object(map)
    }
}

enum Key {
    Known(usize),
    Unknown(String),
}

/// Reads a field's name without keeping it.
struct FieldName<'a>(&'a Definition);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Key, E> {
        if name.len() > FIELD_NAME_BYTES_MAX {
            return Err(E::custom("a field name is too long"));
        }
        Ok(self.0.position(name).map_or_else(|| Key::Unknown(name.to_owned()), Key::Known))
    }
}

/// No field of any kind comes near this; an unknown one must not be echoed at any length.
const FIELD_NAME_BYTES_MAX: usize = 4096;

/// What Go calls the type of a field.
fn go_type(tree: &Tree, shape: &Shape) -> String {
    match shape {
        Shape::String | Shape::LooseQuantity => "string".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::Any => "interface {}".to_owned(),
        Shape::List(inner) => format!("[]{}", go_type(tree, inner)),
        // The only maps of quantities are lists of resources.
        Shape::Map(inner) if **inner == Shape::Quantity => "v1.ResourceList".to_owned(),
        Shape::Map(inner) => format!("map[string]{}", go_type(tree, inner)),
        Shape::Object(id) => tree.definition(*id).go_name().to_owned(),
    }
}

/// A mismatch in the words of Go's conversion. Types with methods of their own say the same in both.
fn conversion(shape: &Shape, given: &str, expected: &str, parsed: &str) -> String {
    let kind = match given {
        "array" => "slice",
        "object" => "map",
        "bool" => "bool",
        "string" => "string",
        number if number.contains('.') => "float64",
        _ => "int64",
    };
    match shape {
        Shape::List(_) | Shape::Bytes => format!("cannot restore slice from {kind}"),
        Shape::Map(_) => format!("cannot restore map from {kind}"),
        Shape::Object(_) => format!("cannot restore struct from: {kind}"),
        Shape::String | Shape::Int32 | Shape::Int64 | Shape::Number | Shape::Boolean => {
            format!("unrecognized type: {expected}")
        }
        _ => parsed.to_owned(),
    }
}

/// Where a text stops being base64, as Go counts.
fn base64_error(text: &str) -> Option<usize> {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let mut digits = 0;
    let mut bytes = text.bytes().enumerate().filter(|(_, byte)| *byte != b'\n' && *byte != b'\r');
    while let Some((at, byte)) = bytes.next() {
        if is_digit(byte) {
            digits += 1;
            continue;
        }
        if byte != b'=' || digits % 4 < 2 {
            return Some(at);
        }
        let padding_left = 3 - digits % 4;
        for _ in 0..padding_left {
            match bytes.next() {
                Some((_, b'=')) => {}
                Some((at, _)) => return Some(at),
                None => return Some(text.len()),
            }
        }
        return bytes.next().map(|(at, _)| at);
    }
    (digits % 4 != 0).then(|| text.len() - text.len() % 4)
}
