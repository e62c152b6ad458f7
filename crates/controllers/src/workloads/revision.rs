//! The history of a workload's template: one ControllerRevision for each, numbered.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::labels::CONTROLLER_REVISION_HASH;
use wharf_model::object::Object;
use wharf_model::random::fnv1a;
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_ports::view::View;

use super::owners::controller_reference;

/// The hash of a revision's data, by upstream's label.
const HASH: &str = "controller.kubernetes.io/hash";

/// A workload whose template has a history.
pub(super) trait Revised: Resource {
    /// What its pods are made from.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// How many revisions that nobody uses are kept.
    fn history_limit(&self) -> Option<i32>;
}

impl Revised for StatefulSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn history_limit(&self) -> Option<i32> {
        self.spec.as_ref()?.revision_history_limit
    }
}

impl Revised for DaemonSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn history_limit(&self) -> Option<i32> {
        self.spec.as_ref()?.revision_history_limit
    }
}

/// The revisions of a workload, by their numbers.
pub(super) struct History<'v> {
    revisions: Vec<(&'v Arc<Object>, &'v ControllerRevision)>,
    /// The present template as a revision's data.
    data: Value,
}

impl<'v> History<'v> {
    pub(super) fn of<T: Revised>(object: &Object, set: &T, view: &'v View) -> Self {
        let mut revisions: Vec<(&Arc<Object>, &ControllerRevision)> = view
            .owned_by(object.uid(), Kind::of::<ControllerRevision>())
            .filter_map(|object| Some((object, object.typed::<ControllerRevision>()?)))
            .collect();
        revisions.sort_by_key(|(object, revision)| (revision.revision, object.key().clone()));
        Self { revisions, data: data(set) }
    }

    /// The revision of the present template; `None` until it has been written.
    pub(super) fn update(&self) -> Option<&'v ControllerRevision> {
        let is_present = |revision: &ControllerRevision| {
            revision.data.as_ref().is_some_and(|RawExtension(data)| *data == self.data)
        };
        self.revisions.iter().rev().map(|(_, one)| *one).find(|one| is_present(one))
    }

    pub(super) fn named(&self, name: &str) -> Option<&'v ControllerRevision> {
        let named = |one: &&ControllerRevision| one.metadata.name.as_deref() == Some(name);
        self.revisions.iter().map(|(_, one)| *one).find(named)
    }

    /// Makes the revision of the present template the newest: writes it, or, for a template of
    /// before, gives it the next number.
    pub(super) fn write<T: Revised>(&self, set: &T) -> Option<Write> {
        let last = self.revisions.last().map_or(0, |(_, revision)| revision.revision);
        match self.update() {
            Some(update) if update.revision == last => None,
            Some(update) => {
                let update = ControllerRevision { revision: last + 1, ..update.clone() };
                Some(Write::Update { object: Box::new(update), part: Part::Main })
            }
            None => Some(Write::Create(Box::new(self.revision(set, last + 1)))),
        }
    }

    fn revision<T: Revised>(&self, set: &T, number: i64) -> ControllerRevision {
        let hash = hash(&self.data.to_string());
        let meta = set.metadata();
        let set_name = meta.name.as_deref().unwrap_or_default();
        let template = set.template().and_then(|template| template.metadata.clone());
        let mut labels = template.and_then(|meta| meta.labels).unwrap_or_default();
        labels.insert(HASH.to_owned(), hash.clone());
        labels.insert(CONTROLLER_REVISION_HASH.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{set_name}-{hash}")),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![controller_reference(set)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(self.data.clone())),
            revision: number,
        }
    }

    /// Deletes the oldest revisions that are beyond the limit and not among those in use.
    pub(super) fn surplus<T: Revised>(&self, set: &T, live: &BTreeSet<&str>) -> Vec<Write> {
        let limit = set.history_limit().unwrap_or(10);
        let update = self.update().and_then(|update| update.metadata.name.as_deref());
        let is_live = |object: &Object| {
            let name = object.key().name.as_str();
            let hash = object.header().label(CONTROLLER_REVISION_HASH);
            update == Some(name)
                || live.contains(name)
                || hash.is_some_and(|hash| live.contains(hash))
        };
        let idle: Vec<&&Arc<Object>> = self
            .revisions
            .iter()
            .map(|(object, _)| object)
            .filter(|object| !is_live(object))
            .collect();
        let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        idle.into_iter().take(surplus).map(|object| Write::Delete(Delete::of(object))).collect()
    }
}

/// The hash by which a revision's pods know it.
pub(super) fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(CONTROLLER_REVISION_HASH)).map_or("", String::as_str)
}

/// The template that a revision holds.
pub(super) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let RawExtension(data) = revision.data.as_ref()?;
    let mut template = data.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// A revision's data is the patch that brings its template back.
fn data<T: Revised>(set: &T) -> Value {
    let mut template = serde_json::to_value(set.template()).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// A short hash in the alphabet of generated names, as Deployments' templates have.
fn hash(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let wide = fnv1a(text.as_bytes());
    let digits = ((wide ^ (wide >> 32)) & u64::from(u32::MAX)).to_string();
    digits.bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}
