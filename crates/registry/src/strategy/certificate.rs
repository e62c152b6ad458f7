//! CertificateSigningRequests (`certificates.k8s.io/v1`): what is asked for never changes; who approves
//! and who signs write different parts of the status.
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use wharf_model::names;
use wharf_model::time::Time;
use wharf_ports::cluster::Part;

use super::Rules;
use crate::field::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// Shorter lives are refused.
const LIFE_SECONDS_MIN: i32 = 600;
const DOMAIN_LEN_MAX: usize = 253;
const PATH_LEN_MAX: usize = 253;
/// A signer that the API's version 1 no longer has.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Rules for CertificateSigningRequest {
    /// Upstream asks nothing of a request's name beyond what every path asks.
    fn name_errors(name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(&mut self, old: &Self, part: Part) {
        self.spec.clone_from(&old.spec);
        let before = old.status.as_ref();
        let status = self.status.get_or_insert_default();
        match part {
            // Whoever approves does not sign,
            Part::Approval => {
                status.certificate = before.and_then(|before| before.certificate.clone());
            }
            // and whoever signs does not approve.
            Part::Status => {
                let is_decision = |c: &CertificateSigningRequestCondition| {
                    matches!(c.type_.as_str(), APPROVED | DENIED)
                };
                let old = before.and_then(|before| before.conditions.as_ref());
                let mut conditions: Vec<_> =
                    old.into_iter().flatten().filter(|c| is_decision(c)).cloned().collect();
                let new = status.conditions.take().unwrap_or_default();
                conditions.extend(new.into_iter().filter(|c| !is_decision(c)));
                status.conditions = (!conditions.is_empty()).then_some(conditions);
            }
            Part::Main | Part::All | Part::Resize => {}
        }
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        if let Err(detail) = pem_block(&spec.request.0, "CERTIFICATE REQUEST") {
            errors.invalid(&SPEC.child("request"), "<request data>", detail);
        }
        validate_signer(&spec.signer_name, errors);
        if let Some(seconds) = spec.expiration_seconds.filter(|life| *life < LIFE_SECONDS_MIN) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid(&SPEC.child("expirationSeconds"), &seconds, detail);
        }
        validate_usages(spec.usages.as_deref().unwrap_or_default(), errors);
        let Some(status) = &self.status else { return };
        validate_conditions(status.conditions.as_deref().unwrap_or_default(), errors);
        if let Some(certificate) = &status.certificate
            && let Err(detail) = pem_block(&certificate.0, "CERTIFICATE")
        {
            errors.invalid(&STATUS.child("certificate"), "<certificate data>", detail);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let path = STATUS.child("conditions");
        for decision in [APPROVED, DENIED, FAILED] {
            if has(old, decision) && !has(self, decision) {
                let detail = format!("updates may not remove a condition of type {decision:?}");
                errors.forbidden(&path, detail);
            }
        }
    }
}

fn has(request: &CertificateSigningRequest, type_: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == type_)
}

fn validate_signer(name: &str, errors: &mut Errors) {
    let path = SPEC.child("signerName");
    if name.is_empty() {
        return errors.required(&path, "");
    }
    if name == LEGACY_SIGNER {
        let detail = "the legacy signerName is not allowed via this API version";
        return errors.invalid(&path, name, detail);
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(&path, name, detail);
    };
    errors.invalid_each(&path, domain, names::dns_1123_subdomain(domain));
    if domain.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.invalid(&path, domain, detail);
    }
    for segment in rest.split('.') {
        errors.invalid_each(&path, segment, names::dns_1123_subdomain(segment));
    }
    if domain.len() > DOMAIN_LEN_MAX || rest.len() > PATH_LEN_MAX {
        errors.too_long(&path, DOMAIN_LEN_MAX + 1 + PATH_LEN_MAX);
    }
}

fn validate_usages(usages: &[String], errors: &mut Errors) {
    let path = SPEC.child("usages");
    if usages.is_empty() {
        errors.required(&path, "");
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in usages.iter().enumerate() {
        let path = path.index(index);
        if !USAGES.contains(&usage.as_str()) {
            errors.not_supported(&path, usage, &USAGES);
        } else if !seen.insert(usage) {
            errors.duplicate(&path, usage);
        }
    }
}

fn validate_conditions(conditions: &[CertificateSigningRequestCondition], errors: &mut Errors) {
    let path = STATUS.child("conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let (type_path, status) = (path.child("type"), path.child("status"));
        let type_ = condition.type_.as_str();
        if type_.is_empty() {
            errors.required(&type_path, "");
        } else if seen.contains(type_) {
            errors.duplicate(&type_path, type_);
        }
        let excluded = match type_ {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if seen.contains(excluded) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&type_path, type_, detail);
        }
        seen.insert(type_);
        let allowed: &[&str] = match type_ {
            APPROVED | DENIED | FAILED => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        if condition.status.is_empty() {
            errors.required(&status, "");
        } else if !allowed.contains(&condition.status.as_str()) {
            errors.not_supported(&status, &condition.status, allowed);
        }
    }
}

/// Looks whether bytes are a PEM block of a type. What the block holds is for those to say who know
/// of certificates: the server for requests, signers for what they sign.
fn pem_block(bytes: &[u8], label: &str) -> Result<(), String> {
    let wrong = || format!("PEM block type must be {label}");
    let text = std::str::from_utf8(bytes).map_err(|_| wrong())?.trim();
    let text = text.strip_prefix(&format!("-----BEGIN {label}-----")).ok_or_else(wrong)?;
    if text.contains(&format!("-----END {label}-----")) { Ok(()) } else { Err(wrong()) }
}
