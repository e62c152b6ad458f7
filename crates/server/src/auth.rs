//! Who is asking: client certificates and bearer tokens. There is no anonymous access but to the
//! endpoints that tell of the server's health and version.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use ring::hmac;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};

use crate::tls::{ADMIN_GROUP, ADMIN_USER};

/// The group that every authenticated user is in.
const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// Longest bearer token that is looked at.
const TOKEN_LENGTH_MAX: usize = 4096;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
}

impl User {
    fn new(name: impl Into<String>, mut groups: Vec<String>) -> Arc<Self> {
        if !groups.iter().any(|group| group == AUTHENTICATED_GROUP) {
            groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        Arc::new(Self { name: name.into(), groups })
    }

    /// The administrator.
    pub fn admin() -> Arc<Self> {
        Self::new(ADMIN_USER, vec![ADMIN_GROUP.to_owned()])
    }

    /// The user that a verified client certificate names: CN is the name, each O a group.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Arc<Self>> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups = subject
            .iter_organization()
            .filter_map(|part| part.as_str().ok().map(str::to_owned))
            .collect();
        (!name.is_empty()).then(|| Self::new(name, groups))
    }
}

/// 401, in upstream's words.
pub(crate) fn unauthorized() -> ApiError {
    ApiError::new(StatusReason::Unauthorized, "Unauthorized")
}

/// Issues and checks bearer tokens: JSON Web Tokens signed with HMAC-SHA256.
pub struct Tokens {
    key: hmac::Key,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    groups: Vec<String>,
    iat: i64,
    exp: i64,
}

/// `{"alg":"HS256","typ":"JWT"}`: the only header that is issued, and so the only one accepted.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

impl Tokens {
    /// With a signing key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// A token with the administrator's rights that ends `life` after `now` (wall clock).
    pub fn issue(&self, now: Time, life: Duration) -> String {
        let admin = User::admin();
        let claims = Claims {
            sub: admin.name.clone(),
            groups: vec![ADMIN_GROUP.to_owned()],
            iat: now.as_seconds(),
            exp: (now + life).as_seconds(),
        };
        let claims = serde_json::to_vec(&claims).expect("claims always encode as JSON");
        let mut token = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }

    /// The user of a token; `None` if it is not ours or has expired at `now` (wall clock).
    pub fn check(&self, token: &str, now: Time) -> Option<Arc<User>> {
        if token.len() > TOKEN_LENGTH_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let (header, claims) = signed.split_once('.')?;
        if header != HEADER {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (now.as_seconds() < claims.exp).then(|| User::new(claims.sub, claims.groups))
    }

    /// The user of a request: the certificate's, or the bearer token's.
    ///
    /// # Errors
    /// 401 if there is neither.
    pub fn authenticate(
        &self,
        certificate: Option<&Arc<User>>,
        headers: &HeaderMap,
        now: Time,
    ) -> Result<Arc<User>, ApiError> {
        if let Some(user) = certificate {
            return Ok(Arc::clone(user));
        }
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        token.and_then(|token| self.check(token, now)).ok_or_else(unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_seconds(1_790_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_works_until_it_expires_and_only_with_its_key() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.issue(NOW, HOUR);
        let user = tokens.check(&token, NOW).expect("valid");
        assert_eq!(user, User::admin());
        assert!(tokens.check(&token, NOW + HOUR).is_none(), "expired");
        assert!(Tokens::new(&[8; 32]).check(&token, NOW).is_none(), "another key");
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"x","groups":[],"iat":0,"exp":9999999999}"#);
        let signature = token.rsplit('.').next().unwrap_or_default();
        assert!(tokens.check(&format!("{HEADER}.{claims}.{signature}"), NOW).is_none(), "forged");
        for rubbish in ["", ".", "..", "a.b.c"] {
            assert!(tokens.check(rubbish, NOW).is_none());
        }
    }

    #[test]
    fn the_admin_certificate_names_the_admin() {
        let pki = crate::tls::Pki::load_or_create(None, "127.0.0.1", NOW).expect("made");
        use rustls::pki_types::pem::PemObject as _;
        let certificate =
            CertificateDer::from_pem_slice(pki.client_cert_pem.as_bytes()).expect("PEM");
        assert_eq!(User::of_certificate(&certificate), Some(User::admin()));
        let tokens = Tokens::new(&pki.token_key);
        let error = tokens.authenticate(None, &HeaderMap::new(), NOW).expect_err("nobody");
        assert_eq!(error.reason.code(), 401);
    }
}
