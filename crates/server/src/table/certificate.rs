//! CertificateSigningRequests.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};
use wharf_model::duration::human;
use wharf_model::time::Time;

use super::{Column, age};

pub(super) const REQUEST: &[Column] = &[
    Column::text("Name"),
    Column::text("Age"),
    Column::text("SignerName"),
    Column::text("Requestor"),
    Column::text("RequestedDuration"),
    Column::text("Condition"),
];

pub(super) fn request(request: &CertificateSigningRequest, now: Time) -> Vec<Value> {
    let spec = &request.spec;
    let life = spec.expiration_seconds.map(|seconds| human(i64::from(seconds) * 1_000_000_000));
    let signer = match spec.signer_name.as_str() {
        "" => "<none>",
        name => name,
    };
    vec![
        json!(request.metadata.name),
        json!(age(request.metadata.creation_timestamp.as_ref(), now)),
        json!(signer),
        json!(spec.username.as_deref().unwrap_or_default()),
        super::or_none(life.as_deref()),
        json!(state(request)),
    ]
}

/// `Approved,Issued`: what was decided, and what came of it.
fn state(request: &CertificateSigningRequest) -> String {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let has = |type_: &str| conditions.iter().any(|condition| condition.type_ == type_);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    let certificate = status.and_then(|status| status.certificate.as_ref());
    if certificate.is_some_and(|certificate| !certificate.0.is_empty()) {
        state.push_str(",Issued");
    }
    state
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn requests_say_what_became_of_them() {
        let row = |status: Value| {
            let spec = json!({"request": "MA==", "signerName": "kubernetes.io/kubelet-serving",
                "username": "system:node:n", "expirationSeconds": 86_400});
            let object = json!({"metadata": {"name": "csr-x"}, "spec": spec, "status": status});
            printed("CertificateSigningRequest", object)
        };
        let of = |state: &str| {
            format!("csr-x|<unknown>|kubernetes.io/kubelet-serving|system:node:n|24h|{state}")
        };
        let conditions = |types: &[&str]| -> Vec<Value> {
            types.iter().map(|type_| json!({"type": type_, "status": "True"})).collect()
        };
        assert_eq!(row(json!({})), of("Pending"));
        let both = json!({"conditions": conditions(&["Approved"]), "certificate": "MA=="});
        assert_eq!(row(both), of("Approved,Issued"));
        assert_eq!(row(json!({"conditions": conditions(&["Denied"])})), of("Denied"));
        let failed = json!({"conditions": conditions(&["Approved", "Failed"])});
        assert_eq!(row(failed), of("Approved,Failed"));
    }
}
