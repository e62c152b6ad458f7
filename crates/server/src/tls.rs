//! The server's own certificate authority, its serving certificate and the administrator's client
//! certificate. ECDSA P-256 throughout: a key takes well under a millisecond to make.
//!
//! The authority is kept in the data directory; the two leaf certificates are issued anew at every
//! start, so that they always cover the address in use and never grow old. Certificates issued
//! earlier stay valid, since the authority is the same.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use ring::rand::SecureRandom as _;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use wharf_model::time::Time;

use crate::certificates::Signer;

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of the leaf certificates; a year more than any process runs.
const LEAF_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// An authority with less than this left is replaced, since its leaves would outlive it.
const AUTHORITY_LEFT_MIN: Duration = LEAF_LIFE;

/// The administrator's user name, kubeadm's.
pub const ADMIN_USER: &str = "kubernetes-admin";
/// The group that may do everything.
pub const ADMIN_GROUP: &str = "system:masters";

/// Why the certificates could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the data directory.
    #[error("cannot use {path}: {source}; check the permissions of the data directory")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A stored certificate or key is damaged.
    #[error(
        "{path} does not hold a usable certificate or key ({message}); remove the directory {} to have new ones made",
        path.parent().unwrap_or(Path::new("pki")).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A certificate could not be issued.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// The TLS library refused the certificates.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The system gives no random numbers.
    #[error("the system's random number generator does not work")]
    Random,
}

/// Everything needed to serve with TLS and to write a kubeconfig.
pub struct Pki {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The administrator's certificate, PEM.
    pub client_cert_pem: String,
    /// The administrator's private key, PEM.
    pub client_key_pem: String,
    /// The key that signs bearer tokens.
    pub token_key: [u8; 32],
    /// The TLS configuration.
    pub tls: Arc<rustls::ServerConfig>,
    /// Signs what CertificateSigningRequests ask for, with the authority.
    pub signer: Signer,
}

impl Pki {
    /// Loads the authority from `directory/pki`, or makes it there; in memory if there is no
    /// directory. `now` is the wall clock's time, `host` the address or name listened on.
    ///
    /// # Errors
    /// If files cannot be read or written, or are damaged.
    pub fn load_or_create(
        directory: Option<&Path>,
        host: &str,
        now: Time,
    ) -> Result<Self, PkiError> {
        let folder = directory.map(|directory| directory.join("pki"));
        if let Some(folder) = &folder {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| PkiError::File { path: folder.clone(), source })?;
        }
        let authority = Authority::load_or_create(folder.as_deref(), now)?;
        let token_key = token_key(folder.as_deref())?;

        let (serving_cert, serving_key) = authority.issue(serving_params(host)?, now)?;
        let (client_cert, client_key) = authority.issue(client_params()?, now)?;
        let tls = tls_config(&authority, &serving_cert, &serving_key)?;
        if let Some(folder) = &folder {
            // For tools that want files: `curl --cacert ca.crt --cert admin.crt --key admin.key`.
            write(&folder.join("admin.crt"), client_cert.pem().as_bytes())?;
            write(&folder.join("admin.key"), client_key.serialize_pem().as_bytes())?;
        }
        Ok(Self {
            ca_pem: authority.pem,
            client_cert_pem: client_cert.pem(),
            client_key_pem: client_key.serialize_pem(),
            token_key,
            tls,
            signer: Signer::new(authority.issuer),
        })
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn load_or_create(folder: Option<&Path>, now: Time) -> Result<Self, PkiError> {
        let Some(folder) = folder else { return Self::create(now) };
        let (cert_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        if let (Some(cert), Some(key)) = (read(&cert_path)?, read(&key_path)?) {
            let damaged =
                |path: &Path, message: String| PkiError::Damaged { path: path.to_owned(), message };
            let key =
                KeyPair::from_pem(&key).map_err(|error| damaged(&key_path, error.to_string()))?;
            if days_left(&cert, now).map_err(|message| damaged(&cert_path, message))?
                > AUTHORITY_LEFT_MIN
            {
                let issuer = Issuer::from_ca_cert_pem(&cert, key)
                    .map_err(|error| damaged(&cert_path, error.to_string()))?;
                return Ok(Self { pem: cert, issuer });
            }
        }
        let authority = Self::create(now)?;
        // The key first: a certificate without its key would be taken for an authority.
        write(&key_path, authority.issuer.key().serialize_pem().as_bytes())?;
        write(&cert_path, authority.pem.as_bytes())?;
        Ok(authority)
    }

    fn create(now: Time) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "wharf-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        set_validity(&mut params, now, AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        now: Time,
    ) -> Result<(rcgen::Certificate, KeyPair), PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }
}

