//! The fields of every served kind as a compact graph: what type a field has, and how its list or
//! map is merged.
//!
//! Built once, on first use, from the schemas of `k8s_openapi`'s types and of the custom resources,
//! joined with the merge facts of `data/merge-facts.csv`. Descriptions stay out: only OpenAPI
//! documents need them, and those are made from the schemas themselves.
//!
//! Public contract: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>.

mod build;
pub(crate) mod facts;

pub(crate) use build::{REFERENCE, all_schemas};

use std::sync::LazyLock;

use wharf_model::kinds::Kind;

/// The fields of all served kinds.
#[derive(Debug)]
pub struct Tree {
    definitions: Vec<Definition>,
    /// By the kind's index.
    roots: Vec<Option<DefinitionId>>,
}

/// The position of a definition in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefinitionId(u32);

/// One object type with its fields.
#[derive(Debug)]
pub struct Definition {
    /// The full name, `io.k8s.api.core.v1.Container`; empty for an object within a custom resource
    /// that has no name of its own.
    pub name: Box<str>,
    /// Fields, sorted by name.
    pub fields: Box<[Field]>,
    /// Whether server-side apply owns the object as a whole.
    pub atomic: bool,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// The JSON name.
    pub name: Box<str>,
    /// What it holds.
    pub shape: Shape,
    /// How server-side apply merges it.
    pub listed: Listed,
    /// How a strategic merge patch merges it.
    pub merge: Merge,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// Any number.
    Number,
    /// A boolean.
    Boolean,
    /// Base64.
    Bytes,
    /// A point in time, to the second.
    Time,
    /// A point in time, to the microsecond.
    MicroTime,
    /// A number or a text.
    IntOrString,
    /// A quantity, kept in canonical form.
    Quantity,
    /// A quantity of a custom resource, kept as it was written.
    LooseQuantity,
    /// Any JSON.
    Any,
    /// A list.
    List(Box<Shape>),
    /// A map with free keys.
    Map(Box<Shape>),
    /// An object with named fields.
    Object(DefinitionId),
}

/// How server-side apply merges a list or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// Nothing is said: lists are atomic, maps granular.
    #[default]
    Unsaid,
    /// Owned as a whole.
    Atomic,
    /// A map or object owned key by key.
    Granular,
    /// A list of distinct scalars.
    Set,
    /// A list of objects told apart by these keys.
    Map(Box<[Box<str>]>),
}

/// How a strategic merge patch merges a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Lists are merged rather than replaced.
    pub merge: bool,
    /// What a patch does not name goes away.
    pub retain_keys: bool,
    /// An object that is replaced as a whole.
    pub replace: bool,
    /// What tells list items apart; none for scalars.
    pub key: Option<Box<str>>,
}

impl Tree {
    /// The tree; built on first call.
    pub fn get() -> &'static Self {
        static TREE: LazyLock<Tree> = LazyLock::new(build::tree);
        &TREE
    }

    /// The fields of a kind.
    pub fn root(&self, kind: Kind) -> Option<DefinitionId> {
        self.roots.get(kind.index).copied().flatten()
    }

    /// The definition of a full name.
    pub fn named(&self, name: &str) -> Option<DefinitionId> {
        let index = self.definitions.iter().position(|definition| *definition.name == *name)?;
        u32::try_from(index).ok().map(DefinitionId)
    }

    /// A definition.
    pub fn definition(&self, id: DefinitionId) -> &Definition {
        &self.definitions[id.0 as usize]
    }

    /// The field at a path of names, through lists and maps.
    pub fn find(&self, kind: Kind, path: &[&str]) -> Option<&Field> {
        let (first, rest) = path.split_first()?;
        let mut field = self.definition(self.root(kind)?).field(first)?;
        for name in rest {
            let mut shape = &field.shape;
            while let Shape::List(inner) | Shape::Map(inner) = shape {
                shape = inner;
            }
            let Shape::Object(id) = shape else { return None };
            field = self.definition(*id).field(name)?;
        }
        Some(field)
    }
}

impl Definition {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|index| &self.fields[index])
    }

    /// Where a field is.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()
    }

    /// The type's bare name, `Container`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// The type as Go's messages name it, `v1.Container`.
    pub fn go_name(&self) -> &str {
        let last_two = self.name.rmatch_indices('.').nth(1).map_or(0, |(dot, _)| dot + 1);
        &self.name[last_two..]
    }
}

/// Custom resources are decoded by the rules of structural schemas rather than by Go's types.
pub(crate) fn is_custom(kind: Kind) -> bool {
    kind.is_custom()
}

#[cfg(test)]
mod tests {
    use wharf_model::kinds::built_in;

    use super::*;

    fn kind(name: &str) -> Kind {
        *built_in().iter().find(|kind| kind.kind == name).unwrap()
    }

    #[test]
    fn every_kind_has_its_fields() {
        for kind in built_in() {
            let root = Tree::get().root(*kind).unwrap_or_else(|| panic!("{kind} has no schema"));
            let metadata = Tree::get().definition(root).field("metadata").unwrap();
            let Shape::Object(id) = metadata.shape else { panic!("{kind} metadata") };
            assert!(Tree::get().definition(id).field("ownerReferences").is_some(), "{kind}");
        }
    }

    #[test]
    fn shapes_and_merge_facts_are_upstreams() {
        let tree = Tree::get();
        let field = |name: &str, path: &str| {
            tree.find(kind(name), &path.split('.').collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(field("Deployment", "spec.replicas").shape, Shape::Int32);
        assert_eq!(field("Pod", "spec.activeDeadlineSeconds").shape, Shape::Int64);
        assert_eq!(
            field("Deployment", "spec.strategy.rollingUpdate.maxSurge").shape,
            Shape::IntOrString
        );
        assert_eq!(
            field("Pod", "spec.containers.resources.limits").shape,
            Shape::Map(Box::new(Shape::Quantity))
        );
        assert_eq!(field("Secret", "data").shape, Shape::Map(Box::new(Shape::Bytes)));
        assert_eq!(field("Lease", "spec.renewTime").shape, Shape::MicroTime);
        assert_eq!(field("Pod", "metadata.creationTimestamp").shape, Shape::Time);
        assert_eq!(
            field("NodePool", "spec.limits").shape,
            Shape::Map(Box::new(Shape::LooseQuantity))
        );
        let ports = field("Deployment", "spec.template.spec.containers.ports");
        assert_eq!(ports.merge.key.as_deref(), Some("containerPort"));
        assert_eq!(
            ports.listed,
            Listed::Map(Box::new(["containerPort".into(), "protocol".into()]))
        );
        assert!(field("Deployment", "spec.strategy").merge.retain_keys);
        assert!(field("PodDisruptionBudget", "spec.selector").merge.replace);
        let finalizers = field("Node", "metadata.finalizers");
        assert_eq!((finalizers.merge.merge, &finalizers.merge.key), (true, &None));
        assert!(!field("Pod", "spec.tolerations").merge.merge);
        let volumes = field("Pod", "spec.volumes");
        assert!(volumes.merge.merge && volumes.merge.retain_keys);
    }
}
