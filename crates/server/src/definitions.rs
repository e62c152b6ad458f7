//! The definitions of the built-in custom resources as `customresourcedefinitions` shows them.
//! They are part of the program and cannot be changed.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_model::custom;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::selector::FieldSelector;
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};

use crate::api::Api;
use crate::body::Body;
use crate::handlers::{Call, finish};
use crate::negotiate::Form;
use crate::query::ListOptions;
use crate::resources::{self, Resource};
use crate::serve::stopped;
use crate::status;

/// Answers get, list and watch of the definitions.
pub(crate) fn answer(
    api: &Arc<Api>,
    call: &Call<'_>,
    resource: &Resource,
) -> Result<Response<Body>, ApiError> {
    if call.path.subresource.is_some() {
        return Err(status::no_such_path());
    }
    if !matches!(call.head.method, Method::GET | Method::HEAD) {
        let mut error = ApiError::new(
            StatusReason::MethodNotAllowed,
            "the definitions of the built-in custom resources cannot be changed",
        );
        error.group = resource.group.to_owned();
        error.kind = resource.plural.to_owned();
        return Err(error);
    }
    let definitions = all(api.started);
    if let Some(name) = call.path.name.as_deref() {
        let definition = definitions.into_iter().find(|d| d["metadata"]["name"] == name);
        let definition = definition.ok_or_else(|| not_found(resource, name))?;
        let shown = match call.accepted.form {
            Form::Plain => definition,
            Form::Metadata => metadata_only(&definition),
            Form::Table => table(&[definition]),
        };
        return finish(call, StatusCode::OK, Bytes::from(shown.to_string()));
    }
    let watch = call.path.watch || call.query.flag("watch") == Some(true);
    let options = ListOptions::parse(&call.query)?;
    let mut definitions = definitions;
    definitions.retain(|definition| selects(&options.fields, definition));
    if !options.labels.is_everything() {
        // They have no labels.
        definitions.retain(|_| options.labels.matches_with(|_| None));
    }
    if watch {
        return Ok(idle_watch(api, &options, definitions));
    }
    let revision = api.store.revision().to_string();
    let list = match call.accepted.form {
        Form::Plain => json!({
            "kind": "CustomResourceDefinitionList",
            "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"resourceVersion": revision},
            "items": definitions,
        }),
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": revision},
            "items": definitions.iter().map(metadata_only).collect::<Vec<_>>(),
        }),
        Form::Table => {
            let mut table = table(&definitions);
            table["metadata"] = json!({"resourceVersion": revision});
            table
        }
    };
    finish(call, StatusCode::OK, Bytes::from(list.to_string()))
}

fn selects(fields: &FieldSelector, definition: &Value) -> bool {
    fields.matches(|field| match field {
        "metadata.name" => definition["metadata"]["name"].as_str(),
        _ => None,
    })
}

fn not_found(resource: &Resource, name: &str) -> ApiError {
    let mut error = ApiError::new(
        StatusReason::NotFound,
        format!("{} \"{name}\" not found", resource.group_resource()),
    );
    error.group = resource.group.to_owned();
    error.kind = resource.plural.to_owned();
    error.name = name.to_owned();
    error
}

/// A watch of what never changes: the present definitions if they are asked for, then silence.
fn idle_watch(api: &Api, options: &ListOptions, definitions: Vec<Value>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    let initial = options.resource_version.is_none_or(|version| version == 0);
    let text: String = definitions
        .iter()
        .filter(|_| initial)
        .map(|definition| format!("{}\n", json!({"type": "ADDED", "object": definition})))
        .collect();
    let mut stop = api.parts.stop.clone();
    let seconds = options.timeout_seconds.unwrap_or(1_800);
    tokio::spawn(async move {
        if !text.is_empty() && sender.send(text.into()).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(seconds)) => {}
            () = sender.closed() => {}
            () = stopped(&mut stop) => {}
        }
    });
    crate::handlers::stream(receiver)
}

/// All definitions, in the order of their names. The simulated cloud's own kinds are none of a cluster's
/// definitions.
fn all(created: Time) -> Vec<Value> {
    let mut all: Vec<Value> = built_in()
        .iter()
        .filter(|kind| kind.group != "sim.wharf.dev")
        .filter_map(|kind| Some(definition(*kind, custom::schema(kind.kind)?, created)))
        .collect();
    all.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
    all
}

fn definition(kind: Kind, schema: &Value, created: Time) -> Value {
    let name = kind.group_resource();
    let list_kind = format!("{}List", kind.kind);
    let mut names = json!({
        "plural": kind.plural,
        "singular": kind.singular,
        "kind": kind.kind,
        "listKind": list_kind,
        "categories": kind.categories,
    });
    if !kind.short_names.is_empty() {
        names["shortNames"] = json!(kind.short_names);
    }
    let columns: Vec<Value> = custom::columns(kind.kind)
        .unwrap_or_default()
        .iter()
        .map(|column| {
            let mut entry = json!({
                "name": column.name, "type": column.kind, "jsonPath": column.json_path,
            });
            if column.priority != 0 {
                entry["priority"] = column.priority.into();
            }
            entry
        })
        .collect();
    let condition = |word: &str, reason: &str, message: &str| {
        json!({
            "type": word,
            "status": "True",
            "lastTransitionTime": created.to_string(),
            "reason": reason,
            "message": message,
        })
    };
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name,
            "uid": uid(&name),
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": created.to_string(),
        },
        "spec": {
            "group": kind.group,
            "names": names.clone(),
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "conversion": {"strategy": "None"},
            "versions": [{
                "name": kind.version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": columns,
            }],
        },
        "status": {
            "acceptedNames": names,
            "storedVersions": [kind.version],
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        },
    });
    if resources::find(kind.group, kind.version, kind.plural)
        .is_some_and(|resource| resource.subresource("status").is_some())
    {
        definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    }
    definition
}

/// A uid that is the same at every start.
fn uid(name: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-5{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

fn metadata_only(definition: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": definition["metadata"],
    })
}

fn table(definitions: &[Value]) -> Value {
    let column = |name: &str, format: &str| json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0});
    let rows: Vec<Value> = definitions
        .iter()
        .map(|definition| {
            let meta = &definition["metadata"];
            json!({
                "cells": [meta["name"], meta["creationTimestamp"]],
                "object": metadata_only(definition),
            })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [column("Name", "name"), column("Created At", "date")],
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_complete() {
        let all = all(Time::from_seconds(1_790_000_000));
        let names: Vec<_> = all.iter().filter_map(|d| d["metadata"]["name"].as_str()).collect();
        assert_eq!(
            names,
            [
                "clusters.eks.services.k8s.aws",
                "ec2nodeclasses.karpenter.k8s.aws",
                "fargateprofiles.eks.services.k8s.aws",
                "nodeclaims.karpenter.sh",
                "nodeclasses.eks.amazonaws.com",
                "nodegroups.eks.services.k8s.aws",
                "nodepools.karpenter.sh",
                "verticalpodautoscalercheckpoints.autoscaling.k8s.io",
                "verticalpodautoscalers.autoscaling.k8s.io",
            ]
        );
        for definition in &all {
            let version = &definition["spec"]["versions"][0];
            assert!(version["schema"]["openAPIV3Schema"]["properties"]["spec"].is_object());
            assert_eq!(definition["metadata"]["uid"].as_str().map(str::len), Some(36));
        }
    }
}
