//! Custom and external metrics that somebody wrote down: annotations on the objects they are about
//! (`custom.load.wharf.dev/METRIC`), and on any object of a namespace for external ones
//! (`external.load.wharf.dev/METRIC`), whose series has the object's labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::curve::Curve;
use wharf_model::kinds::{Keep, Kind};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::metrics::{Board, Series, Told, Value};
use wharf_ports::view::View;

/// Of the object itself.
const CUSTOM: &str = "custom.load.wharf.dev/";
/// Of its namespace.
const EXTERNAL: &str = "external.load.wharf.dev/";
/// What both have in common.
const COMMON: &[u8] = b".load.wharf.dev/";

/// What was told of objects.
#[derive(Debug, Default)]
pub(crate) struct Values {
    told: BTreeMap<(Kind, ObjectKey), Vec<(Series, String)>>,
}

/// Whether an object says anything of metrics.
pub(crate) fn tells_values(object: &Object) -> bool {
    if object.kind() == Kind::of::<Event>() {
        return false;
    }
    if object.kind().keep == Keep::Json {
        // Most say nothing: that they need not be decoded for.
        if !object.json().windows(COMMON.len()).any(|window| window == COMMON) {
            return false;
        }
    }
    meta(object).is_some_and(|meta| {
        let mut keys = meta.annotations.iter().flatten().map(|(key, _)| key);
        keys.any(|key| key.starts_with(CUSTOM) || key.starts_with(EXTERNAL))
    })
}

fn meta(object: &Object) -> Option<&ObjectMeta> {
    object.typed_any().ok().map(|typed| typed.meta())
}

impl Values {
    /// Whether anything was told of an object.
    pub(crate) fn has_told(&self, kind: Kind, key: &ObjectKey) -> bool {
        self.told.contains_key(&(kind, key.clone()))
    }

    /// Tells the board what an object says now. Returns what is wrong with it.
    pub(crate) fn take(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        view: &View,
        board: &Board,
        now: Time,
    ) -> Vec<String> {
        let subject = (kind, key.clone());
        let before = self.told.remove(&subject).unwrap_or_default();
        let (mut said, mut problems) = (Vec::new(), Vec::new());
        let meta = view.object(kind, key).and_then(|object| meta(object));
        let namespace = if kind.namespaced { &key.namespace } else { &key.name };
        let configmaps = |name: &str, data: &str| {
            let found = view.get::<ConfigMap>(&ObjectKey::namespaced(namespace, name))?;
            found.data.as_ref()?.get(data).cloned()
        };
        for (annotation, text) in
            meta.into_iter().flat_map(|meta| meta.annotations.iter().flatten())
        {
            let Some(series) = series(kind, key, annotation, meta) else { continue };
            let curve = match Curve::parse(text, &configmaps) {
                Ok(curve) => curve,
                Err(error) => {
                    problems.push(format!("annotation {annotation}: {error}"));
                    continue;
                }
            };
            let known = before.iter().any(|(known, was)| *known == series && was == text);
            if !known {
                let created = meta.and_then(|meta| meta.creation_timestamp.as_ref());
                let start = created.map_or(now, Time::from);
                let value = match curve {
                    Curve::Constant(number) => Value::Number(number),
                    curve => Value::Curve(Arc::new(curve), start),
                };
                board.take(Told::Value { series: series.clone(), value, at: now });
            }
            said.push((series, text.clone()));
        }
        for (series, _) in before {
            if !said.iter().any(|(known, _)| *known == series) {
                board.take(Told::ValueGone { series });
            }
        }
        if !said.is_empty() {
            self.told.insert(subject, said);
        }
        problems
    }
}

fn series(
    kind: Kind,
    key: &ObjectKey,
    annotation: &str,
    meta: Option<&ObjectMeta>,
) -> Option<Series> {
    if let Some(metric) = annotation.strip_prefix(CUSTOM) {
        return Some(Series {
            resource: kind.group_resource().into(),
            object: key.clone(),
            metric: metric.into(),
            labels: BTreeMap::new(),
        });
    }
    let metric = annotation.strip_prefix(EXTERNAL)?;
    // On a Namespace it is about what is in it.
    let namespace = if kind.namespaced { &key.namespace } else { &key.name };
    Some(Series {
        resource: "".into(),
        object: ObjectKey::namespaced(namespace, format!("{}/{}", kind.plural, key.name)),
        metric: metric.into(),
        labels: meta.and_then(|meta| meta.labels.clone()).unwrap_or_default(),
    })
}
