//! Whether a node is still what its pool asks for, and when its time is up.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf_model::karpenter::conditions::reason;
use wharf_model::labels;
use wharf_model::requirements::Requirements;
use wharf_model::time::Time;

use crate::node::labels_satisfy;

/// What drift looks at, on either side.
#[derive(Clone, Copy, Debug)]
pub struct Stamped<'a> {
    /// Annotations, in which the hash and its version are.
    pub annotations: &'a BTreeMap<String, String>,
    /// The annotation of the hash.
    pub hash: &'a str,
    /// The annotation of the hash's version.
    pub version: &'a str,
}

impl<'a> Stamped<'a> {
    /// The NodePool's hash among these annotations.
    pub fn node_pool(annotations: &'a BTreeMap<String, String>) -> Self {
        Self { annotations, hash: labels::NODEPOOL_HASH, version: labels::NODEPOOL_HASH_VERSION }
    }

    /// The EC2NodeClass's hash among these annotations.
    pub fn node_class(annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            hash: labels::EC2NODECLASS_HASH,
            version: labels::EC2NODECLASS_HASH_VERSION,
        }
    }

    /// Whether a claim's stamp tells of another template. Stamps of different versions, or one that
    /// is missing, say nothing: they are restamped.
    fn differs(&self, claim: &Self) -> bool {
        let get = |stamped: &Self, key: &str| stamped.annotations.get(key).cloned();
        let versions = (get(self, self.version), get(claim, claim.version));
        let hashes = (get(self, self.hash), get(claim, claim.hash));
        match (versions, hashes) {
            ((Some(ours), Some(theirs)), (Some(our_hash), Some(their_hash))) => {
                ours == theirs && our_hash != their_hash
            }
            _ => false,
        }
    }
}

/// Why a NodeClaim has drifted from its pool, as the reason of its Drifted condition: the template's
/// hash first, then the requirements that its labels no longer satisfy.
pub fn from_pool(
    pool: Stamped<'_>,
    claim: Stamped<'_>,
    requirements: &Requirements,
    claim_labels: &BTreeMap<String, String>,
) -> Option<&'static str> {
    if pool.differs(&claim) {
        return Some(reason::NODE_POOL_DRIFTED);
    }
    (!labels_satisfy(claim_labels, requirements)).then_some(reason::REQUIREMENTS_DRIFTED)
}

/// Whether a NodeClaim has drifted from its node class: upstream's reason is `NodeClassDrift`.
pub fn from_node_class(class: Stamped<'_>, claim: Stamped<'_>) -> Option<&'static str> {
    class.differs(&claim).then_some("NodeClassDrift")
}

/// When a NodeClaim's time is up; `None` if never.
pub fn expires_at(created: Time, expire_after: Option<Duration>) -> Option<Time> {
    expire_after.map(|life| created + life)
}

/// When a node becomes consolidatable: `consolidate_after` past its last pod event, or past its
/// initialization without one.
pub fn quiet_at(
    initialized: Time,
    last_pod_event: Option<Time>,
    consolidate_after: Duration,
) -> Time {
    last_pod_event.unwrap_or(initialized) + consolidate_after
}

#[cfg(test)]
mod tests {
    use wharf_model::requirements::{Operator, Requirement};

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_hash_counts_only_within_one_version() {
        let stamp = |hash: &str, version: &str| {
            map(&[(labels::NODEPOOL_HASH, hash), (labels::NODEPOOL_HASH_VERSION, version)])
        };
        let drifted = |pool: &BTreeMap<String, String>, claim: &BTreeMap<String, String>| {
            let (pool, claim) = (Stamped::node_pool(pool), Stamped::node_pool(claim));
            from_pool(pool, claim, &Requirements::new(), &BTreeMap::new())
        };
        assert_eq!(drifted(&stamp("1", "v3"), &stamp("1", "v3")), None);
        assert_eq!(drifted(&stamp("1", "v3"), &stamp("2", "v3")), Some("NodePoolDrifted"));
        assert_eq!(drifted(&stamp("1", "v3"), &stamp("2", "v2")), None);
        assert_eq!(drifted(&stamp("1", "v3"), &BTreeMap::new()), None);
    }

    #[test]
    fn requirements_drift_when_labels_no_longer_satisfy_them() {
        let none = BTreeMap::new();
        let drifted = |requirement: Requirement, labels: &[(&str, &str)]| {
            let requirements = Requirements::from_iter([requirement]);
            from_pool(
                Stamped::node_pool(&none),
                Stamped::node_pool(&none),
                &requirements,
                &map(labels),
            )
        };
        let spot = || Requirement::new(labels::CAPACITY_TYPE, Operator::In, ["spot"]);
        assert_eq!(drifted(spot(), &[(labels::CAPACITY_TYPE, "spot")]), None);
        let on_demand = [(labels::CAPACITY_TYPE, "on-demand")];
        assert_eq!(drifted(spot(), &on_demand), Some("RequirementsDrifted"));
        assert_eq!(drifted(spot(), &[]), Some("RequirementsDrifted"));
        assert_eq!(drifted(Requirement::new("a/b", Operator::NotIn, ["c"]), &[]), None);
    }

    #[test]
    fn times() {
        let hour = Duration::from_secs(3600);
        let at = Time::from_seconds;
        assert_eq!(expires_at(at(10), Some(hour)), Some(at(3610)));
        assert_eq!(expires_at(at(10), None), None);
        assert_eq!(quiet_at(at(10), None, hour), at(3610));
        assert_eq!(quiet_at(at(10), Some(at(100)), hour), at(3700));
    }
}
