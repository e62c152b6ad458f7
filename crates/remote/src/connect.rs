//! Finds a cluster and who to be there, and says in one line what is wrong when it cannot be
//! reached. kubectl's rules: the named file, else `$KUBECONFIG`, else `~/.kube/config`; without any
//! of them, the pod this program runs in.

use std::path::PathBuf;

use http::Method;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::Deserialize;
use wharf_ports::error::{ApiError, StatusReason};

use crate::api::{Again, Api, Failure, Request, explain};
use crate::limiter::Rate;

/// Where to look for a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// A kubeconfig file; `None` follows kubectl's rules.
    pub kubeconfig: Option<PathBuf>,
    /// A context in it; `None` is the current one.
    pub context: Option<String>,
}

/// Why a cluster cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There is nothing that says where it is.
    #[error(
        "there is no kubeconfig ({why}), and this is no pod of a cluster; name a file with --kubeconfig"
    )]
    NoKubeconfig {
        /// What was looked for.
        why: String,
    },
    /// The kubeconfig cannot be used.
    #[error("{place} cannot be used: {why}")]
    Kubeconfig {
        /// `kubeconfig FILE`, or `the kubeconfig`.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing answers.
    #[error("no API server answers at {server} ({why}); is it running, and is this its address?")]
    Unreachable {
        /// The address.
        server: String,
        /// What happened.
        why: String,
    },
    /// The server's certificate is not one to trust.
    #[error(
        "the certificate of {server} is not trusted ({why}); the kubeconfig's certificate-authority belongs to another cluster, or an older one at this address"
    )]
    Untrusted {
        /// The address.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The credentials are not accepted.
    #[error(
        "{server} does not accept the credentials ({why}); renew them in the kubeconfig, or choose another --context"
    )]
    Unauthorized {
        /// The address.
        server: String,
        /// The server's words.
        why: String,
    },
    /// Something answers, but not as a Kubernetes API.
    #[error("{server} does not answer as a Kubernetes API ({why}); check the address")]
    NotKubernetes {
        /// The address.
        server: String,
        /// What it answered.
        why: String,
    },
}

/// A server that has answered.
#[derive(Clone)]
pub struct Server {
    pub(crate) api: Api,
    pub(crate) rate: Rate,
    /// Where it is: `https://127.0.0.1:6443`.
    pub url: String,
    /// Its version, `v1.36.0`.
    pub version: String,
}

impl Server {
    /// Finds the cluster and asks for its version. `seed` is that of the jitter.
    ///
    /// # Errors
    /// If it cannot be found, reached or trusted, or does not know the user.
    pub async fn connect(place: &Place, rate: Rate, seed: u64) -> Result<Self, ConnectError> {
        let mut config = configuration(place).await?;
        // What may be sent again is decided here, not below.
        config.default_retry = false;
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = kube::Client::try_from(config)
            .map_err(|error| kubeconfig_error(place, explain(&error)))?;
        Self::over(client, url, rate, seed).await
    }

    /// The same over a client that is there already.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub async fn over(
        client: kube::Client,
        url: String,
        rate: Rate,
        seed: u64,
    ) -> Result<Self, ConnectError> {
        let api = Api::new(client, rate, seed);
        let request = Request::get("/version".to_owned()).with(Again::Never);
        let body = match api.call(&request).await {
            Ok(body) => body,
            // Whoever may not see the version may still be allowed to do the work.
            Err(Failure::Refused(error)) if error.reason == StatusReason::Forbidden => {
                return Ok(Self { api, rate, url, version: "unknown".to_owned() });
            }
            Err(failure) => return Err(refused(url, failure)),
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let version = match serde_json::from_slice::<Version>(&body) {
            Ok(version) => version.git_version,
            Err(error) => {
                let why = format!("its /version is not a version: {error}");
                return Err(ConnectError::NotKubernetes { server: url, why });
            }
        };
        // The version is told to everybody, the API's groups only to those who are known.
        let request = Request::get("/api".to_owned()).with(Again::Never);
        match api.call(&request).await {
            Err(Failure::Refused(error)) if error.reason == StatusReason::Unauthorized => {
                Err(ConnectError::Unauthorized { server: url, why: error.message })
            }
            _ => Ok(Self { api, rate, url, version }),
        }
    }

    /// Sends JSON to an endpoint of the server's own.
    ///
    /// # Errors
    /// As [`Server::get`].
    pub async fn post(&self, path: &str, json: String) -> Result<(), ApiError> {
        let request = Request::send(Method::POST, path.to_owned(), "application/json", json);
        self.api.call(&request).await.map(|_| ()).map_err(Failure::into_error)
    }

    /// The same server with a limiter of its own, for traffic that must not hold up the rest.
    #[must_use]
    pub fn with_own_limit(&self) -> Self {
        Self { api: self.api.with_own_limit(self.rate), ..self.clone() }
    }

    /// The same server, asked at another rate from here on.
    #[must_use]
    pub fn at_rate(&self, rate: Rate) -> Self {
        Self { api: self.api.with_own_limit(rate), rate, ..self.clone() }
    }

    /// Asks for something that is not an object: an endpoint of the server's own.
    ///
    /// # Errors
    /// The refusal, or [`StatusReason::Timeout`] if there was no answer.
    pub async fn get(&self, path: &str) -> Result<bytes::Bytes, ApiError> {
        self.api.call(&Request::get(path.to_owned())).await.map_err(Failure::into_error)
    }
}

async fn configuration(place: &Place) -> Result<Config, ConnectError> {
    let options =
        KubeConfigOptions { context: place.context.clone(), ..KubeConfigOptions::default() };
    let read = match &place.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) if place.kubeconfig.is_none() && is_missing(&error) => {
            if place.context.is_none()
                && let Ok(config) = Config::incluster()
            {
                return Ok(config);
            }
            return Err(ConnectError::NoKubeconfig { why: error.to_string() });
        }
        Err(error) => return Err(kubeconfig_error(place, error.to_string())),
    };
    let known: Vec<String> =
        kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
        kubeconfig_error(
            place,
            match error {
                KubeconfigError::LoadContext(name) => {
                    format!("it has no context {name:?}; it has {}", listed(&known))
                }
                KubeconfigError::CurrentContextNotSet => {
                    format!(
                        "it has no current context; choose one with --context: {}",
                        listed(&known)
                    )
                }
                other => other.to_string(),
            },
        )
    })
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn kubeconfig_error(place: &Place, why: String) -> ConnectError {
    let place = match &place.kubeconfig {
        Some(file) => format!("kubeconfig {}", file.display()),
        None => "the kubeconfig".to_owned(),
    };
    ConnectError::Kubeconfig { place, why }
}

fn refused(server: String, failure: Failure) -> ConnectError {
    match failure {
        Failure::Refused(error) if error.reason == StatusReason::Unauthorized => {
            ConnectError::Unauthorized { server, why: error.message }
        }
        Failure::Refused(error) => ConnectError::NotKubernetes { server, why: error.message },
        Failure::Lost(why) => {
            // rustls says so of every way in which a certificate is not to be trusted.
            if why.contains("invalid peer certificate") {
                ConnectError::Untrusted { server, why }
            } else {
                ConnectError::Unreachable { server, why }
            }
        }
    }
}
