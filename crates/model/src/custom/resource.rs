//! What makes a struct an API object in the manner of `k8s_openapi`'s built-in kinds.

/// Implements the `k8s_openapi` traits for a kind with the fields `metadata`, `spec` and `status`,
/// and a `Serialize` that writes `apiVersion` and `kind` first. A status that says nothing is left
/// out, as it is from an object that no controller has seen. The kind is named as its type unless
/// another name is given: several groups may have a kind of one name.
macro_rules! custom_resource {
    ($type:ident, $scope:ident, $group:literal, $version:literal, $plural:literal) => {
        $crate::custom::resource::custom_resource!(
            @impl $type, stringify!($type), $scope, $group, $version, $plural
        );
    };
    ($type:ident, $kind:literal, $scope:ident, $group:literal, $version:literal, $plural:literal) => {
        $crate::custom::resource::custom_resource!(
            @impl $type, $kind, $scope, $group, $version, $plural
        );
    };
    (@impl $type:ident, $kind:expr, $scope:ident, $group:literal, $version:literal, $plural:literal) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::$scope;
        }

        impl k8s_openapi::ListableResource for $type {
            const LIST_KIND: &'static str = concat!($kind, "List");
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;
                let has_status = self.status != Default::default();
                let mut out =
                    serializer.serialize_struct(stringify!($type), 4 + usize::from(has_status))?;
                out.serialize_field("apiVersion", <Self as k8s_openapi::Resource>::API_VERSION)?;
                out.serialize_field("kind", <Self as k8s_openapi::Resource>::KIND)?;
                out.serialize_field("metadata", &self.metadata)?;
                out.serialize_field("spec", &self.spec)?;
                if has_status {
                    out.serialize_field("status", &self.status)?;
                }
                out.end()
            }
        }
    };
}

/// [`custom_resource`] for a kind without namespaces.
macro_rules! cluster_resource {
    ($type:ident, $group:literal, $version:literal, $plural:literal) => {
        $crate::custom::resource::custom_resource!(
            $type,
            ClusterResourceScope,
            $group,
            $version,
            $plural
        );
    };
}

/// [`custom_resource`] for a kind within namespaces.
macro_rules! namespaced_resource {
    ($type:ident, $group:literal, $version:literal, $plural:literal) => {
        $crate::custom::resource::custom_resource!(
            $type,
            NamespaceResourceScope,
            $group,
            $version,
            $plural
        );
    };
}

pub(crate) use {cluster_resource, custom_resource, namespaced_resource};
