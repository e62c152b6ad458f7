//! The operations on each resource. kubectl looks here for which parameters a server takes, and for
//! which definition belongs to which path.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::served::Served;

/// The paths of some resources.
pub(super) fn of(served: &[&Served], dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    for served in served {
        Resource { served, dialect }.add(&mut paths);
    }
    paths
}

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const NONE: &[(&str, &str)] = &[];

struct Resource<'a> {
    served: &'a Served,
    dialect: Dialect,
}

impl Resource<'_> {
    fn add(&self, paths: &mut Map<String, Value>) {
        let served = self.served;
        let base = format!("/{}", served.group_version_path());
        let place = if served.namespaced { "/namespaces/{namespace}" } else { "" };
        let scope = if served.namespaced { "Namespaced" } else { "" };
        let kind = format!("{scope}{}", served.kind);
        let list = served.list_definition();
        let item = &served.definition;

        let mut collection = Map::new();
        collection.insert("get".into(), self.operation("list", &kind, LIST, &list));
        let mut one = Map::new();
        one.insert("get".into(), self.operation("get", &kind, NONE, item));
        if !served.read_only {
            collection.insert("post".into(), self.operation("post", &kind, WRITE, item));
            let all = format!("Collection{kind}");
            collection
                .insert("delete".into(), self.operation("deletecollection", &all, LIST, item));
            one.insert("put".into(), self.operation("put", &kind, WRITE, item));
            one.insert("patch".into(), self.operation("patch", &kind, PATCH, item));
            one.insert("delete".into(), self.operation("delete", &kind, DELETE, item));
        }
        let collection_path = format!("{base}{place}/{}", served.plural);
        paths.insert(collection_path.clone(), self.path_item(collection, false));
        paths.insert(format!("{collection_path}/{{name}}"), self.path_item(one, true));
        if served.namespaced {
            let mut everywhere = Map::new();
            let kind = format!("{}ForAllNamespaces", served.kind);
            everywhere.insert("get".into(), self.operation("list", &kind, LIST, &list));
            paths.insert(format!("{base}/{}", served.plural), Value::Object(everywhere));
        }
        if served.has_status && !served.read_only {
            let kind = format!("{kind}Status");
            let mut status = Map::new();
            status.insert("get".into(), self.operation("get", &kind, NONE, item));
            status.insert("put".into(), self.operation("put", &kind, WRITE, item));
            status.insert("patch".into(), self.operation("patch", &kind, PATCH, item));
            paths
                .insert(format!("{collection_path}/{{name}}/status"), self.path_item(status, true));
        }
    }

    fn path_item(&self, mut operations: Map<String, Value>, named: bool) -> Value {
        let mut parameters = Vec::new();
        if named {
            parameters.push(self.parameter("name", "path", "string"));
        }
        if self.served.namespaced {
            parameters.push(self.parameter("namespace", "path", "string"));
        }
        parameters.push(self.parameter("pretty", "query", "string"));
        operations.insert("parameters".into(), Value::Array(parameters));
        Value::Object(operations)
    }

    fn operation(&self, action: &str, kind: &str, query: &[(&str, &str)], result: &str) -> Value {
        let served = self.served;
        let verb = match action {
            "get" => "read",
            "post" => "create",
            "put" => "replace",
            "deletecollection" => "delete",
            other => other,
        };
        let group = match served.group {
            "" => "core".to_owned(),
            group => group.trim_end_matches(".k8s.io").replace('.', "_"),
        };
        let mut operation = json!({
            "operationId": format!("{verb}{}{}{kind}", camel(&group), camel(served.version)),
            "tags": [format!("{group}_{}", served.version)],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": served.group, "kind": served.kind, "version": served.version,
            },
        });
        let mut parameters: Vec<Value> =
            query.iter().map(|(name, kind)| self.parameter(name, "query", kind)).collect();
        let has_body = matches!(action, "post" | "put" | "patch");
        let schema = json!({"$ref": self.dialect.reference(result)});
        // What a patch holds is not an object of the kind.
        let body = if action == "patch" { json!({"type": "object"}) } else { schema.clone() };
        match self.dialect {
            Dialect::V2 => {
                if has_body {
                    parameters.push(
                        json!({"name": "body", "in": "body", "required": true, "schema": body}),
                    );
                }
                operation["consumes"] = json!(self.consumes(action));
                operation["produces"] = json!(["application/json", "application/yaml"]);
                operation["responses"] = json!({"200": {"description": "OK", "schema": schema}});
            }
            Dialect::V3 => {
                if has_body {
                    let content: Map<String, Value> = self
                        .consumes(action)
                        .iter()
                        .map(|media| ((*media).to_owned(), json!({"schema": body})))
                        .collect();
                    operation["requestBody"] = json!({"content": content, "required": true});
                }
                let content = json!({"application/json": {"schema": schema}});
                operation["responses"] = json!({"200": {"description": "OK", "content": content}});
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        operation
    }

    /// The media types of a request's body. kubectl makes a strategic merge patch only where the
    /// operation takes it, which for custom resources it does not.
    fn consumes(&self, action: &str) -> &'static [&'static str] {
        const PATCHES: &[&str] = &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ];
        match action {
            "patch" if self.served.is_custom => &PATCHES[..2],
            "patch" => PATCHES,
            _ => &["*/*"],
        }
    }

    fn parameter(&self, name: &str, place: &str, kind: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        if place == "path" {
            parameter["required"] = json!(true);
        }
        match self.dialect {
            Dialect::V2 => {
                parameter["type"] = json!(kind);
                parameter["uniqueItems"] = json!(true);
            }
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        parameter
    }
}

/// `karpenter_sh` as `KarpenterSh`.
fn camel(text: &str) -> String {
    text.split('_')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            format!("{}{rest}", first.to_ascii_uppercase())
        })
        .collect()
}
