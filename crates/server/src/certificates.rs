//! Certificates on request: who asked for one, and, once the request is approved, the certificate,
//! signed by the server's own authority. Upstream's signing controller does this a moment later and
//! elsewhere; here it is done with the approval, since the authority's key is the server's.
//!
//! What each signer lets through is upstream's:
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Typed};
use wharf_model::time::Time;
use wharf_ports::cluster::Part;
use wharf_ports::error::ApiError;
use wharf_registry::WriteOptions;
use x509_parser::prelude::FromDer as _;

use crate::api::Api;
use crate::auth::User;
use crate::status;
use crate::tls::ADMIN_GROUP;

/// Life of what is signed unless less is asked for: `--cluster-signing-duration`.
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Certificates are valid from a little before, since clocks differ.
const BACKDATED: Duration = Duration::from_secs(300);
const NODE_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// EKS' own, for what applications serve.
const APP_SERVING: &str = "beta.eks.amazonaws.com/app-serving";

/// Signs with the server's authority.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    pub(crate) fn new(issuer: Issuer<'static, KeyPair>) -> Self {
        Self { issuer }
    }

    /// The certificate, PEM. `now` is the wall clock's time: clients' clocks are real.
    fn certificate(
        &self,
        request: &CertificateSigningRequest,
        mut asked: CertificateSigningRequestParams,
        now: Time,
    ) -> Result<String, String> {
        let spec = &request.spec;
        check(&spec.signer_name, spec.usages.as_deref().unwrap_or_default(), &asked)?;
        let life = spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let life = life.map_or(LIFE, Duration::from_secs).min(LIFE);
        let params = &mut asked.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages.clear();
        params.extended_key_usages.clear();
        for usage in spec.usages.iter().flatten() {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
                }
                _ => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            }
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(params, now - BACKDATED, now + life);
        let certificate = asked.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        Ok(certificate.pem())
    }
}

/// Puts down on a new request who asks, and refuses one that is none.
pub(crate) fn of_user(object: &mut dyn Typed, user: &User) -> Result<(), ApiError> {
    let Some(request) = object.as_any_mut().downcast_mut::<CertificateSigningRequest>() else {
        return Ok(());
    };
    let name = request.metadata.name.clone().unwrap_or_default();
    let asked = parse(&request.spec.request.0).map_err(|why| {
        let (group, kind) = ("certificates.k8s.io", "CertificateSigningRequest");
        let message = format!("Invalid value: \"<request data>\": {why}");
        status::invalid(group, kind, &name, "FieldValueInvalid", "spec.request", &message)
    })?;
    let spec = &mut request.spec;
    if spec.signer_name == CLIENT && organizations(&asked).any(|group| group == ADMIN_GROUP) {
        let why = format!("use of {CLIENT} signer with {ADMIN_GROUP} group is not allowed");
        return Err(ApiError::forbidden(Kind::of::<CertificateSigningRequest>(), &name, &why));
    }
    spec.username = Some(user.name.clone());
    spec.groups = Some(user.groups.clone());
    (spec.uid, spec.extra) = (None, None);
    Ok(())
}

/// Fills in when the conditions of an approval were set, in the cluster's time.
pub(crate) fn stamp(object: &mut dyn Typed, part: Part, now: Time) {
    if part != Part::Approval {
        return;
    }
    let request = object.as_any_mut().downcast_mut::<CertificateSigningRequest>();
    let status = request.and_then(|request| request.status.as_mut());
    for condition in status.into_iter().flat_map(|status| status.conditions.iter_mut().flatten()) {
        condition.last_transition_time.get_or_insert_with(|| now.to_meta());
        condition.last_update_time.get_or_insert_with(|| now.to_meta());
    }
}

/// Signs what was approved before the server last stopped and is not signed yet.
pub(crate) fn sign_waiting(api: &Api) {
    let (requests, _) = api.store.list(Kind::of::<CertificateSigningRequest>(), None);
    requests.iter().for_each(|request| sign(api, request));
}

