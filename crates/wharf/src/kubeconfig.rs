//! The user's kubeconfig: adds or replaces the entries named `wharf`, leaves everything else, and
//! writes the file in one move so that no reader ever sees half of it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// Name of the context, cluster and user.
pub(crate) const NAME: &str = "wharf";
/// How long to wait for another program's lock on the file.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How to reach a lab and who to be there. Certificates and keys are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// `https://127.0.0.1:6443`.
    pub(crate) server: String,
    /// The lab's certificate authority.
    pub(crate) authority: String,
    /// Client certificate.
    pub(crate) certificate: String,
    /// Client key.
    pub(crate) key: String,
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeconfigError {
    /// It cannot be read or written.
    #[error("kubeconfig {path} cannot be {verb}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// It is not a kubeconfig.
    #[error(
        "kubeconfig {path} is not valid ({error}); mend it, or name another file with --kubeconfig"
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// Another program holds it.
    #[error(
        "kubeconfig {path} is locked by another program; if none is running, remove {path}.lock"
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It has no usable entry for a lab.
    #[error(
        "kubeconfig {path} has no context {NAME:?}; start a lab with `wharf up`, or name its file with --kubeconfig"
    )]
    NoContext {
        /// The file.
        path: PathBuf,
    },
}

/// The file that kubectl would change: the first of `$KUBECONFIG` that exists, else its last, else
/// `~/.kube/config`. The same choice as kind's.
pub(crate) fn default_path() -> PathBuf {
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|list| std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    let existing = listed.iter().find(|path| path.exists()).or(listed.last()).cloned();
    existing.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").unwrap_or_else(|| OsString::from("."));
        Path::new(&home).join(".kube").join("config")
    })
}

/// Adds the lab to a kubeconfig and makes it the current context. Other entries stay.
pub(crate) fn add(path: &Path, access: &Access) -> Result<(), KubeconfigError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| io_error(path, "written", error))?;
    }
    let _lock = Lock::take(path)?;
    let mut config = read(path)?.unwrap_or_else(|| {
        json!({"apiVersion": "v1", "kind": "Config", "preferences": {}})
            .as_object()
            .cloned()
            .unwrap_or_default()
    });
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let entries = [
        (
            "clusters",
            "cluster",
            json!({
                "server": access.server,
                "certificate-authority-data": encode(&access.authority),
            }),
        ),
        (
            "users",
            "user",
            json!({
                "client-certificate-data": encode(&access.certificate),
                "client-key-data": encode(&access.key),
            }),
        ),
        ("contexts", "context", json!({"cluster": NAME, "user": NAME})),
    ];
    for (list, field, value) in entries {
        let entry = json!({"name": NAME, field: value});
        let slot = config.entry(list).or_insert(Value::Null);
        if slot.is_null() {
            *slot = json!([]);
        }
        let Value::Array(items) = slot else {
            return Err(invalid(path, format!("{list} is not a list")));
        };
        match items.iter_mut().find(|item| item["name"] == NAME) {
            // The namespace a user has set for the context stays.
            Some(item) => {
                let kept = item[field]["namespace"].clone();
                *item = entry;
                if list == "contexts" && kept.is_string() {
                    item[field]["namespace"] = kept;
                }
            }
            None => items.push(entry),
        }
    }
    config.insert("current-context".to_owned(), json!(NAME));
    write(path, &config)
}

