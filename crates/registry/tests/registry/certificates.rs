//! CertificateSigningRequests: what is asked for, and who writes which part of the status.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

/// `-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n` in base64.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUE9PQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
/// The same for `CERTIFICATE`.
const CERTIFICATE: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";

fn request() -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "jane"},
        "spec": {
            "request": REQUEST,
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
            "username": "kubernetes-admin",
        },
    })
}

fn condition(type_: &str) -> Value {
    json!({"type": type_, "status": "True", "reason": "R"})
}

#[test]
fn who_approves_and_who_signs_write_different_parts() {
    let cluster = Cluster::new();
    let sent = with(request(), "status", json!({"conditions": [condition("Approved")]}));
    let stored = cluster.create(sent).unwrap();
    assert_eq!(stored["status"], json!({}), "a new request is pending");

    let changed = with(stored.clone(), "spec.signerName", json!("example.org/other"));
    let updated = cluster.update(changed, Part::Main).unwrap();
    assert_eq!(updated["spec"], stored["spec"], "what is asked for stays");

    let status = json!({"conditions": [condition("Approved")], "certificate": CERTIFICATE});
    let signed = cluster.update(with(updated, "status", status.clone()), Part::Status).unwrap();
    assert_eq!(signed["status"], json!({"certificate": CERTIFICATE}), "signers approve nothing");

    let other = json!({"conditions": [condition("Approved")]});
    let approved = cluster.update(with(signed, "status", other), Part::Approval).unwrap();
    assert_eq!(approved["status"], status, "whoever approves leaves the certificate");

    let denied = with(approved.clone(), "status.conditions", json!([condition("Denied")]));
    let refusal = cluster.update(denied, Part::Approval).unwrap_err();
    assert!(
        refusal.message.ends_with(
            "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""
        ),
        "{refusal}"
    );
    let both = json!([condition("Approved"), condition("Denied")]);
    let refusal = cluster.update(with(approved, "status.conditions", both), Part::Approval);
    let refusal = refusal.unwrap_err();
    assert!(refusal.message.contains("are mutually exclusive"), "{refusal}");
}

#[test]
fn refusals_are_upstreams() {
    for (path, value, expected) in [
        (
            "spec.request",
            json!("MA=="),
            "spec.request: Invalid value: \"<request data>\": PEM block type must be CERTIFICATE REQUEST",
        ),
        ("spec.signerName", json!(""), "spec.signerName: Required value"),
        (
            "spec.signerName",
            json!("kubernetes.io/legacy-unknown"),
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
        ),
        (
            "spec.signerName",
            json!("jane"),
            "spec.signerName: Invalid value: \"jane\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        (
            "spec.signerName",
            json!("local/jane"),
            "spec.signerName: Invalid value: \"local\": should be a domain with at least two segments separated by dots",
        ),
        (
            "spec.expirationSeconds",
            json!(599),
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ),
        ("spec.usages", json!([]), "spec.usages: Required value"),
        (
            "spec.usages",
            json!(["client auth", "client auth"]),
            "spec.usages[1]: Duplicate value: \"client auth\"",
        ),
    ] {
        let cluster = Cluster::new();
        let refusal = cluster.create(with(request(), path, value)).unwrap_err();
        let expected = format!(
            "CertificateSigningRequest.certificates.k8s.io \"jane\" is invalid: {expected}"
        );
        assert_eq!(refusal.message, expected);
    }
    let refusal =
        Cluster::new().create(with(request(), "spec.usages", json!(["tea"]))).unwrap_err();
    assert!(refusal.message.contains("spec.usages[0]: Unsupported value: \"tea\""), "{refusal}");
}
