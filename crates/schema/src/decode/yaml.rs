//! YAML manifests as JSON values, read as kubectl reads them.
//!
//! kubectl's parser follows YAML 1.1: `0644` is octal and `yes` is true. Several documents in one
//! text are separated by `---`; a `List` stands for its items.

use serde_json::{Number, Value};

/// Why a manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.place())]
pub struct YamlError {
    /// The file, or what else the text came from.
    pub origin: String,
    /// Line, from 1; 0 if it is not known.
    pub line: u64,
    /// Column, from 1; 0 if it is not known.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

impl YamlError {
    /// `inflate.yaml:3:5`, or the origin alone if the line is not known.
    fn place(&self) -> String {
        match self.line {
            0 => self.origin.clone(),
            line => format!("{}:{line}:{}", self.origin, self.column),
        }
    }
}

/// The objects of a manifest with one or more documents. `origin` names the text in errors.
///
/// # Errors
/// With the place, if the text is not YAML or a document is not an object.
pub fn decode_yaml_documents(text: &str, origin: &str) -> Result<Vec<Value>, YamlError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, manifest_options())
        .map_err(|error| {
            let place = error.location();
            YamlError {
                origin: origin.to_owned(),
                line: place.map_or(0, |place| place.line()),
                column: place.map_or(0, |place| place.column()),
                message: first_line(&error),
            }
        })?;
    let mut objects = Vec::new();
    for (index, mut document) in documents.into_iter().enumerate() {
        integral(&mut document);
        expand(document, &mut objects).map_err(|message| YamlError {
            origin: origin.to_owned(),
            line: 0,
            column: 0,
            message: format!("document {}: {message}", index + 1),
        })?;
    }
    Ok(objects)
}

/// One YAML document as a JSON value: the body of a request in YAML.
///
/// # Errors
/// The parser's message with the line: `line 3: …`.
pub fn yaml_to_json(text: &str) -> Result<Value, String> {
    let mut value: Value =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
            match error.location() {
                Some(place) => format!("line {}: {}", place.line(), first_line(&error)),
                None => first_line(&error),
            }
        })?;
    integral(&mut value);
    Ok(value)
}

/// Documents in one manifest: an export of a large cluster has some ten thousand objects.
const DOCUMENTS_MAX: usize = 50_000;
/// Scalars, lists and mappings in one manifest, those that aliases repeat included: what some fifty
/// thousand pods have.
const NODES_MAX: usize = 2_000_000;

/// For a body, which the parser's own bounds fit: 250 000 nodes, 64 levels.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// For a file of the user's own, which may hold a whole cluster.
fn manifest_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            // A list or mapping has two events.
            max_events: 2 * NODES_MAX + 2 * DOCUMENTS_MAX,
        },
    }
}

/// The parser's message without its place, which is told apart.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let line = text.lines().next().unwrap_or_default();
    line.split(" at line ").next().unwrap_or(line).to_owned()
}

/// A float without a fraction is a whole number in JSON.
fn integral(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Beyond 2^53 a float does not tell which whole number was meant.
            const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() < EXACT_MAX
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(integral),
        Value::Object(map) => map.values_mut().for_each(integral),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Appends a document, or the items of a list.
fn expand(document: Value, objects: &mut Vec<Value>) -> Result<(), &'static str> {
    let Value::Object(mut map) = document else {
        return if document.is_null() {
            Ok(())
        } else {
            Err("a manifest is a mapping with apiVersion and kind")
        };
    };
    let is_list =
        map.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match map.remove("items") {
        Some(Value::Array(items)) if is_list => {
            for item in items {
                expand(item, objects)?;
            }
        }
        Some(items) => {
            map.insert("items".to_owned(), items);
            objects.push(Value::Object(map));
        }
        None => objects.push(Value::Object(map)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_read_as_kubectl_reads_them() {
        let text = "\
apiVersion: v1
kind: ConfigMap
data: {mode: 0644, on: yes, ratio: 1.5, whole: 2.0, text: \"0644\", none: ~}
---
# nothing here
---
kind: List
apiVersion: v1
items:
- {kind: Pod, apiVersion: v1}
- {kind: Service, apiVersion: v1}
";
        let objects = decode_yaml_documents(text, "x.yaml").unwrap();
        assert_eq!(objects.len(), 3);
        assert_eq!(
            objects[0]["data"],
            json!({"mode": 420, "true": true, "ratio": 1.5, "whole": 2, "text": "0644", "none": null})
                .as_object()
                .map(|map| {
                    // The key `on` stays a text: JSON has no other keys.
                    let mut map = map.clone();
                    let value = map.remove("true").unwrap();
                    map.insert("on".to_owned(), value);
                    Value::Object(map)
                })
                .unwrap()
        );
        assert_eq!(objects[2]["kind"], "Service");
    }

    #[test]
    fn errors_tell_the_place() {
        let error = decode_yaml_documents("a: 1\nb: [1, 2\nc: 3\n", "lab.yaml").unwrap_err();
        assert!(error.to_string().starts_with("lab.yaml:3:"), "{error}");
        let error = decode_yaml_documents("a: 1\na: 2\n", "lab.yaml").unwrap_err();
        assert_eq!(
            error.to_string(),
            "lab.yaml:2:1: duplicate mapping key `a` is not allowed here"
        );
        let error = decode_yaml_documents("a: 1\n---\n- x\n", "lab.yaml").unwrap_err();
        assert_eq!(
            error.to_string(),
            "lab.yaml: document 2: a manifest is a mapping with apiVersion and kind"
        );
    }

    #[test]
    fn a_whole_cluster_is_read() {
        let text = "{kind: Pod, metadata: {name: a}}\n---\n".repeat(2_000);
        assert_eq!(decode_yaml_documents(&text, "x.yaml").unwrap().len(), 2_000);
    }

    #[test]
    fn depth_and_repetition_are_bounded() {
        let mut repeated = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let item = format!("*a{}, ", level - 1);
            repeated += &format!("a{level}: &a{level} [{}]\n", item.repeat(8));
        }
        for text in ["- ".repeat(10_000), "[".repeat(10_000), "{a: ".repeat(1_000), repeated] {
            let error = yaml_to_json(&text).unwrap_err();
            assert!(
                error.contains("too large or too complex") || error.contains("recursion limit"),
                "{error}"
            );
        }
    }

    #[test]
    fn one_document_becomes_json() {
        assert_eq!(yaml_to_json("spec: {replicas: 3}").unwrap(), json!({"spec": {"replicas": 3}}));
        assert!(yaml_to_json("a: 1\nb: [").unwrap_err().starts_with("line 2: "));
    }
}
