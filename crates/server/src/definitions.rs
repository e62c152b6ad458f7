//! The definitions of the built-in custom resources as `customresourcedefinitions` shows them.
//! They are part of the program and cannot be changed.

use serde_json::{Value, json};
use wharf_model::custom;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::time::Time;

use crate::api::Api;
use crate::read_only::{ReadOnly, uid};
use crate::resources;

/// The definitions.
pub(crate) fn read_only(api: &Api) -> ReadOnly {
    ReadOnly {
        objects: all(api.started),
        columns: &[("Name", "name"), ("Created At", "date")],
        cells: |definition, _| {
            let meta = &definition["metadata"];
            vec![meta["name"].clone(), meta["creationTimestamp"].clone()]
        },
        refusal: "the definitions of the built-in custom resources cannot be changed",
    }
}

/// All definitions, in the order of their names. The simulated cloud's own kinds are none of a cluster's
/// definitions.
fn all(created: Time) -> Vec<Value> {
    let mut all: Vec<Value> = built_in()
        .iter()
        .filter(|kind| kind.group != "sim.wharf.dev")
        .filter_map(|kind| Some(definition(*kind, custom::schema(kind.kind)?, created)))
        .collect();
    all.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
    all
}

fn definition(kind: Kind, schema: &Value, created: Time) -> Value {
    let name = kind.group_resource();
    let list_kind = format!("{}List", kind.kind);
    let mut names = json!({
        "plural": kind.plural,
        "singular": kind.singular,
        "kind": kind.kind,
        "listKind": list_kind,
        "categories": kind.categories,
    });
    if !kind.short_names.is_empty() {
        names["shortNames"] = json!(kind.short_names);
    }
    let columns: Vec<Value> = custom::columns(kind.kind)
        .unwrap_or_default()
        .iter()
        .map(|column| {
            let mut entry = json!({
                "name": column.name, "type": column.kind, "jsonPath": column.json_path,
            });
            if column.priority != 0 {
                entry["priority"] = column.priority.into();
            }
            entry
        })
        .collect();
    let condition = |word: &str, reason: &str, message: &str| {
        json!({
            "type": word,
            "status": "True",
            "lastTransitionTime": created.to_string(),
            "reason": reason,
            "message": message,
        })
    };
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name,
            "uid": uid(&name),
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": created.to_string(),
        },
        "spec": {
            "group": kind.group,
            "names": names.clone(),
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "conversion": {"strategy": "None"},
            "versions": [{
                "name": kind.version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": columns,
            }],
        },
        "status": {
            "acceptedNames": names,
            "storedVersions": [kind.version],
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        },
    });
    if resources::find(kind.group, kind.version, kind.plural)
        .is_some_and(|resource| resource.subresource("status").is_some())
    {
        definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_complete() {
        let all = all(Time::from_seconds(1_790_000_000));
        let names: Vec<_> = all.iter().filter_map(|d| d["metadata"]["name"].as_str()).collect();
        assert_eq!(
            names,
            [
                "clusters.eks.services.k8s.aws",
                "ec2nodeclasses.karpenter.k8s.aws",
                "fargateprofiles.eks.services.k8s.aws",
                "ingressclassparams.elbv2.k8s.aws",
                "nodeclaims.karpenter.sh",
                "nodeclasses.eks.amazonaws.com",
                "nodegroups.eks.services.k8s.aws",
                "nodepools.karpenter.sh",
                "targetgroupbindings.elbv2.k8s.aws",
                "verticalpodautoscalercheckpoints.autoscaling.k8s.io",
                "verticalpodautoscalers.autoscaling.k8s.io",
            ]
        );
        for definition in &all {
            let version = &definition["spec"]["versions"][0];
            assert!(version["schema"]["openAPIV3Schema"]["properties"]["spec"].is_object());
            assert_eq!(definition["metadata"]["uid"].as_str().map(str::len), Some(36));
        }
    }
}
