//! EKS Fargate's controllers over its core (`wharf-fargate`): pods that its webhook took get a micro-VM
//! each, which becomes a node, takes the pod, and goes with it.
//!
//! `scheduler` is the `fargate-scheduler`; `profiles` sees to what becomes of profiles; `patching` replaces
//! pods whose machines are to be patched. The webhook is
//! part of the registry. All that counts is in objects: a VM is found by its pod's uid.

mod patching;
mod profiles;
mod scheduler;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use wharf_fargate::price::Prices;
use wharf_fargate::{PROFILE_LABEL, admission};
use wharf_model::fargate::FargateProfile;
use wharf_ports::controller::Controller;
use wharf_ports::view::View;

/// What Fargate's controllers have to know of their cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FargateSettings {
    /// The cluster's name.
    pub cluster_name: String,
    /// The region.
    pub region: String,
    /// The account.
    pub account: String,
    /// What micro-VMs cost there.
    pub prices: Prices,
    /// Seed of what is drawn.
    pub seed: u64,
    /// How often AWS patches what pods run on, which replaces them; never unless somebody says so.
    pub patch_every: Option<Duration>,
}

impl FargateSettings {
    /// Those of a cluster in a region, whose prices are to those of us-east-1 as `factor` says.
    pub fn new(region: &str, factor: (u32, u32), seed: u64) -> Self {
        Self {
            cluster_name: "wharf".to_owned(),
            region: region.to_owned(),
            account: ACCOUNT.to_owned(),
            prices: Prices::of(region, factor),
            seed,
            patch_every: None,
        }
    }
}

/// The account that AWS' own documents use.
pub const ACCOUNT: &str = "111122223333";

/// Fargate's controllers.
pub fn controllers(settings: FargateSettings) -> Vec<Box<dyn Controller>> {
    let settings = Arc::new(settings);
    let mut controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(profiles::Profiles::new(Arc::clone(&settings))),
        Box::new(scheduler::FargateScheduler::new(Arc::clone(&settings))),
    ];
    if let Some(every) = settings.patch_every {
        controllers.push(Box::new(patching::Patching::new(settings, every)));
    }
    controllers
}

/// Who takes a pod that waits, as far as Fargate goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    /// Whether Fargate does: then no node that is there is asked.
    pub is_fargate: bool,
    /// In words.
    pub text: String,
}

/// Who takes a pod that waits; `None` where there is no profile.
pub fn who_takes(pod: &Pod, view: &View) -> Option<Taker> {
    let mut profiles = view.list::<FargateProfile>().peekable();
    profiles.peek()?;
    if admission::is_admitted(pod) {
        let labels = pod.metadata.labels.as_ref();
        let name = labels.and_then(|labels| labels.get(PROFILE_LABEL)).map_or("", String::as_str);
        let text = format!("Fargate takes it, by profile {name}: no node that is there is asked");
        return Some(Taker { is_fargate: true, text });
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let text = match admission::profile_of(pod, namespace, profiles) {
        Ok(profile) => format!(
            "Fargate profile {} would take it, but it was created before: a pod never moves, delete it to have it created anew",
            profile.spec.name
        ),
        Err(elsewhere) => format!("Fargate leaves it to others: {elsewhere}"),
    };
    Some(Taker { is_fargate: false, text })
}
