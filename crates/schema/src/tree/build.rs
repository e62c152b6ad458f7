//! Building the tree from JSON schemas.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1 as admissionregistration;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::autoscaling::{v1 as autoscaling_v1, v2 as autoscaling};
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::certificates::v1 as certificates;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::resource::v1 as resource;
use k8s_openapi::api::scheduling::{v1 as scheduling, v1alpha2 as scheduling_alpha};
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};
use wharf_model::custom;
use wharf_model::kinds::{Kind, Resource, built_in};

use super::{Definition, DefinitionId, Field, Listed, Merge, Shape, Tree, facts};

/// Where references to definitions point to.
pub(crate) const REFERENCE: &str = "#/definitions/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The JSON schemas of all served kinds and of all they refer to.
pub(crate) struct Schemas {
    /// By full name.
    pub(crate) definitions: BTreeMap<String, Value>,
    /// The full name of each kind's definition, in the order of the kinds.
    pub(crate) roots: Vec<(Kind, String)>,
}

/// The schemas of the served kinds: a few milliseconds of work and a few megabytes, so the caller
/// drops them.
fn schemas() -> Schemas {
    collect(generator())
}

/// The same, with what only OpenAPI documents tell of.
pub(crate) fn all_schemas() -> Schemas {
    let mut generator = generator();
    let _ = generator.subschema_for::<meta::ListMeta>();
    let _ = generator.subschema_for::<k8s_openapi::api::events::v1::Event>();
    let _ = generator.subschema_for::<CustomResourceDefinition>();
    collect(generator)
}

fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.transforms.clear();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn collect(mut generator: SchemaGenerator) -> Schemas {
    let mut roots = Vec::new();
    // Served beside the stored version.
    let _ = generator.subschema_for::<autoscaling_v1::HorizontalPodAutoscaler>();
    macro_rules! add {
        ($($type:ty),* $(,)?) => {
            $(add::<$type>(&mut generator, &mut roots);)*
        };
    }
    add!(
        core::Namespace,
        core::Node,
        core::Pod,
        core::Service,
        core::ServiceAccount,
        core::ConfigMap,
        core::Secret,
        core::Event,
        coordination::Lease,
        scheduling::PriorityClass,
        apps::Deployment,
        apps::ReplicaSet,
        policy::PodDisruptionBudget,
        core::PersistentVolume,
        core::PersistentVolumeClaim,
        storage::StorageClass,
        storage::CSINode,
        storage::CSIDriver,
        storage::CSIStorageCapacity,
        storage::VolumeAttachment,
        core::ReplicationController,
        core::LimitRange,
        apps::StatefulSet,
        apps::ControllerRevision,
        resource::ResourceClaim,
        resource::ResourceClaimTemplate,
        resource::DeviceClass,
        resource::ResourceSlice,
        scheduling_alpha::PodGroup,
        scheduling_alpha::Workload,
        autoscaling::HorizontalPodAutoscaler,
        admissionregistration::MutatingWebhookConfiguration,
        admissionregistration::ValidatingWebhookConfiguration,
        batch::Job,
        batch::CronJob,
        apps::DaemonSet,
        certificates::CertificateSigningRequest,
        core::Endpoints,
        discovery::EndpointSlice,
        networking::Ingress,
        networking::IngressClass,
    );
    let mut definitions: BTreeMap<String, Value> =
        generator.take_definitions(false).into_iter().collect();
    for kind in built_in() {
        if roots.iter().any(|(known, _)| known == kind) {
            continue;
        }
        let schema = match custom::schema(kind.kind) {
            Some(schema) => schema.clone(),
            None if kind.kind == "Instance" => crate::instance::schema(),
            None => continue,
        };
        let name = custom_name(*kind);
        definitions.insert(name.clone(), schema);
        roots.push((*kind, name));
    }
    roots.sort_by_key(|(kind, _)| *kind);
    Schemas { definitions, roots }
}

fn add<T: Resource + schemars::JsonSchema>(
    generator: &mut SchemaGenerator,
    roots: &mut Vec<(Kind, String)>,
) {
    // Only the definitions it leaves behind are wanted.
    let _ = generator.subschema_for::<T>();
    roots.push((T::kind(), T::schema_name().into_owned()));
}

/// A custom resource's definition: `sh.karpenter.v1.NodePool`.
fn custom_name(kind: Kind) -> String {
    let mut labels: Vec<&str> = kind.group.split('.').collect();
    labels.reverse();
    format!("{}.{}.{}", labels.join("."), kind.version, kind.kind)
}