/// Signs a request that is approved, if this server is who signs it. A write that another overtakes is
/// left: the next approval, or the next start, does it again.
pub(crate) fn sign(api: &Api, object: &Arc<Object>) {
    let Some(signer) = &api.parts.signer else { return };
    let Some(request) = object.draft::<CertificateSigningRequest>() else { return };
    if !is_due(&request) {
        return;
    }
    // Those of simulated kubelets hold nothing to sign.
    let Ok(asked) = parse(&request.spec.request.0) else { return };
    let mut signed = request;
    let certificate = signer.certificate(&signed, asked, api.parts.wall.now());
    let status = signed.status.get_or_insert_default();
    match certificate {
        Ok(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
        Err(why) => {
            let at = Some(api.now().to_meta());
            status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                type_: "Failed".to_owned(),
                status: "True".to_owned(),
                reason: Some("SignerValidationFailure".to_owned()),
                message: Some(why),
                last_update_time: at.clone(),
                last_transition_time: at,
            });
        }
    }
    let _ = api.parts.registry.update(Box::new(signed), Part::Status, &WriteOptions::default());
}

/// Whether a request is approved, for a signer that is here, and neither signed nor refused.
fn is_due(request: &CertificateSigningRequest) -> bool {
    let signers = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, APP_SERVING];
    let Some(status) = &request.status else { return false };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let has = |type_: &str| conditions.iter().any(|condition| condition.type_ == type_);
    let is_signed = status.certificate.as_ref().is_some_and(|there| !there.0.is_empty());
    let is_ours = signers.contains(&request.spec.signer_name.as_str());
    is_ours && has("Approved") && !has("Denied") && !has("Failed") && !is_signed
}

fn parse(pem: &[u8]) -> Result<CertificateSigningRequestParams, String> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der)
        .map_err(|error| error.to_string())?;
    // Those beyond the first would get lost on the way.
    if request.certification_request_info.subject.iter_organization().count() > 1 {
        return Err("the subject names more than one organization, which is not supported here; ask with one O".to_owned());
    }
    CertificateSigningRequestParams::from_der(&der).map_err(|error| error.to_string())
}

/// What is wrong with what is asked of a signer.
fn check(
    signer: &str,
    usages: &[String],
    asked: &CertificateSigningRequestParams,
) -> Result<(), String> {
    let purpose = match signer {
        KUBELET_SERVING | APP_SERVING => "server auth",
        _ => "client auth",
    };
    let allowed = ["digital signature", "key encipherment", purpose];
    let is_allowed = |usage: &String| allowed.contains(&usage.as_str());
    if !usages.iter().all(is_allowed) || !usages.iter().any(|usage| usage == purpose) {
        return Err(format!(
            "invalid usages for the signer {signer}: {purpose}, with digital signature and key encipherment at will, not {}",
            usages.join(", ")
        ));
    }
    let names = &asked.params.subject_alt_names;
    if matches!(signer, KUBELET_SERVING | KUBELET_CLIENT) {
        if !organizations(asked).eq([NODES_GROUP.to_owned()]) {
            return Err(format!("subject organization is not {NODES_GROUP}"));
        }
        let name = asked.params.distinguished_name.get(&DnType::CommonName).and_then(text);
        if !name.is_some_and(|name| name.starts_with(NODE_PREFIX)) {
            return Err(format!("subject common name does not begin with {NODE_PREFIX}"));
        }
        if signer == KUBELET_CLIENT && !names.is_empty() {
            return Err("DNS, IP, email and URI subjectAltNames are not allowed".to_owned());
        }
    }
    if signer == KUBELET_SERVING {
        let is_address =
            |name: &SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
        if names.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        if !names.iter().all(is_address) {
            return Err("email and URI subjectAltNames are not allowed".to_owned());
        }
    }
    Ok(())
}

fn organizations(asked: &CertificateSigningRequestParams) -> impl Iterator<Item = String> {
    let name = asked.params.distinguished_name.get(&DnType::OrganizationName);
    name.and_then(text).into_iter()
}

fn text(value: &DnValue) -> Option<String> {
    match value {
        DnValue::Utf8String(text) => Some(text.clone()),
        DnValue::PrintableString(text) => Some(text.to_string()),
        DnValue::Ia5String(text) => Some(text.to_string()),
        _ => None,
    }
}

