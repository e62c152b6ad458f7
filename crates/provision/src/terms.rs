//! What pods ask of each other: topology spread, affinity and anti-affinity, and the host ports
//! that two pods cannot share.
//!
//! Preferences are terms like the others until they are given up (upstream treats a preferred term
//! as required until nothing takes the pod), so one type holds both.

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{
    PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use smallvec::SmallVec;
use wharf_model::labels;
use wharf_model::selector::{Labels, Operator, Requirement, Selector, SelectorError};

/// A demand on where a pod is in relation to others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopologyTerm {
    /// What is demanded.
    pub kind: TopologyKind,
    /// The node label whose values are the domains.
    pub key: CompactString,
    /// The namespaces of the other pods, sorted.
    pub namespaces: SmallVec<[CompactString; 1]>,
    /// Which pods are meant.
    pub selector: Selector,
    /// The weight of a preference; `None` for what is required. ScheduleAnyway has weight 0.
    pub preference: Option<i32>,
}

/// What a [`TopologyTerm`] demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopologyKind {
    /// The pods are spread evenly over domains.
    Spread {
        /// By how many pods a domain may be ahead of the emptiest.
        max_skew: i64,
        /// With fewer domains than this the emptiest counts as having none.
        min_domains: Option<i64>,
        /// Whether only nodes count which the pod's node selector and affinity let it on.
        honor_affinity: bool,
        /// Whether only nodes count whose taints the pod tolerates.
        honor_taints: bool,
    },
    /// There is one of the pods in the domain.
    Affinity,
    /// There is none of the pods in the domain.
    AntiAffinity,
}

/// A port of the node that a pod takes for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The node's address it listens at; `0.0.0.0` for all.
    pub ip: CompactString,
    /// The number.
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: CompactString,
}

/// The namespaces that a namespace selector selects.
pub type NamespacesOf<'a> = &'a dyn Fn(&LabelSelector) -> Vec<CompactString>;

impl TopologyTerm {
    /// The terms of a pod: spread constraints, then affinity, then anti-affinity, each as written.
    ///
    /// # Errors
    /// If a selector is malformed, which the API server does not let through.
    pub fn of_pod(
        spec: &PodSpec,
        namespace: &str,
        pod_labels: &(impl Labels + ?Sized),
        namespaces: NamespacesOf<'_>,
    ) -> Result<Vec<Self>, SelectorError> {
        let mut terms = Vec::new();
        for constraint in spec.topology_spread_constraints.iter().flatten() {
            terms.push(Self::of_spread(constraint, namespace, pod_labels)?);
        }
        let Some(affinity) = &spec.affinity else { return Ok(terms) };
        let of = |kind, term: &PodAffinityTerm, preference| {
            Self::of_affinity(kind, term, preference, namespace, namespaces)
        };
        let mut add = |kind, required: Option<&Vec<PodAffinityTerm>>, preferred| {
            for term in required.into_iter().flatten() {
                terms.push(of(kind, term, None)?);
            }
            let preferred: Option<&Vec<WeightedPodAffinityTerm>> = preferred;
            for term in preferred.into_iter().flatten() {
                terms.push(of(kind, &term.pod_affinity_term, Some(term.weight))?);
            }
            Ok::<(), SelectorError>(())
        };
        if let Some(affinity) = &affinity.pod_affinity {
            add(
                TopologyKind::Affinity,
                affinity.required_during_scheduling_ignored_during_execution.as_ref(),
                affinity.preferred_during_scheduling_ignored_during_execution.as_ref(),
            )?;
        }
        if let Some(affinity) = &affinity.pod_anti_affinity {
            add(
                TopologyKind::AntiAffinity,
                affinity.required_during_scheduling_ignored_during_execution.as_ref(),
                affinity.preferred_during_scheduling_ignored_during_execution.as_ref(),
            )?;
        }
        Ok(terms)
    }

    /// A spread constraint. Upstream folds `matchLabelKeys` into the selector with the pod's own
    /// values; keys that the pod does not have are left out.
    fn of_spread(
        constraint: &TopologySpreadConstraint,
        namespace: &str,
        pod_labels: &(impl Labels + ?Sized),
    ) -> Result<Self, SelectorError> {
        let mut selector = Selector::from_api(constraint.label_selector.as_ref())?;
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = pod_labels.label(key) {
                selector.and(Requirement::new(key, Operator::In, [value])?);
            }
        }
        let is = |policy: &Option<String>, value: &str| policy.as_deref() == Some(value);
        Ok(Self {
            kind: TopologyKind::Spread {
                max_skew: i64::from(constraint.max_skew),
                min_domains: constraint.min_domains.map(i64::from),
                honor_affinity: !is(&constraint.node_affinity_policy, "Ignore"),
                honor_taints: is(&constraint.node_taints_policy, "Honor"),
            },
            key: labels::normalize(&constraint.topology_key).into(),
            namespaces: SmallVec::from_iter([namespace.into()]),
            selector,
            preference: (constraint.when_unsatisfiable == "ScheduleAnyway").then_some(0),
        })
    }

    fn of_affinity(
        kind: TopologyKind,
        term: &PodAffinityTerm,
        preference: Option<i32>,
        namespace: &str,
        selected: NamespacesOf<'_>,
    ) -> Result<Self, SelectorError> {
        let mut namespaces: SmallVec<[CompactString; 1]> =
            term.namespaces.iter().flatten().map(CompactString::from).collect();
        match &term.namespace_selector {
            Some(selector) => namespaces.extend(selected(selector)),
            None if namespaces.is_empty() => namespaces.push(namespace.into()),
            None => {}
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        Ok(Self {
            kind,
            key: labels::normalize(&term.topology_key).into(),
            namespaces,
            selector: Selector::from_api(term.label_selector.as_ref())?,
            preference,
        })
    }

    /// Whether a pod is one of those that are meant.
    pub fn selects(&self, namespace: &str, pod_labels: &(impl Labels + ?Sized)) -> bool {
        self.namespaces.iter().any(|name| name == namespace) && self.selector.matches(pod_labels)
    }

    /// Whether this is a spread constraint.
    pub fn is_spread(&self) -> bool {
        matches!(self.kind, TopologyKind::Spread { .. })
    }
}

