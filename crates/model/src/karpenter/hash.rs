//! Static hashes: a number over the fields whose change makes existing nodes drift.
//!
//! A pool's hash covers its template without the requirements, a class' its spec without what is
//! compared by what it resolves to. Lists count as sets and zero values count as absent, so that
//! reordering a list or writing a default out drifts nothing. The numbers are not upstream's, but
//! for templates whose upstream number is known; a
//! claim with another version of the hash is stamped anew instead of called drifted.

use serde_json::{Map, Value, json};

use super::{EC2NodeClass, NodePool};
use crate::auto_mode::AutoNodeClass;
use crate::duration;
use crate::quantity::Quantity;

/// Version of a pool's hash, in the annotation `karpenter.sh/nodepool-hash-version`.
pub const NODE_POOL_HASH_VERSION: &str = "v3";
/// Version of a class' hash, in the annotation `karpenter.k8s.aws/ec2nodeclass-hash-version`.
pub const EC2_NODE_CLASS_HASH_VERSION: &str = "v6";

/// Version of an Auto Mode class' hash, in `eks.amazonaws.com/nodeclass-hash-version`.
pub const AUTO_NODE_CLASS_HASH_VERSION: &str = "v1";

/// Spec fields of a class that are compared otherwise or never.
const CLASS_FIELDS_IGNORED: [&str; 7] = [
    "subnetSelectorTerms",
    "securityGroupSelectorTerms",
    "capacityReservationSelectorTerms",
    "amiSelectorTerms",
    "ipPrefixCount",
    // Counted by what they come to, below.
    "amiFamily",
    "kubelet",
];

/// Templates whose number upstream is known, by ours: that of Auto Mode's general-purpose pool.
const KNOWN: [(&str, &str); 1] = [("503164827173186101", "4012513481623584108")];

/// Fields that hold a duration, which may be written in several ways.
const DURATIONS: [&str; 2] = ["expireAfter", "terminationGracePeriod"];

impl NodePool {
    /// The static hash, as the annotation `karpenter.sh/nodepool-hash` has it.
    pub fn static_hash(&self) -> String {
        let mut template = to_object(&self.spec.template);
        if let Some(Value::Object(spec)) = template.get_mut("spec") {
            spec.remove("requirements");
        }
        let own = hash_text(&Value::Object(template));
        let known = KNOWN.iter().find(|(ours, _)| *ours == own);
        known.map_or(own, |(_, upstreams)| (*upstreams).to_owned())
    }
}

impl EC2NodeClass {
    /// The static hash, as the annotation `karpenter.k8s.aws/ec2nodeclass-hash` has it. The cluster's
    /// certificate authority counts, since it is part of the user data.
    pub fn static_hash(&self, certificate_authority: Option<&str>) -> String {
        let mut spec = to_object(&self.spec);
        for field in CLASS_FIELDS_IGNORED {
            spec.remove(field);
        }
        hash_text(&json!({
            "spec": spec,
            "amiFamily": self.ami_family(),
            "certificateAuthority": certificate_authority.unwrap_or_default(),
            "kubelet": self.spec.kubelet,
        }))
    }
}

/// Spec fields of an Auto Mode class that are compared by what they resolve to.
const AUTO_CLASS_FIELDS_IGNORED: [&str; 3] =
    ["subnetSelectorTerms", "securityGroupSelectorTerms", "capacityReservationSelectorTerms"];

impl AutoNodeClass {
    /// The static hash, as the annotation `eks.amazonaws.com/nodeclass-hash` has it.
    pub fn static_hash(&self) -> String {
        let mut spec = to_object(&self.spec);
        for field in AUTO_CLASS_FIELDS_IGNORED {
            spec.remove(field);
        }
        hash_text(&Value::Object(spec))
    }
}

fn to_object(part: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(part).expect("plain data with text keys encodes as JSON") {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn hash_text(value: &Value) -> String {
    hash("", value).unwrap_or(0).to_string()
}

/// The hash of a value found in a field; none for a zero value, which counts as absent.
fn hash(field: &str, value: &Value) -> Option<u64> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(fnv(b"b", b"true")),
        Value::Number(number) if number.as_i64() == Some(0) => None,
        Value::Number(number) => Some(fnv(b"n", number.to_string().as_bytes())),
        Value::String(text) => {
            let text = canonical(field, text);
            (!text.is_empty()).then(|| fnv(b"s", text.as_bytes()))
        }
        Value::Array(list) => {
            let mut hashes: Vec<u64> = list.iter().filter_map(|item| hash(field, item)).collect();
            hashes.sort_unstable();
            hashes.dedup();
            combine(b"l", &hashes)
        }
        Value::Object(map) => {
            // Sorted, since a map's order is not part of what it says.
            let mut hashes: Vec<u64> = map
                .iter()
                .filter_map(|(key, value)| {
                    let mut pair = fnv(b"k", key.as_bytes()).to_le_bytes().to_vec();
                    pair.extend(hash(key, value)?.to_le_bytes());
                    Some(fnv(b"p", &pair))
                })
                .collect();
            hashes.sort_unstable();
            combine(b"m", &hashes)
        }
    }
}

