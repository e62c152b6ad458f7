//! Extenders: programs beside the scheduler that it asks over HTTP.

use std::time::Duration;

use compact_str::CompactString;

use super::field::{Field, Wrong};
use crate::pod::PodInfo;

/// How long an answer is waited for if the file does not say.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A program that has a say in scheduling, asked over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Extender {
    /// Where it is; the verbs follow after a slash.
    pub url_prefix: String,
    /// The verb that filters nodes; empty if it does not.
    pub filter_verb: String,
    /// The verb that looks at the victims of preemption; empty if it does not.
    pub preempt_verb: String,
    /// The verb that scores nodes; empty if it does not.
    pub prioritize_verb: String,
    /// The verb that binds pods; empty if it does not.
    pub bind_verb: String,
    /// By what its scores are multiplied.
    pub weight: i64,
    /// Whether any certificate will do where no authorities are given. That TLS is spoken at all
    /// the URL says.
    pub enable_https: bool,
    /// How to speak TLS.
    pub tls: Option<ExtenderTls>,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Whether it has the nodes by itself, so that their names are enough.
    pub node_cache_capable: bool,
    /// The resources that are its business; it is asked only of pods that want one of them. Empty
    /// for all pods.
    pub managed_resources: Vec<ManagedResource>,
    /// Whether scheduling goes on without it when it fails.
    pub ignorable: bool,
}

/// How to speak TLS with an extender. Files are named; who makes the connection reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtenderTls {
    /// Whether any certificate will do.
    pub insecure: bool,
    /// The name the certificate is for, if it is not the URL's.
    pub server_name: String,
    /// File of the client's certificate.
    pub cert_file: String,
    /// File of the client's key.
    pub key_file: String,
    /// File of the authorities.
    pub ca_file: String,
    /// The client's certificate itself, in base64.
    pub cert_data: String,
    /// The client's key itself, in base64.
    pub key_data: String,
    /// The authorities themselves, in base64.
    pub ca_data: String,
}

/// A resource an extender looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedResource {
    /// Its name.
    pub name: CompactString,
    /// Whether NodeResourcesFit leaves it alone.
    pub ignored_by_scheduler: bool,
}

impl Extender {
    /// Whether a pod is its business: it manages all resources, or one that the pod asks for.
    pub fn is_interested(&self, pod: &PodInfo) -> bool {
        self.managed_resources.is_empty()
            || self
                .managed_resources
                .iter()
                .any(|managed| pod.amounts.requests.get(&managed.name) > 0)
    }

    /// Where a verb is asked.
    pub fn url(&self, verb: &str) -> String {
        format!("{}/{verb}", self.url_prefix.trim_end_matches('/'))
    }
}

/// Reads `extenders`.
pub(super) fn read(root: &Field<'_>) -> Result<Vec<Extender>, Wrong> {
    let mut extenders = Vec::new();
    let mut resources: Vec<CompactString> = Vec::new();
    let mut binds = false;
    for item in root.items("extenders")? {
        let extender = one(&item)?;
        if !extender.bind_verb.is_empty() {
            if binds {
                return Err(item.wrong_at("bindVerb", "only one extender may bind"));
            }
            binds = true;
        }
        for managed in &extender.managed_resources {
            if resources.contains(&managed.name) {
                return Err(item.wrong_at(
                    "managedResources",
                    format!("{} is managed by more than one extender", managed.name),
                ));
            }
            resources.push(managed.name.clone());
        }
        extenders.push(extender);
    }
    // Those that may fail come last, so that they are not asked in vain.
    extenders.sort_by_key(|extender: &Extender| extender.ignorable);
    Ok(extenders)
}

fn one(field: &Field<'_>) -> Result<Extender, Wrong> {
    let field = field.only(&[
        "urlPrefix",
        "filterVerb",
        "preemptVerb",
        "prioritizeVerb",
        "weight",
        "bindVerb",
        "enableHTTPS",
        "tlsConfig",
        "httpTimeout",
        "nodeCacheCapable",
        "managedResources",
        "ignorable",
    ])?;
    let verb = |name: &str| -> Result<String, Wrong> {
        Ok(field.text_at(name)?.unwrap_or_default().to_owned())
    };
    let url_prefix = field.required_text("urlPrefix")?;
    if !url_prefix.starts_with("http://") && !url_prefix.starts_with("https://") {
        return Err(field.wrong_at("urlPrefix", "has to begin with http:// or https://"));
    }
    let prioritize_verb = verb("prioritizeVerb")?;
    let weight = field.number("weight", 0..=i64::from(i32::MAX))?.unwrap_or(0);
    if !prioritize_verb.is_empty() && weight == 0 {
        return Err(field.wrong_at("weight", "has to be at least 1 for an extender that scores"));
    }
    let mut managed_resources: Vec<ManagedResource> = Vec::new();
    for item in field.items("managedResources")? {
        let item = item.only(&["name", "ignoredByScheduler"])?;
        let name = item.required_text("name")?;
        let extended = name.split_once('/').is_some_and(|(domain, _)| {
            domain != "kubernetes.io"
                && !domain.ends_with(".kubernetes.io")
                && !name.starts_with("requests.")
        });
        if !extended || !wharf_model::names::qualified_name(name).is_empty() {
            return Err(item.wrong_at(
                "name",
                format!("{name:?} is no extended resource, such as example.com/device"),
            ));
        }
        managed_resources.push(ManagedResource {
            name: name.into(),
            ignored_by_scheduler: item.flag("ignoredByScheduler")?.unwrap_or(false),
        });
    }
    Ok(Extender {
        url_prefix: url_prefix.to_owned(),
        filter_verb: verb("filterVerb")?,
        preempt_verb: verb("preemptVerb")?,
        prioritize_verb,
        bind_verb: verb("bindVerb")?,
        weight,
        enable_https: field.flag("enableHTTPS")?.unwrap_or(false),
        tls: field.get("tlsConfig").map(|tls| tls_config(&tls)).transpose()?,
        timeout: field.duration("httpTimeout")?.filter(|t| !t.is_zero()).unwrap_or(TIMEOUT),
        node_cache_capable: field.flag("nodeCacheCapable")?.unwrap_or(false),
        managed_resources,
        ignorable: field.flag("ignorable")?.unwrap_or(false),
    })
}

fn tls_config(field: &Field<'_>) -> Result<ExtenderTls, Wrong> {
    let field = field.only(&[
        "insecure",
        "serverName",
        "certFile",
        "keyFile",
        "caFile",
        "certData",
        "keyData",
        "caData",
    ])?;
    let text = |name: &str| -> Result<String, Wrong> {
        Ok(field.text_at(name)?.unwrap_or_default().to_owned())
    };
    Ok(ExtenderTls {
        insecure: field.flag("insecure")?.unwrap_or(false),
        server_name: text("serverName")?,
        cert_file: text("certFile")?,
        key_file: text("keyFile")?,
        ca_file: text("caFile")?,
        cert_data: text("certData")?,
        key_data: text("keyData")?,
        ca_data: text("caData")?,
    })
}
