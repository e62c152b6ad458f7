//! What is served: the table of resources with their verbs and subresources, as the paths name
//! them. Discovery prints this table; routing looks things up in it.

use std::sync::LazyLock;

use wharf_model::kinds::{Kind, built_in};
use wharf_schema::decode::Version;

/// One resource of one group-version.
pub(crate) struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// The resource's name, `pods`.
    pub plural: &'static str,
    /// The singular name.
    pub singular: &'static str,
    /// The kind's name, `Pod`.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// kubectl's short names.
    pub short_names: &'static [&'static str],
    /// kubectl's categories.
    pub categories: &'static [&'static str],
    /// What can be done, in upstream's order (alphabetical).
    pub verbs: &'static [&'static str],
    /// Subresources, in alphabetical order.
    pub subresources: Vec<Subresource>,
    /// Where its objects are.
    pub backing: Backing,
}

/// A subresource.
pub(crate) struct Subresource {
    /// Its name, `status`.
    pub name: &'static str,
    /// Group of the kind it takes and gives.
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// That kind.
    pub kind: &'static str,
    /// What can be done.
    pub verbs: &'static [&'static str],
}

/// Where the objects of a resource are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Stored as this kind.
    Stored(Kind),
    /// Stored in another version of the same kind.
    Converted(&'static Version),
    /// Stored as core Events, shown as `events.k8s.io/v1`.
    EventsV1,
    /// The definitions of the built-in custom resources, which cannot be changed.
    Definitions,
    /// Which group-versions are served, which cannot be changed.
    ApiServices,
    /// Usage of pods and nodes, as it was measured.
    Usage,
    /// Values of metrics that nobody stores.
    Adapter,
    /// `bindings`: nothing is stored, a pod is bound.
    Binding,
    /// `selfsubjectaccessreviews`: may the caller do this?
    AccessReview,
    /// `selfsubjectrulesreviews`: what may the caller do?
    RulesReview,
    /// `selfsubjectreviews`: who is the caller?
    SelfReview,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// The kind under which objects are stored, if they are.
    pub(crate) fn stored_kind(&self) -> Option<Kind> {
        match self.backing {
            Backing::Stored(kind) => Some(kind),
            Backing::Converted(version) => Some(version.stored()),
            Backing::EventsV1 => Kind::by_resource("", "events"),
            _ => None,
        }
    }

    /// The subresource of a name.
    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// `pods`, `deployments.apps`.
    pub(crate) fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

/// `v1`, `apps/v1`.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Every resource, in the order of [`groups`] and then of names.
pub(crate) fn all() -> &'static [Resource] {
    static ALL: LazyLock<Vec<Resource>> = LazyLock::new(build);
    &ALL
}

/// The resource that a path names.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|resource| {
        resource.plural == plural && resource.group == group && resource.version == version
    })
}

/// The resources of one group-version, in the order of names.
pub(crate) fn of_group_version(
    group: &str,
    version: &str,
) -> impl Iterator<Item = &'static Resource> {
    all().iter().filter(move |resource| resource.group == group && resource.version == version)
}