/// The tree of all served kinds.
pub(super) fn tree() -> Tree {
    let schemas = schemas();
    let mut builder = Builder::default();
    // Ids first, so that definitions may refer to each other in any order.
    for name in schemas.definitions.keys() {
        let id = builder.reserve(name);
        builder.ids.insert(name.clone(), id);
    }
    for (name, schema) in &schemas.definitions {
        let custom =
            schemas.roots.iter().any(|(kind, root)| root == name && super::is_custom(*kind));
        let fields = builder.fields(schema, custom);
        let DefinitionId(index) = builder.ids[name];
        builder.definitions[index as usize].fields = fields;
    }
    builder.apply_facts();
    let mut roots = vec![None; built_in().len()];
    for (kind, name) in &schemas.roots {
        roots[kind.index] = builder.ids.get(name).copied();
    }
    Tree { definitions: builder.definitions, roots }
}

#[derive(Default)]
struct Builder {
    definitions: Vec<Definition>,
    ids: BTreeMap<String, DefinitionId>,
}

impl Builder {
    fn reserve(&mut self, name: &str) -> DefinitionId {
        let id = DefinitionId(u32::try_from(self.definitions.len()).expect("far fewer than 2^32"));
        self.definitions.push(Definition {
            name: name.into(),
            fields: Box::new([]),
            atomic: false,
        });
        id
    }

    fn fields(&mut self, schema: &Value, custom: bool) -> Box<[Field]> {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let mut fields: Vec<Field> = properties
            .iter()
            .map(|(name, schema)| Field {
                name: name.as_str().into(),
                shape: if custom && name == "metadata" && is_bare_object(schema) {
                    self.ids.get(OBJECT_META).map_or(Shape::Any, |id| Shape::Object(*id))
                } else {
                    self.shape(schema, custom)
                },
                listed: listed(schema),
                merge: Merge::default(),
            })
            .collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        fields.into()
    }

    fn shape(&mut self, schema: &Value, custom: bool) -> Shape {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        if let Some(name) = text("$ref").strip_prefix(REFERENCE) {
            return self.named(name);
        }
        if flag("x-kubernetes-int-or-string") {
            return if custom { Shape::LooseQuantity } else { Shape::IntOrString };
        }
        match text("type") {
            "string" if text("format") == "byte" => Shape::Bytes,
            "string" => Shape::String,
            "integer" if text("format") == "int32" => Shape::Int32,
            "integer" => Shape::Int64,
            "number" => Shape::Number,
            "boolean" => Shape::Boolean,
            "array" => {
                let items =
                    schema.get("items").map_or(Shape::Any, |items| self.shape(items, custom));
                Shape::List(Box::new(items))
            }
            "object" => {
                if let Some(values) = schema.get("additionalProperties").filter(|it| it.is_object())
                {
                    Shape::Map(Box::new(self.shape(values, custom)))
                } else if schema.get("properties").is_some() {
                    let id = self.reserve("");
                    let fields = self.fields(schema, custom);
                    self.definitions[id.0 as usize].fields = fields;
                    Shape::Object(id)
                } else {
                    Shape::Any
                }
            }
            _ => Shape::Any,
        }
    }

    /// A reference. A few definitions are scalars or free JSON, which Go decodes by hand.
    fn named(&self, name: &str) -> Shape {
        match name {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => Shape::Quantity,
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Shape::IntOrString,
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Shape::Time,
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Shape::MicroTime,
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
            | "io.k8s.apimachinery.pkg.runtime.RawExtension" => Shape::Any,
            _ => self.ids.get(name).map_or(Shape::Any, |id| Shape::Object(*id)),
        }
    }

    fn apply_facts(&mut self) {
        for fact in facts::all() {
            let Some(id) = self.ids.get(&facts::full_name(fact.definition)) else { continue };
            let definition = &mut self.definitions[id.0 as usize];
            match fact.field {
                None => definition.atomic = fact.listed == Listed::Atomic,
                Some(name) => {
                    if let Some(index) = definition.position(name) {
                        definition.fields[index].listed = fact.listed;
                        definition.fields[index].merge = fact.merge;
                    }
                }
            }
        }
    }
}

fn is_bare_object(schema: &Value) -> bool {
    schema.get("properties").is_none()
        && schema.get("type").and_then(Value::as_str) == Some("object")
}

/// What a custom resource's schema says of merging.
fn listed(schema: &Value) -> Listed {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    match (text("x-kubernetes-list-type"), text("x-kubernetes-map-type")) {
        (Some("set"), _) => Listed::Set,
        (Some("map"), _) => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            Listed::Map(
                keys.into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect(),
            )
        }
        (Some("atomic"), _) | (_, Some("atomic")) => Listed::Atomic,
        (_, Some("granular")) => Listed::Granular,
        _ => Listed::Unsaid,
    }
}
