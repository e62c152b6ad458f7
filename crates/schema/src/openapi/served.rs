//! Which objects the documents tell of.

use wharf_model::kinds::Kind;

use crate::tree::is_custom;

/// One resource.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
    /// Whether it can only be read.
    pub(super) read_only: bool,
    /// Whether it is a custom resource.
    pub(super) is_custom: bool,
    /// The full name of its definition.
    pub(super) definition: String,
    /// Whether it has a status of its own.
    pub(super) has_status: bool,
}

impl Served {
    pub(super) fn of(kind: Kind, definition: String, has_status: bool) -> Self {
        Self {
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
            plural: kind.plural,
            namespaced: kind.namespaced,
            read_only: false,
            is_custom: is_custom(kind),
            definition,
            has_status,
        }
    }

    /// `api/v1`, `apis/apps/v1`.
    pub(super) fn group_version_path(&self) -> String {
        if self.group.is_empty() {
            format!("api/{}", self.version)
        } else {
            format!("apis/{}/{}", self.group, self.version)
        }
    }

    /// The definition of its list.
    pub(super) fn list_definition(&self) -> String {
        format!("{}List", self.definition)
    }
}