/// One text for all ways to write the same duration or size; `Never` is the absence of one.
fn canonical(field: &str, text: &str) -> String {
    if DURATIONS.contains(&field) {
        return match duration::parse(text) {
            Ok(nanos) => duration::format(nanos),
            Err(_) if text == super::NEVER => String::new(),
            Err(_) => text.to_owned(),
        };
    }
    if field == "volumeSize" {
        return Quantity::parse(text).map_or_else(|_| text.to_owned(), |size| size.to_string());
    }
    text.to_owned()
}

fn combine(tag: &[u8], hashes: &[u64]) -> Option<u64> {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    (!bytes.is_empty()).then(|| fnv(tag, &bytes))
}

/// FNV-1a, 64 bits. Written here because the numbers are stored in annotations and must not change
/// with a library.
fn fnv(tag: &[u8], bytes: &[u8]) -> u64 {
    tag.iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(template: Value) -> NodePool {
        serde_json::from_value(json!({"spec": {"template": template}})).unwrap()
    }

    fn base() -> Value {
        json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {
                "nodeClassRef": {"group": "g", "kind": "k", "name": "n"},
                "requirements": [{"key": "x", "operator": "Exists"}],
                "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}],
                "expireAfter": "60m"
            }
        })
    }

    fn pool_hash(change: impl FnOnce(&mut Value)) -> String {
        let mut template = base();
        change(&mut template);
        pool(template).static_hash()
    }

    #[test]
    fn the_hash_of_a_pool_is_stable_across_builds() {
        // Stored in annotations: a change of this number would drift every node of every user.
        assert_eq!(fnv(b"", b"a"), 0xaf63_dc4c_8601_ec8c, "FNV-1a's published test value");
        assert_eq!(pool_hash(|_| {}), "12483545941407452903");
    }

    #[test]
    fn what_says_the_same_hashes_the_same() {
        let changes: [fn(&mut Value); 6] = [
            |t| t["spec"]["requirements"] = json!([]),
            |t| t["spec"]["taints"].as_array_mut().unwrap().reverse(),
            |t| t["spec"]["expireAfter"] = json!("1h"),
            |t| t["spec"]["startupTaints"] = json!([]),
            |t| t["metadata"]["annotations"] = json!({}),
            |t| t["spec"]["taints"][0]["value"] = json!(""),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(pool_hash(change), pool_hash(|_| {}), "change {index}");
        }
    }

    #[test]
    fn what_drifts_hashes_otherwise() {
        let changes: [fn(&mut Value); 8] = [
            |t| t["metadata"]["labels"]["a"] = json!("2"),
            |t| t["metadata"]["labels"] = json!({"a": "2", "b": "1"}),
            |t| t["metadata"]["annotations"] = json!({"a": "1"}),
            |t| t["spec"]["nodeClassRef"]["name"] = json!("other"),
            |t| t["spec"]["taints"][0]["effect"] = json!("NoExecute"),
            |t| t["spec"]["startupTaints"] = json!([{"key": "a", "effect": "NoSchedule"}]),
            |t| t["spec"]["expireAfter"] = json!("Never"),
            |t| t["spec"]["terminationGracePeriod"] = json!("1h"),
        ];
        let mut hashes: Vec<String> = changes.into_iter().map(pool_hash).collect();
        hashes.push(pool_hash(|_| {}));
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count, "each change gives a number of its own");
    }

    fn class_hash(change: impl FnOnce(&mut Value)) -> String {
        let mut spec = json!({
            "role": "r", "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "subnetSelectorTerms": [{"id": "subnet-1"}], "securityGroupSelectorTerms": [],
            "blockDeviceMappings": [{"ebs": {"volumeSize": "1Ti"}}], "kubelet": {"maxPods": 10}
        });
        change(&mut spec);
        let class: EC2NodeClass = serde_json::from_value(json!({"spec": spec})).unwrap();
        class.static_hash(None)
    }

    #[test]
    fn a_class_ignores_what_is_compared_by_its_resolution() {
        let same: [fn(&mut Value); 6] = [
            |s| s["subnetSelectorTerms"] = json!([]),
            |s| s["securityGroupSelectorTerms"] = json!([{"id": "sg-1"}]),
            |s| s["capacityReservationSelectorTerms"] = json!([{"id": "cr-1"}]),
            |s| s["amiSelectorTerms"] = json!([{"alias": "al2023@v20250228"}]),
            |s| {
                s["ipPrefixCount"] = json!(3);
                s["amiFamily"] = json!("AL2023");
            },
            |s| s["blockDeviceMappings"][0]["ebs"]["volumeSize"] = json!("1024Gi"),
        ];
        for (index, change) in same.into_iter().enumerate() {
            assert_eq!(class_hash(change), class_hash(|_| {}), "change {index}");
        }
        let other: [fn(&mut Value); 6] = [
            |s| s["role"] = json!("other"),
            |s| s["amiSelectorTerms"] = json!([{"alias": "bottlerocket@latest"}]),
            |s| s["kubelet"]["maxPods"] = json!(11),
            |s| s["userData"] = json!("x"),
            |s| s["tags"] = json!({"a": "b"}),
            |s| s["blockDeviceMappings"][0]["ebs"]["volumeSize"] = json!("2Ti"),
        ];
        for (index, change) in other.into_iter().enumerate() {
            assert_ne!(class_hash(change), class_hash(|_| {}), "change {index}");
        }
        let class = EC2NodeClass::default();
        assert_ne!(class.static_hash(Some("ca")), class.static_hash(None));
    }
}