fn serving_params(host: &str) -> Result<CertificateParams, PkiError> {
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "::1",
        // The cluster address of the `kubernetes` Service.
        "10.100.0.1",
    ]
    .map(str::to_owned)
    .into();
    let unspecified = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    if !host.is_empty() && !unspecified {
        names.push(host.to_owned());
    }
    if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
        let name = name.trim();
        // A name that is not plain ASCII cannot stand in a certificate; it is left out.
        if !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn client_params() -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, ADMIN_GROUP);
    params.distinguished_name.push(DnType::CommonName, ADMIN_USER);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Valid from yesterday, so that a client whose clock is behind accepts it.
fn set_validity(params: &mut CertificateParams, now: Time, life: Duration) {
    let date = |time: Time| {
        let day = time.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(
            i32::from(day.year()),
            day.month().unsigned_abs(),
            day.day().unsigned_abs(),
        )
    };
    params.not_before = date(now - Duration::from_secs(86_400));
    params.not_after = date(now + life);
}

fn days_left(pem: &str, now: Time) -> Result<Duration, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
    Ok(Time::from_seconds(certificate.validity().not_after.timestamp()).since(now))
}

fn tls_config(
    authority: &Authority,
    certificate: &rcgen::Certificate,
    key: &KeyPair,
) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
    let ca = CertificateDer::from_pem_slice(authority.pem.as_bytes()).map_err(|e| tls(&e))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(|error| tls(&error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| tls(&error))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone(), ca], key)
        .map_err(|error| tls(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn token_key(folder: Option<&Path>) -> Result<[u8; 32], PkiError> {
    let path = folder.map(|folder| folder.join("token.key"));
    if let Some(path) = &path
        && let Some(bytes) = read_bytes(path)?
    {
        return bytes.try_into().map_err(|_| PkiError::Damaged {
            path: path.clone(),
            message: "expected 32 bytes".to_owned(),
        });
    }
    let mut key = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut key).map_err(|_| PkiError::Random)?;
    if let Some(path) = &path {
        write(path, &key)?;
    }
    Ok(key)
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.to_owned(), source }),
    }
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    read_bytes(path)?
        .map(|bytes| {
            String::from_utf8(bytes).map_err(|_| PkiError::Damaged {
                path: path.to_owned(),
                message: "it is not text".to_owned(),
            })
        })
        .transpose()
}

/// Writes a file that only its owner can read, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let temporary = path.with_extension("new");
    let attempt = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        drop(file);
        fs::rename(&temporary, path)
    };
    attempt().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_seconds(1_790_000_000);

    #[test]
    fn the_serving_certificate_covers_the_names_clients_use() {
        let params = serving_params("192.0.2.7").expect("valid names");
        let names = format!("{:?}", params.subject_alt_names);
        for name in ["localhost", "kubernetes.default.svc.cluster.local", "10.100.0.1", "192.0.2.7"]
        {
            assert!(names.contains(name), "{name} in {names}");
        }
        assert!(
            !format!("{:?}", serving_params("0.0.0.0").expect("valid").subject_alt_names)
                .contains("0.0.0.0")
        );
    }

    #[test]
    fn the_authority_is_kept_and_files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let load = || Pki::load_or_create(Some(directory.path()), "127.0.0.1", NOW);
        let (first, second) = (load().expect("made"), load().expect("loaded"));
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_eq!(first.token_key, second.token_key);
        for file in ["ca.key", "admin.key", "token.key"] {
            let mode = fs::metadata(directory.path().join("pki").join(file))
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let later = Pki::load_or_create(
            Some(directory.path()),
            "",
            NOW + Duration::from_secs(9 * 365 * 86_400),
        );
        assert_ne!(later.expect("renewed").ca_pem, first.ca_pem);
    }

    #[test]
    fn a_damaged_key_is_told_and_left_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Pki::load_or_create(Some(directory.path()), "", NOW).expect("made");
        let path = directory.path().join("pki/ca.key");
        fs::write(&path, "rubbish").expect("written");
        let error = Pki::load_or_create(Some(directory.path()), "", NOW).err().expect("damaged");
        assert!(error.to_string().contains("remove the directory"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "rubbish");
    }
}
