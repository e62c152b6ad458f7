//! The serving certificates of kubelets: each asks for one when it has registered, and EKS gives it.
//!
//! No key stands behind these requests: a simulated kubelet serves nothing. What is asked for and what
//! is given are PEM blocks that say so, and only such requests are approved here, wherever this runs.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::Kind;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::view::View;

/// `modelled: a simulated kubelet has no key`, as PEM.
const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\nbW9kZWxsZWQ6IGEgc2ltdWxhdGVkIGt1YmVsZXQgaGFzIG5vIGtleQ==\n-----END CERTIFICATE REQUEST-----\n";
/// `modelled: nobody signed this`, as PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nbW9kZWxsZWQ6IG5vYm9keSBzaWduZWQgdGhpcw==\n-----END CERTIFICATE-----\n";
const SIGNER: &str = "kubernetes.io/kubelet-serving";

/// The request of a node's kubelet.
pub(super) fn request(node: &str) -> CertificateSigningRequest {
    let owned = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(REQUEST.as_bytes().to_vec()),
            signer_name: SIGNER.to_owned(),
            usages: owned(&["digital signature", "server auth"]),
            username: Some(format!("system:node:{node}")),
            groups: owned(&["system:bootstrappers", "system:nodes", "system:authenticated"]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// EKS' part: approves the requests of its nodes' kubelets, and signs them.
#[derive(Debug, Default)]
pub struct KubeletCertificates;

impl Controller for KubeletCertificates {
    fn name(&self) -> &'static str {
        "kubelet-certificates"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[("certificates.k8s.io", "certificatesigningrequests")])
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<CertificateSigningRequest>();
        if change.kind() == kind && change.new.is_some() {
            queue.now(WorkKey::object(kind, change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let request: Option<&CertificateSigningRequest> = context.view.get(&key.key);
        let Some(request) = request.filter(|request| is_undecided(request)) else { return step };
        let now = context.now.to_meta();
        let mut decided = request.clone();
        let status = decided.status.get_or_insert_default();
        status.certificate = Some(ByteString(CERTIFICATE.as_bytes().to_vec()));
        status.conditions = Some(vec![CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some("it is the request of a node's own kubelet".to_owned()),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        }]);
        step.write(Write::Update { object: Box::new(decided), part: Part::All });
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        // Somebody else decided: the change that says so is on its way.
        if error.retryable() { OnError::Retry } else { OnError::Forget }
    }
}

/// Whether a request is a simulated kubelet's, and nobody has decided it.
fn is_undecided(request: &CertificateSigningRequest) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    request.spec.request.0 == REQUEST.as_bytes() && conditions.is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use wharf_model::object::ObjectKey;

    use super::*;
    use crate::harness::World;

    #[test]
    fn only_requests_of_simulated_kubelets_are_approved() {
        let mut world = World::new(KubeletCertificates);
        let mut own = request("fargate-ip-10-0-0-1.ec2.internal");
        own.metadata.name = Some("own".to_owned());
        let mut other = own.clone();
        other.metadata.name = Some("other".to_owned());
        other.spec.request = ByteString(b"-----BEGIN CERTIFICATE REQUEST-----".to_vec());
        world.put(Box::new(own));
        world.put(Box::new(other));
        world.run_for(std::time::Duration::from_secs(1));
        let status = |name: &str| {
            let request: Option<&CertificateSigningRequest> =
                world.view.get(&ObjectKey::cluster(name));
            request.and_then(|request| request.status.clone())
        };
        assert!(status("other").is_none());
        let own = status("own").expect("decided");
        assert!(own.certificate.is_some());
        assert_eq!(
            own.conditions.iter().flatten().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
            ["Approved"]
        );
    }
}