/// The lab that a kubeconfig's context `wharf` leads to.
pub(crate) fn access(path: &Path) -> Result<Access, KubeconfigError> {
    let missing = || KubeconfigError::NoContext { path: path.to_owned() };
    let config = Value::Object(read(path)?.ok_or_else(missing)?);
    let entry = |list: &str, field: &str| -> Result<Value, KubeconfigError> {
        config[list]
            .as_array()
            .into_iter()
            .flatten()
            .find(|item| item["name"] == NAME)
            .map(|item| item[field].clone())
            .ok_or_else(missing)
    };
    let (cluster, user) = (entry("clusters", "cluster")?, entry("users", "user")?);
    let decode = |value: &Value| -> Result<String, KubeconfigError> {
        let text = value.as_str().ok_or_else(missing)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| invalid(path, "a certificate of the context is not base64".to_owned()))
    };
    Ok(Access {
        server: cluster["server"].as_str().ok_or_else(missing)?.to_owned(),
        authority: decode(&cluster["certificate-authority-data"])?,
        certificate: decode(&user["client-certificate-data"])?,
        key: decode(&user["client-key-data"])?,
    })
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>, KubeconfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read", error)),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(Value::Object(config)) => Ok(Some(config)),
        Ok(_) => Err(invalid(path, "it is not a mapping".to_owned())),
        Err(error) => {
            Err(invalid(path, error.to_string().lines().next().unwrap_or_default().to_owned()))
        }
    }
}

/// Writes beside the file and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, config: &Map<String, Value>) -> Result<(), KubeconfigError> {
    let failed = |error| io_error(path, "written", error);
    // One line for each value, as kubectl writes them: scripts cut certificates out with grep.
    let mut options = serde_saphyr::SerializerOptions::default();
    options.prefer_block_scalars = false;
    let text = serde_saphyr::to_string_with_options(config, options)
        .map_err(|error| io_error(path, "written", io::Error::other(error.to_string())))?;
    // A link stays a link: what it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = with_suffix(&target, ".wharf-new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, &target).map_err(failed)
}

/// client-go's lock: a file beside the config that exists while someone changes it.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, KubeconfigError> {
        let lock = with_suffix(path, ".lock");
        for _ in 0..LOCK_TRIES {
            match fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(io_error(path, "written", error)),
            }
        }
        Err(KubeconfigError::Locked { path: path.to_owned() })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing can be done about a lock that will not go; the next taker says what to do.
        let _ = fs::remove_file(&self.0);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(path: &Path, verb: &'static str, error: io::Error) -> KubeconfigError {
    KubeconfigError::Io { path: path.to_owned(), verb, error }
}

fn invalid(path: &Path, error: String) -> KubeconfigError {
    KubeconfigError::Invalid { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lab() -> Access {
        Access {
            server: "https://127.0.0.1:6443".to_owned(),
            authority: "CA".to_owned(),
            certificate: "CERT".to_owned(),
            key: "KEY".to_owned(),
        }
    }

    #[test]
    fn other_entries_survive_and_the_lab_becomes_current() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("config");
        let before = "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster:\n    server: https://prod\n    extensions:\n    - name: x\n      extension: {a: \"0644\"}\ncontexts:\n- name: prod\n  context: {cluster: prod, user: me, namespace: shop}\nusers:\n- name: me\n  user:\n    exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: aws, args: [eks, get-token], env: null}\ncurrent-context: prod\n";
        fs::write(&path, before).expect("a writable folder");
        add(&path, &lab()).expect("a valid file");
        add(&path, &lab()).expect("the same again");
        let after = Value::Object(read(&path).expect("valid").expect("there"));
        let expected: Value = serde_saphyr::from_str(before).expect("valid YAML");
        for list in ["clusters", "contexts", "users"] {
            assert_eq!(after[list][0], expected[list][0]);
            assert_eq!(after[list][1]["name"], NAME);
            assert_eq!(after[list].as_array().map(Vec::len), Some(2), "no second entry");
        }
        assert_eq!(after["current-context"], NAME);
        assert_eq!(access(&path).expect("its own entry"), lab());
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.contains("certificate-authority-data: Q0E="), "{text}");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!with_suffix(&path, ".lock").exists());
    }

    #[test]
    fn a_new_file_is_made_with_its_folder() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("a/b/config");
        add(&path, &lab()).expect("a new file");
        assert_eq!(access(&path).expect("its own entry"), lab());
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("config");
        fs::write(&path, "clusters: [").expect("a writable folder");
        let error = add(&path, &lab()).expect_err("not YAML");
        assert!(error.to_string().contains("is not valid"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "clusters: [");
        assert!(access(&path).is_err());
    }
}
