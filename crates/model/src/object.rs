//! How one API object is held: once, as JSON bytes or as a typed value, the other form made on
//! first demand and kept.
//!
//! An object from the API arrives as bytes, one from a controller as a typed value. LIST and WATCH
//! send the bytes; controllers read the typed value; a rehearsal never makes bytes at all.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::kinds::{Kind, Resource};
use crate::time::Time;
use crate::unset;

/// A position in the store's one history. Revisions grow with every write; 0 is "before all".
pub type Revision = u64;

/// The name of an object within its kind: namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: CompactString,
    /// The name.
    pub name: CompactString,
}

impl ObjectKey {
    /// The key of a namespaced object.
    pub fn namespaced(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        Self { namespace: namespace.as_ref().into(), name: name.as_ref().into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl AsRef<str>) -> Self {
        Self { namespace: CompactString::default(), name: name.as_ref().into() }
    }

    /// The key that `meta` names.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::namespaced(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

/// `namespace/name`, or the bare name of a cluster-scoped object.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Room for the JSON of most objects, so that it does not have to grow in the making.
const JSON_BYTES: usize = 2048;

/// A typed API object behind a uniform face. Implemented for every [`Resource`].
pub trait Typed: Any + Send + Sync {
    /// The kind.
    fn kind(&self) -> Kind;
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// Appends its JSON, `apiVersion` and `kind` included.
    fn encode_into(&self, json: &mut Vec<u8>);
    /// Its JSON, `apiVersion` and `kind` included.
    fn encode(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(JSON_BYTES);
        self.encode_into(&mut json);
        json.shrink_to_fit();
        json
    }
    /// A copy.
    fn clone_box(&self) -> Box<dyn Typed>;
    /// For downcasts to the concrete type.
    fn as_any(&self) -> &dyn Any;
    /// For mutable downcasts to the concrete type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl fmt::Debug for dyn Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), ObjectKey::of(self.meta()))
    }
}

impl<T: Resource> Typed for T {
    fn kind(&self) -> Kind {
        T::kind()
    }
    fn meta(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }
    fn encode_into(&self, json: &mut Vec<u8>) {
        // Plain data with string keys cannot fail to encode; an empty body would be refused on
        // decode, so the invariant is checked here.
        let written = match unset::filled_in(self) {
            None => serde_json::to_writer(&mut *json, self),
            Some(filled) => serde_json::to_writer(&mut *json, &filled),
        };
        written.expect("a typed API object always encodes as JSON");
        unset::append_to(json, self);
    }
    fn clone_box(&self) -> Box<dyn Typed> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// An owner reference, as far as garbage collection and look-ups by owner need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The owner's uid.
    pub uid: CompactString,
    /// Kind of the owner, as written in the reference.
    pub kind: CompactString,
    /// Name of the owner.
    pub name: CompactString,
    /// Whether this owner manages the object.
    pub controller: bool,
    /// Whether a foreground deletion of the owner waits for this object.
    pub block_deletion: bool,
}

/// What look-ups need of an object's metadata without decoding the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The uid given at creation.
    pub uid: CompactString,
    /// Labels, sorted by key.
    pub labels: Box<[(CompactString, CompactString)]>,
    /// Owner references in their order.
    pub owners: Box<[Owner]>,
    /// When the object was created.
    pub created: Time,
    /// Since when it is being deleted.
    pub deleting: Option<Time>,
    /// Whether finalizers still hold it.
    pub has_finalizers: bool,
}

impl Header {
    /// The header of an object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            key: ObjectKey::of(meta),
            uid: meta.uid.as_deref().unwrap_or_default().to_compact_string(),
            labels: meta
                .labels
                .iter()
                .flatten()
                .map(|(key, value)| (key.to_compact_string(), value.to_compact_string()))
                .collect(),
            owners: meta
                .owner_references
                .iter()
                .flatten()
                .map(|owner| Owner {
                    uid: owner.uid.to_compact_string(),
                    kind: owner.kind.to_compact_string(),
                    name: owner.name.to_compact_string(),
                    controller: owner.controller == Some(true),
                    block_deletion: owner.block_owner_deletion == Some(true),
                })
                .collect(),
            created: meta.creation_timestamp.as_ref().map(Time::from).unwrap_or_default(),
            deleting: meta.deletion_timestamp.as_ref().map(Time::from),
            has_finalizers: meta.finalizers.as_ref().is_some_and(|list| !list.is_empty()),
        }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let index = self.labels.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.labels[index].1)
    }

    /// The managing owner, if there is one.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }
}

/// Why the stored bytes of an object could not be read as its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {key} cannot be decoded: {message}")]
pub struct DecodeError {
    /// The kind that was expected.
    pub kind: &'static str,
    /// Which object.
    pub key: ObjectKey,
    /// What the decoder said.
    pub message: String,
}

/// One version of one API object. Immutable; a change is a new `Object` with a higher revision.
pub struct Object {
    kind: Kind,
    header: Header,
    revision: Revision,
    json: OnceLock<Bytes>,
    typed: OnceLock<Result<Arc<dyn Typed>, Box<DecodeError>>>,
}

impl Object {
    /// From a typed value, which gets `revision` as its `resourceVersion`.
    pub fn from_typed(value: Box<dyn Typed>, revision: Revision) -> Self {
        Unsequenced::new(value).at(revision)
    }

