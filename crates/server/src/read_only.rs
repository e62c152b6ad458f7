//! Lists of objects that are part of the program: they can be got, listed and watched, and never change.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_model::selector::FieldSelector;
use wharf_ports::error::{ApiError, StatusReason};

use crate::api::Api;
use crate::body::Body;
use crate::handlers::{Call, finish};
use crate::negotiate::Form;
use crate::query::ListOptions;
use crate::resources::Resource;
use crate::serve::stopped;
use crate::status;

/// Such objects, in the order of their names.
pub(crate) struct ReadOnly {
    /// The objects.
    pub(crate) objects: Vec<Value>,
    /// The columns of their table.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// An object's cells.
    pub(crate) cells: fn(&Value, &Api) -> Vec<Value>,
    /// What is said to who would change them.
    pub(crate) refusal: &'static str,
}

impl ReadOnly {
    /// Answers get, list and watch.
    pub(crate) fn answer(
        self,
        api: &Arc<Api>,
        call: &Call<'_>,
        resource: &Resource,
    ) -> Result<Response<Body>, ApiError> {
        if call.path.subresource.is_some() {
            return Err(status::no_such_path());
        }
        if !matches!(call.head.method, Method::GET | Method::HEAD) {
            let mut error = ApiError::new(StatusReason::MethodNotAllowed, self.refusal);
            error.group = resource.group.to_owned();
            error.kind = resource.plural.to_owned();
            return Err(error);
        }
        if let Some(name) = call.path.name.as_deref() {
            let found = self.objects.iter().find(|object| object["metadata"]["name"] == name);
            let found = found.cloned().ok_or_else(|| not_found(resource, name))?;
            let shown = match call.accepted.form {
                Form::Plain => found,
                Form::Metadata => metadata_only(&found),
                Form::Table => self.table(&[found], api),
            };
            return finish(call, StatusCode::OK, Bytes::from(shown.to_string()));
        }
        let watch = call.path.watch || call.query.flag("watch") == Some(true);
        let options = ListOptions::parse(&call.query)?;
        let mut objects = self.objects.clone();
        objects.retain(|object| selects(&options.fields, object));
        objects.retain(|object| {
            options.labels.matches_with(|key| object["metadata"]["labels"][key].as_str())
        });
        if watch {
            return Ok(idle_watch(api, &options, objects));
        }
        let revision = api.store.revision().to_string();
        let list = match call.accepted.form {
            Form::Plain => json!({
                "kind": format!("{}List", resource.kind),
                "apiVersion": resource.api_version(),
                "metadata": {"resourceVersion": revision},
                "items": objects,
            }),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": revision},
                "items": objects.iter().map(metadata_only).collect::<Vec<_>>(),
            }),
            Form::Table => {
                let mut table = self.table(&objects, api);
                table["metadata"] = json!({"resourceVersion": revision});
                table
            }
        };
        finish(call, StatusCode::OK, Bytes::from(list.to_string()))
    }

    fn table(&self, objects: &[Value], api: &Api) -> Value {
        let column = |(name, format): &(&str, &str)| json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0});
        let row = |object: &Value| json!({"cells": (self.cells)(object, api), "object": metadata_only(object)});
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {},
            "columnDefinitions": self.columns.iter().map(column).collect::<Vec<_>>(),
            "rows": objects.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// A uid that is the same at every start.
pub(crate) fn uid(name: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-5{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

fn selects(fields: &FieldSelector, object: &Value) -> bool {
    fields.matches(|field| match field {
        "metadata.name" => object["metadata"]["name"].as_str(),
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

/// A watch of what never changes: the present objects if they are asked for, then silence.
fn idle_watch(api: &Api, options: &ListOptions, objects: Vec<Value>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    let initial = options.resource_version.is_none_or(|version| version == 0);
    let text: String = objects
        .iter()
        .filter(|_| initial)
        .map(|object| format!("{}\n", json!({"type": "ADDED", "object": object})))
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

fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}