/// From when until when a certificate is valid, to the second.
fn set_validity(params: &mut CertificateParams, from: Time, until: Time) {
    let moment = |at: Time| {
        let date = at.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        let second = at.as_seconds().rem_euclid(86_400).unsigned_abs();
        rcgen::date_time_ymd(i32::from(date.year()), month, day) + Duration::from_secs(second)
    };
    (params.not_before, params.not_after) = (moment(from), moment(until));
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use serde_json::{Value, json};

    use super::*;
    use crate::tls::Pki;

    const NOW: Time = Time::from_seconds(1_790_000_123);

    /// A request for a subject and names, PEM.
    fn asked(common_name: &str, organization: &str, names: &[&str]) -> String {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serialize_request(&key).expect("a request").pem().expect("PEM")
    }

    fn request(pem: &str, signer: &str, usages: &[&str], life: Value) -> CertificateSigningRequest {
        let mut request: CertificateSigningRequest = serde_json::from_value(json!({
            "metadata": {"name": "r"},
            "spec": {"request": "", "signerName": signer, "usages": usages,
                "expirationSeconds": life},
        }))
        .expect("a request");
        request.spec.request = ByteString(pem.as_bytes().to_vec());
        request
    }

    fn signed(request: &CertificateSigningRequest) -> Result<CertificateDer<'static>, String> {
        let pki = Pki::load_or_create(None, "", NOW).expect("made");
        let asked = parse(&request.spec.request.0)?;
        let pem = pki.signer.certificate(request, asked, NOW)?;
        Ok(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
    }

    #[test]
    fn a_client_gets_a_certificate_for_as_long_as_asked() {
        let pem = asked("jane", "team", &[]);
        for (life, expected) in [(json!(3600), 3600), (json!(null), 31_536_000)] {
            let request = request(&pem, CLIENT, &["client auth", "digital signature"], life);
            let der = signed(&request).expect("signed");
            let user = User::of_certificate(&der).expect("a user");
            assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("jane", "team"));
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("readable");
            let validity = certificate.validity();
            assert_eq!(validity.not_before.timestamp(), NOW.as_seconds() - 300);
            assert_eq!(validity.not_after.timestamp(), NOW.as_seconds() + expected);
            assert!(!certificate.is_ca());
        }
    }

    #[test]
    fn what_a_signer_does_not_let_through_is_told() {
        let node = "system:node:n";
        for (pem, signer, usages, expected) in [
            (
                asked("jane", "team", &[]),
                CLIENT,
                vec!["server auth"],
                "invalid usages for the signer kubernetes.io/kube-apiserver-client",
            ),
            (
                asked(node, "team", &["n"]),
                KUBELET_SERVING,
                vec!["server auth"],
                "subject organization is not system:nodes",
            ),
            (
                asked("n", NODES_GROUP, &["n"]),
                KUBELET_SERVING,
                vec!["server auth"],
                "subject common name does not begin with system:node:",
            ),
            (
                asked(node, NODES_GROUP, &[]),
                KUBELET_SERVING,
                vec!["server auth"],
                "DNS or IP subjectAltName is required",
            ),
            (
                asked(node, NODES_GROUP, &["n"]),
                KUBELET_CLIENT,
                vec!["client auth"],
                "subjectAltNames are not allowed",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----".to_owned(),
                CLIENT,
                vec!["client auth"],
                "PEM block type must be CERTIFICATE REQUEST",
            ),
        ] {
            let error = signed(&request(&pem, signer, &usages, json!(null))).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let pem = asked(node, NODES_GROUP, &["n", "10.0.0.1"]);
        assert!(signed(&request(&pem, KUBELET_SERVING, &["server auth"], json!(600))).is_ok());
    }

    #[test]
    fn who_asks_is_put_down_and_nobody_asks_for_everything() {
        let user = User { name: "u".to_owned(), groups: vec!["g".to_owned()] };
        let mut own = request(&asked("jane", "team", &[]), CLIENT, &["client auth"], json!(null));
        own.spec.username = Some("system:node:n".to_owned());
        of_user(&mut own, &user).expect("let in");
        assert_eq!(own.spec.username.as_deref(), Some("u"));
        let pem = asked("jane", ADMIN_GROUP, &[]);
        let mut all = request(&pem, CLIENT, &["client auth"], json!(null));
        let error = of_user(&mut all, &user).expect_err("refused");
        assert_eq!(
            error.message,
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
    }
}