    /// From stored JSON of a known kind. The bytes must already hold the `resourceVersion`.
    ///
    /// # Errors
    /// If the bytes are not a JSON object with readable `metadata`.
    pub fn from_json(kind: Kind, json: Bytes, revision: Revision) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        let envelope: Envelope = serde_json::from_slice(&json).map_err(|error| DecodeError {
            kind: kind.kind,
            key: ObjectKey::default(),
            message: error.to_string(),
        })?;
        let object = Self {
            kind,
            header: Header::of(&envelope.metadata),
            revision,
            json: OnceLock::new(),
            typed: OnceLock::new(),
        };
        let _ = object.json.set(json);
        Ok(object)
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The indexed part of the metadata.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        &self.header.key
    }

    /// The uid.
    pub fn uid(&self) -> &str {
        &self.header.uid
    }

    /// The revision that wrote this version.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The JSON form; made and kept on first call.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| match self.typed.get() {
            Some(Ok(typed)) => Bytes::from(typed.encode()),
            // Built from either form, so without typed there is JSON and this is not reached.
            _ => Bytes::new(),
        })
    }

    /// The JSON form, encoded for this call only when the object holds no bytes yet. For a writer
    /// that needs the bytes once and must not keep both forms in memory.
    pub fn json_unkept(&self) -> Bytes {
        match (self.json.get(), self.typed.get()) {
            (Some(json), _) => json.clone(),
            (None, Some(Ok(typed))) => Bytes::from(typed.encode()),
            _ => Bytes::new(),
        }
    }

    /// Appends the JSON form; what had to be encoded is not kept.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match (self.json.get(), self.typed.get()) {
            (Some(json), _) => out.extend_from_slice(json),
            (None, Some(Ok(typed))) => typed.encode_into(out),
            _ => {}
        }
    }

    /// The typed form behind its uniform face; made and kept on first call.
    ///
    /// # Errors
    /// If the stored bytes do not decode as the kind.
    pub fn typed_any(&self) -> Result<&Arc<dyn Typed>, &DecodeError> {
        self.typed
            .get_or_init(|| {
                let json = self.json.get().cloned().unwrap_or_default();
                (self.kind.decode)(&json).map(Arc::from).map_err(|message| {
                    let key = self.header.key.clone();
                    Box::new(DecodeError { kind: self.kind.kind, key, message })
                })
            })
            .as_ref()
            .map_err(|error| &**error)
    }

    /// The typed form as `T`; `None` if the object is of another kind or does not decode (such an
    /// object is set aside by every controller and reported by [`Object::typed_any`]).
    pub fn typed<T: Resource>(&self) -> Option<&T> {
        self.typed_any().ok()?.as_any().downcast_ref::<T>()
    }

    /// A copy of the typed form to change and write back.
    pub fn draft<T: Resource>(&self) -> Option<T> {
        self.typed::<T>().cloned()
    }

    /// The same version holding only its JSON: for kinds that no controller reads.
    #[must_use]
    pub fn as_json_only(self) -> Self {
        let json = self.json().clone();
        let kept = OnceLock::new();
        let _ = kept.set(json);
        Self { json: kept, typed: OnceLock::new(), ..self }
    }
}

/// A typed value on its way to become an [`Object`]: all is there but its revision.
pub struct Unsequenced {
    header: Header,
    value: Box<dyn Typed>,
}

impl Unsequenced {
    /// Takes a value.
    pub fn new(value: Box<dyn Typed>) -> Self {
        Self { header: Header::of(value.meta()), value }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.value.kind()
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        &self.header.key
    }

    /// The value back.
    pub fn into_typed(self) -> Box<dyn Typed> {
        self.value
    }

    /// The object under its revision, which the value gets as its `resourceVersion`.
    pub fn at(self, revision: Revision) -> Object {
        let Self { header, mut value } = self;
        value.meta_mut().resource_version = Some(revision.to_string());
        let kind = value.kind();
        let typed = OnceLock::from(Ok(Arc::from(value)));
        Object { kind, header, revision, json: OnceLock::new(), typed }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} @{}", self.kind, self.header.key, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};

    use super::*;

    fn config_map() -> ConfigMap {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"x": "1", "b": "2"},
                "finalizers": ["f"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "o", "controller": true}]},
            "data": {"k": "v"}
        }))
        .expect("a valid ConfigMap")
    }

    #[test]
    fn typed_and_json_forms_agree() {
        let typed = Object::from_typed(Box::new(config_map()), 7);
        let json = Object::from_json(Kind::of::<ConfigMap>(), typed.json().clone(), 7)
            .expect("its own JSON decodes");
        assert_eq!(typed.header(), json.header());
        assert_eq!(typed.typed::<ConfigMap>(), json.typed::<ConfigMap>());
        assert_eq!(typed.header().label("b"), Some("2"));
        assert_eq!(typed.header().label("c"), None);
        assert_eq!(typed.header().controller().map(|owner| owner.name.as_str()), Some("p"));
        assert!(typed.header().has_finalizers);
        let text = String::from_utf8(json.json().to_vec()).expect("JSON is UTF-8");
        assert!(text.starts_with(r#"{"apiVersion":"v1","kind":"ConfigMap","#), "{text}");
        assert!(text.contains(r#""resourceVersion":"7""#), "{text}");
    }

    #[test]
    fn a_typed_read_of_the_wrong_kind_or_of_rubbish_is_none() {
        let object = Object::from_typed(Box::new(config_map()), 1);
        assert!(object.typed::<Pod>().is_none());
        let json = Bytes::from_static(br#"{"metadata":{"name":"p"},"spec":{"containers":5}}"#);
        let bad = Object::from_json(Kind::of::<Pod>(), json, 1).expect("metadata is readable");
        assert!(bad.typed::<Pod>().is_none());
        assert!(bad.typed_any().is_err_and(|error| error.to_string().starts_with("Pod p cannot")));
    }
}
