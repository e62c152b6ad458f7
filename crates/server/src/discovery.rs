//! Discovery: what clients learn of the server before they ask it anything. The old form (one
//! document per group-version) and the aggregated one (two documents for all).

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};
use wharf_ports::metrics::MetricsApis;

use crate::negotiate::Discovery;
use crate::resources::{self, Resource, Subresource, group_version};

/// The Kubernetes version that this API follows.
pub const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0");

/// `/version`.
pub(crate) fn version() -> &'static Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let (major, minor, version) = VERSION;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        encode(&json!({
            "major": major,
            "minor": minor,
            "emulationMajor": major,
            "emulationMinor": minor,
            "minCompatibilityMajor": major,
            "minCompatibilityMinor": minor,
            "gitVersion": version,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{architecture}", std::env::consts::OS),
        }))
    });
    &DOCUMENT
}

/// `/`: the paths there are.
pub(crate) fn root(apis: MetricsApis) -> Bytes {
    let mut paths: Vec<String> = ["/api", "/api/v1", "/apis"].map(String::from).into();
    for (group, versions) in groups().filter(|(group, _)| apis.serve(group)) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(String::from),
    );
    paths.sort_unstable();
    encode(&json!({"paths": paths}))
}

/// `/api` in the old form.
pub(crate) fn api_versions() -> &'static Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        encode(&json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }))
    });
    &DOCUMENT
}

/// `/apis` in the old form.
pub(crate) fn group_list(apis: MetricsApis) -> Bytes {
    let served = groups().filter(|(name, _)| apis.serve(name));
    let groups: Vec<Value> = served.map(|(name, versions)| group_entry(name, &versions)).collect();
    encode(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `/apis/GROUP`.
pub(crate) fn group(name: &str) -> Option<Bytes> {
    let (name, versions) = groups().find(|(group, _)| *group == name)?;
    let mut entry = group_entry(name, &versions);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(encode(&entry))
}

/// Each group with its versions, the preferred one first.
fn groups() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let rows = resources::groups();
    rows.chunk_by(|left, right| left.0 == right.0)
        .map(|rows| (rows[0].0, rows.iter().map(|(_, version)| *version).collect()))
}

fn group_entry(name: &str, versions: &[&str]) -> Value {
    let entry =
        |version: &&str| json!({"groupVersion": group_version(name, version), "version": version});
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "preferredVersion": versions[0], "versions": versions})
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(crate) fn resource_list(group: &str, version: &str) -> Option<Bytes> {
    let mut entries = Vec::new();
    for resource in resources::of_group_version(group, version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        if resource.verbs.contains(&"watch") {
            entry["storageVersionHash"] = storage_hash(resource).into();
        }
        entries.push(entry);
        for subresource in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": subresource.kind,
                "verbs": subresource.verbs,
            });
            if subresource.group != resource.group {
                entry["group"] = subresource.group.into();
                entry["version"] = subresource.version.into();
            }
            entries.push(entry);
        }
    }
    // A group of which nothing is known yet is there all the same.
    let is_served = resources::groups().contains(&(group, version));
    (is_served || !entries.is_empty()).then(|| {
        encode(&json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version(group, version),
            "resources": entries,
        }))
    })
}

/// A word that changes when objects are stored in another form.
fn storage_hash(resource: &Resource) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", resource.group, resource.version, resource.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

/// `/api` (`core`) or `/apis` in the aggregated form.
pub(crate) fn aggregated(core: bool, form: Discovery, apis: MetricsApis) -> Bytes {
    let groups: Vec<(&str, Vec<&str>)> = match core {
        true => vec![("", vec!["v1"])],
        false => groups().filter(|(group, _)| apis.serve(group)).collect(),
    };
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let entries = |version: &&str| {
                let entries: Vec<Value> =
                    resources::of_group_version(group, version).map(aggregated_resource).collect();
                json!({"version": version, "resources": entries, "freshness": "Current"})
            };
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = (*group).into();
            }
            json!({
                "metadata": metadata,
                "versions": versions.iter().map(entries).collect::<Vec<_>>(),
            })
        })
        .collect();
    encode(&json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.word()),
        "metadata": {},
        "items": items,
    }))
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {
            "group": resource.group, "version": resource.version, "kind": resource.kind,
        },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresource = |subresource: &Subresource| {
            json!({
                "subresource": subresource.name,
                "responseKind": {
                    "group": subresource.group,
                    "version": subresource.version,
                    "kind": subresource.kind,
                },
                "verbs": subresource.verbs,
            })
        };
        entry["subresources"] = resource.subresources.iter().map(subresource).collect();
    }
    entry
}

/// The media type of an aggregated document.
pub(crate) fn aggregated_media_type(form: Discovery) -> &'static str {
    match form {
        Discovery::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Discovery::V2Beta1 => {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
    }
}

fn encode(value: &Value) -> Bytes {
    value.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &Bytes) -> Value {
        serde_json::from_slice(bytes).expect("JSON")
    }

    #[test]
    fn both_forms_name_the_same_resources() {
        for (core, groups) in [(true, &[("", "v1")][..]), (false, resources::groups())] {
            let aggregated = parse(&aggregated(core, Discovery::V2, MetricsApis::ALL));
            let items = aggregated["items"].as_array().expect("groups");
            let versions = items.iter().flat_map(|item| item["versions"].as_array().unwrap());
            for ((group, version), new) in groups.iter().zip(versions) {
                assert_eq!(new["version"], *version);
                let old = parse(&resource_list(group, version).expect("served"));
                let count = |value: &Value| value["resources"].as_array().map_or(0, Vec::len);
                let subresources: usize = new["resources"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|entry| entry["subresources"].as_array().map_or(0, Vec::len))
                    .sum();
                assert_eq!(count(&old), count(new) + subresources, "{group}");
            }
        }
    }

    #[test]
    fn metrics_apis_that_are_not_served_are_in_no_document() {
        let some = MetricsApis { resource: true, ..MetricsApis::NONE };
        for document in [group_list(some), root(some), aggregated(false, Discovery::V2, some)] {
            let text = String::from_utf8_lossy(&document).into_owned();
            assert!(text.contains("\"metrics.k8s.io\"") || text.contains("/apis/metrics.k8s.io"));
            assert!(!text.contains("custom.metrics") && !text.contains("external.metrics"));
        }
    }

    #[test]
    fn unknown_groups_are_not_there() {
        assert!(group("apps").is_some());
        let scheduling = parse(&group("scheduling.k8s.io").expect("served"));
        assert_eq!(scheduling["preferredVersion"]["version"], "v1");
        assert_eq!(scheduling["versions"][1]["version"], "v1alpha2");
        assert!(group("example.org").is_none());
        assert!(resource_list("apps", "v1beta1").is_none());
        assert_eq!(parse(version())["gitVersion"], "v1.36.0");
    }
}