/// The API groups but the core one, with their versions, in the order in which clients look for a
/// bare resource name: upstream's, then the custom resources. A group's versions stand together,
/// the preferred one first.
pub(crate) fn groups() -> &'static [(&'static str, &'static str)] {
    &[
        ("apiregistration.k8s.io", "v1"),
        ("apps", "v1"),
        ("events.k8s.io", "v1"),
        ("authentication.k8s.io", "v1"),
        ("authorization.k8s.io", "v1"),
        ("autoscaling", "v2"),
        ("autoscaling", "v1"),
        ("batch", "v1"),
        ("certificates.k8s.io", "v1"),
        ("networking.k8s.io", "v1"),
        ("policy", "v1"),
        ("storage.k8s.io", "v1"),
        ("admissionregistration.k8s.io", "v1"),
        ("apiextensions.k8s.io", "v1"),
        ("scheduling.k8s.io", "v1"),
        ("scheduling.k8s.io", "v1alpha2"),
        ("coordination.k8s.io", "v1"),
        ("discovery.k8s.io", "v1"),
        ("resource.k8s.io", "v1"),
        ("metrics.k8s.io", "v1beta1"),
        ("custom.metrics.k8s.io", "v1beta2"),
        ("custom.metrics.k8s.io", "v1beta1"),
        ("external.metrics.k8s.io", "v1beta1"),
        ("autoscaling.k8s.io", "v1"),
        ("karpenter.sh", "v1"),
        ("karpenter.k8s.aws", "v1"),
        ("eks.services.k8s.aws", "v1alpha1"),
        ("eks.amazonaws.com", "v1"),
        ("elbv2.k8s.aws", "v1beta1"),
        ("sim.wharf.dev", "v1"),
    ]
}

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Namespaces cannot be deleted all at once.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const READ_VERBS: &[&str] = &["get", "list", "watch"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const GET_LIST: &[&str] = &["get", "list"];
const CREATE_GET: &[&str] = &["create", "get"];
const UPDATE: &[&str] = &["update"];
const CHANGE: &[&str] = &["get", "patch", "update"];

fn build() -> Vec<Resource> {
    let mut resources: Vec<Resource> = built_in().iter().copied().map(stored).collect();
    let virtual_resource = |group, plural, singular, kind, namespaced, backing| Resource {
        group,
        version: "v1",
        plural,
        singular,
        kind,
        namespaced,
        short_names: &[],
        categories: &[],
        verbs: CREATE,
        subresources: Vec::new(),
        backing,
    };
    resources.push(virtual_resource("", "bindings", "binding", "Binding", true, Backing::Binding));
    resources.push(virtual_resource(
        "authentication.k8s.io",
        "selfsubjectreviews",
        "selfsubjectreview",
        "SelfSubjectReview",
        false,
        Backing::SelfReview,
    ));
    resources.push(virtual_resource(
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
        false,
        Backing::AccessReview,
    ));
    resources.push(virtual_resource(
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        "SelfSubjectRulesReview",
        false,
        Backing::RulesReview,
    ));
    resources.push(Resource {
        short_names: &["ev"],
        verbs: ALL_VERBS,
        ..virtual_resource("events.k8s.io", "events", "event", "Event", true, Backing::EventsV1)
    });
    resources.push(Resource {
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        verbs: READ_VERBS,
        ..virtual_resource(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "customresourcedefinition",
            "CustomResourceDefinition",
            false,
            Backing::Definitions,
        )
    });
    resources.push(Resource {
        categories: &["api-extensions"],
        verbs: READ_VERBS,
        ..virtual_resource(
            "apiregistration.k8s.io",
            "apiservices",
            "apiservice",
            "APIService",
            false,
            Backing::ApiServices,
        )
    });
    let usage = |plural, kind, namespaced| Resource {
        version: "v1beta1",
        verbs: GET_LIST,
        ..virtual_resource("metrics.k8s.io", plural, "", kind, namespaced, Backing::Usage)
    };
    resources.push(usage("nodes", "NodeMetrics", false));
    resources.push(usage("pods", "PodMetrics", true));
    resources.push(Resource {
        version: "v1beta1",
        verbs: GET,
        ..virtual_resource(
            "external.metrics.k8s.io",
            "externalmetrics",
            "",
            "ExternalMetricValueList",
            true,
            Backing::Adapter,
        )
    });
    for version in Version::all() {
        let (version_name, backing) = (version.version, Backing::Converted(version));
        let mut resource = stored(version.stored());
        for own in resource.subresources.iter_mut().filter(|own| own.kind == version.kind) {
            own.version = version_name;
        }
        resources.push(Resource { version: version_name, backing, ..resource });
    }
    let rank = |of: &Resource| groups().iter().position(|row| *row == (of.group, of.version));
    resources.sort_by_key(|resource| (rank(resource), resource.plural));
    resources
}

fn stored(kind: Kind) -> Resource {
    let own = |name, verbs| Subresource {
        name,
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
        verbs,
    };
    let other = |name, group, kind, verbs| Subresource { name, group, version: "v1", kind, verbs };
    let subresources = match (kind.group, kind.kind) {
        ("", "Namespace") => vec![own("finalize", UPDATE), own("status", CHANGE)],
        ("", "Pod") => vec![
            other("attach", "", "PodAttachOptions", CREATE_GET),
            other("binding", "", "Binding", CREATE),
            other("eviction", "policy", "Eviction", CREATE),
            other("exec", "", "PodExecOptions", CREATE_GET),
            own("log", GET),
            other("portforward", "", "PodPortForwardOptions", CREATE_GET),
            own("resize", CHANGE),
            own("status", CHANGE),
        ],
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") | ("", "ReplicationController") => {
            vec![other("scale", "autoscaling", "Scale", CHANGE), own("status", CHANGE)]
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            vec![own("approval", CHANGE), own("status", CHANGE)]
        }
        ("", "Node") => vec![other("proxy", "", "NodeProxyOptions", GET), own("status", CHANGE)],
        ("", "Service" | "PersistentVolume" | "PersistentVolumeClaim")
        | ("autoscaling", "HorizontalPodAutoscaler")
        | ("apps", "DaemonSet")
        | ("batch", "Job" | "CronJob")
        | ("policy", "PodDisruptionBudget")
        | ("storage.k8s.io", "VolumeAttachment")
        | ("resource.k8s.io", "ResourceClaim")
        | ("scheduling.k8s.io", "PodGroup")
        | ("autoscaling.k8s.io", "VerticalPodAutoscaler")
        | ("eks.services.k8s.aws", "FargateProfile" | "Cluster" | "Nodegroup")
        | ("eks.amazonaws.com", "NodeClass")
        | ("networking.k8s.io", "Ingress")
        | ("elbv2.k8s.aws", "TargetGroupBinding")
        | ("karpenter.sh" | "karpenter.k8s.aws", _) => vec![own("status", CHANGE)],
        _ => Vec::new(),
    };
    Resource {
        group: kind.group,
        version: kind.version,
        plural: kind.plural,
        singular: kind.singular,
        kind: kind.kind,
        namespaced: kind.namespaced,
        short_names: kind.short_names,
        categories: kind.categories,
        verbs: match (kind.group, kind.kind) {
            ("", "Namespace") => NAMESPACE_VERBS,
            // The simulated cloud's machines: the cloud alone changes them.
            ("sim.wharf.dev", _) => READ_VERBS,
            _ => ALL_VERBS,
        },
        subresources,
        backing: Backing::Stored(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_kind_is_served_in_a_group_that_is_listed() {
        for kind in built_in() {
            let resource = find(kind.group, kind.version, kind.plural).expect("served");
            assert_eq!(resource.stored_kind(), Some(*kind));
        }
        for resource in all() {
            let listed = groups().contains(&(resource.group, resource.version));
            assert!(listed || resource.group.is_empty(), "{}", resource.group_resource());
            assert!(resource.verbs.is_sorted());
            assert!(resource.subresources.is_sorted_by_key(|subresource| subresource.name));
        }
    }

    #[test]
    fn names_are_unique_within_a_group_version() {
        for pair in all().windows(2) {
            let name = |resource: &Resource| (resource.group, resource.version, resource.plural);
            assert_ne!(name(&pair[0]), name(&pair[1]));
        }
    }
}
