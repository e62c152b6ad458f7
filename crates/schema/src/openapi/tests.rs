use std::collections::BTreeSet;

use super::*;

fn v3(path: &str) -> Value {
    serde_json::from_slice(v3_group_version(path).unwrap()).unwrap()
}

#[test]
fn the_index_names_every_document_with_its_hash() {
    let index: Value = serde_json::from_slice(v3_index()).unwrap();
    let paths = index["paths"].as_object().unwrap();
    for path in [
        "api/v1",
        "apis/apps/v1",
        "apis/karpenter.sh/v1",
        "apis/karpenter.k8s.aws/v1",
        "apis/policy/v1",
    ] {
        let address = paths[path]["serverRelativeURL"].as_str().unwrap();
        let expected = format!("/openapi/v3/{path}?hash={}", hash(v3_group_version(path).unwrap()));
        assert_eq!(address, expected);
    }
    assert!(v3_group_version("apis/nothing/v1").is_none());
}

/// Every reference in a document points to a definition in it.
fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} is missing");
            }
            map.values().for_each(|value| check_references(document, value));
        }
        Value::Array(list) => list.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

#[test]
fn documents_are_complete_in_themselves() {
    for document in documents().values() {
        let document: Value = serde_json::from_slice(document).unwrap();
        check_references(&document, &document);
    }
    let document: Value = serde_json::from_slice(v2_json()).unwrap();
    check_references(&document, &document);
}

/// kubectl asks which PATCH operation has the object's kind and whether it takes fieldValidation.
#[test]
fn every_kind_that_can_be_written_takes_field_validation() {
    for kind in wharf_model::kinds::built_in() {
        let path = if kind.group.is_empty() {
            format!("api/{}", kind.version)
        } else {
            format!("apis/{}/{}", kind.group, kind.version)
        };
        let wanted = json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
        let takes = v3(&path)["paths"].as_object().unwrap().values().any(|item| {
            let patch = &item["patch"];
            let names = patch["parameters"].as_array().into_iter().flatten();
            patch["x-kubernetes-group-version-kind"] == wanted
                && names.into_iter().any(|parameter| parameter["name"] == "fieldValidation")
        });
        assert!(takes, "{kind}");
    }
}

#[test]
fn definitions_say_what_upstreams_say() {
    let apps = v3("apis/apps/v1");
    let schemas = &apps["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
    );
    assert_eq!(
        deployment["properties"]["spec"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
    assert_eq!(selector["x-kubernetes-map-type"], "atomic");

    let pools = v3("apis/karpenter.sh/v1");
    let pool = &pools["components"]["schemas"]["sh.karpenter.v1.NodePool"];
    assert!(pool["properties"]["spec"]["properties"]["disruption"]["description"].is_string());
    assert_eq!(
        pool["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert!(pools["paths"]["/apis/karpenter.sh/v1/nodepools/{name}/status"]["patch"].is_object());

    let whole: Value = serde_json::from_slice(v2_json()).unwrap();
    let quantity = &whole["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["type"], "string");
    assert!(whole["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
    assert!(whole["paths"]["/api/v1/pods"]["get"].is_object());
}

/// kubectl makes strategic merge patches exactly where the operation takes them.
#[test]
fn custom_resources_take_no_strategic_patch() {
    let content = |path: &str, item: &str| {
        let document = v3(path);
        let content = document["paths"][item]["patch"]["requestBody"]["content"].clone();
        content.as_object().unwrap().contains_key("application/strategic-merge-patch+json")
    };
    assert!(content("apis/apps/v1", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"));
    assert!(!content("apis/karpenter.sh/v1", "/apis/karpenter.sh/v1/nodepools/{name}"));
}

/// Reads the top of a protobuf message: field number and bytes of each length-delimited field.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => {
                varint(&mut bytes);
            }
            1 => bytes = &bytes[8..],
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                found.push((key >> 3, &bytes[..length]));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

#[test]
fn the_protobuf_form_holds_the_same_definitions() {
    let json: Value = serde_json::from_slice(v2_json()).unwrap();
    let expected: BTreeSet<&str> =
        json["definitions"].as_object().unwrap().keys().map(String::as_str).collect();
    let document = fields(v2_protobuf());
    let (_, definitions) = document.iter().find(|(field, _)| *field == 9).unwrap();
    let found: BTreeSet<&str> = fields(definitions)
        .into_iter()
        .map(|(_, entry)| std::str::from_utf8(fields(entry)[0].1).unwrap())
        .collect();
    assert_eq!(found, expected);
}