impl HostPort {
    /// The host ports of a pod.
    pub fn of_pod(spec: &PodSpec) -> Vec<Self> {
        let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let taken = ports.filter_map(|port| {
            let number = port.host_port.filter(|number| *number != 0)?;
            let or = |text: &Option<String>, default: &str| {
                let text = text.as_deref().filter(|text| !text.is_empty());
                CompactString::from(text.unwrap_or(default))
            };
            Some(Self {
                ip: or(&port.host_ip, "0.0.0.0"),
                port: number,
                protocol: or(&port.protocol, "TCP"),
            })
        });
        taken.collect()
    }

    /// Whether two pods cannot both have their port.
    pub fn conflicts(&self, other: &Self) -> bool {
        let everywhere = |port: &Self| matches!(&*port.ip, "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || everywhere(self) || everywhere(other))
    }
}

/// Whether any of one pod's ports conflicts with any of others'.
pub(crate) fn ports_conflict(ports: &[HostPort], taken: &[HostPort]) -> bool {
    ports.iter().any(|port| taken.iter().any(|other| port.conflicts(other)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn terms(spec: serde_json::Value, pod_labels: &[(&str, &str)]) -> Vec<TopologyTerm> {
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
        let own: BTreeMap<String, String> = pod_labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let selected = |_: &LabelSelector| vec!["team-b".into(), "team-a".into()];
        TopologyTerm::of_pod(&spec, "default", &own, &selected).expect("valid terms")
    }

    #[test]
    fn match_label_keys_are_folded_into_the_selector() {
        let spec = json!({"containers": [], "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["pod-template-hash", "none"],
            "labelSelector": {"matchLabels": {"app": "a"}}
        }]});
        let own = [("app", "a"), ("pod-template-hash", "1")];
        let term = terms(spec, &own).remove(0);
        let labels = |hash: &str| {
            BTreeMap::from([
                ("app".to_owned(), "a".to_owned()),
                ("pod-template-hash".to_owned(), hash.to_owned()),
            ])
        };
        assert!(term.selects("default", &labels("1")));
        assert!(!term.selects("default", &labels("2")));
        assert!(!term.selects("other", &labels("1")));
        assert_eq!(term.preference, None);
    }

    #[test]
    fn namespaces_are_listed_selected_or_the_pods_own() {
        let term = |namespaces: serde_json::Value, selector: serde_json::Value| {
            let term = json!({
                "topologyKey": "kubernetes.io/hostname", "namespaces": namespaces,
                "namespaceSelector": selector, "labelSelector": {}
            });
            json!({"containers": [], "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term]
            }}})
        };
        let names = |spec| {
            let terms: Vec<TopologyTerm> = terms(spec, &[]);
            terms[0].namespaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let null = || json!(null);
        assert_eq!(names(term(null(), null())), "default");
        assert_eq!(names(term(json!(["x"]), null())), "x");
        assert_eq!(names(term(json!(["x"]), json!({}))), "team-a team-b x");
    }

    #[test]
    fn ports_conflict_on_one_address_or_on_all() {
        let port = |ip: &str, port, protocol: &str| HostPort {
            ip: ip.into(),
            port,
            protocol: protocol.into(),
        };
        let table = [
            (port("0.0.0.0", 80, "TCP"), port("10.0.0.1", 80, "TCP"), true),
            (port("10.0.0.1", 80, "TCP"), port("10.0.0.2", 80, "TCP"), false),
            (port("10.0.0.1", 80, "TCP"), port("10.0.0.1", 80, "UDP"), false),
            (port("10.0.0.1", 80, "TCP"), port("10.0.0.1", 81, "TCP"), false),
            (port("10.0.0.1", 80, "TCP"), port("10.0.0.1", 80, "TCP"), true),
        ];
        for (left, right, expected) in table {
            assert_eq!(left.conflicts(&right), expected, "{left:?} {right:?}");
            assert_eq!(right.conflicts(&left), expected);
        }
    }
}
