//! How long a micro-VM takes to start, drawn from the pod's uid so that the same pod takes as long in
//! every run.
//!
//! Modelled, not measured by Wharf. Modelled on what users see: the node registers 30 to 45 s after
//! the pod was created, and the pod is bound to it 40 to 60 s after. Firecracker itself boots in
//! 125 ms; the rest is finding a host, attaching an interface, and the kubelet's start. Draws are
//! uniform.

use std::time::Duration;

use wharf_model::random::{Random, fnv1a};

/// From the request to the kubelet's registration, in milliseconds.
const REGISTERS_MS: (u64, u64) = (30_000, 45_000);
/// From the request until the node is ready, and the pod is bound.
const READY_MS: (u64, u64) = (40_000, 60_000);
/// From registration until the node is ready, as far as the other two allow.
const NETWORK_MS: (u64, u64) = (10_000, 15_000);
/// From the end of the pod until the VM is gone.
const STOPS_MS: (u64, u64) = (1_000, 3_000);
/// From the request for a profile until pods get it: about two to six minutes.
const PROFILE_MS: (u64, u64) = (120_000, 360_000);

/// Moments of a VM's start, counted from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// When its kubelet registers the node.
    pub registers: Duration,
    /// When the node is ready, the image is pulled and billing begins.
    pub ready: Duration,
}

/// The start of the VM of the pod with this uid.
pub fn start(seed: u64, pod_uid: &str) -> Start {
    let mut random = Random::new(seed ^ fnv1a(b"fargate start"), fnv1a(pod_uid.as_bytes()));
    // Microseconds, so that VMs asked for together do not come up in step.
    let ready = between(&mut random, READY_MS);
    let network = between(&mut random, NETWORK_MS);
    let (first, last) =
        (Duration::from_millis(REGISTERS_MS.0), Duration::from_millis(REGISTERS_MS.1));
    Start { registers: ready.saturating_sub(network).clamp(first, last), ready }
}

/// From the end of the pod until its VM is gone.
pub fn stop(seed: u64, pod_uid: &str) -> Duration {
    let mut random = Random::new(seed ^ fnv1a(b"fargate stop"), fnv1a(pod_uid.as_bytes()));
    between(&mut random, STOPS_MS)
}

/// How long a profile is `CREATING`.
pub fn profile_creation(seed: u64, profile_uid: &str) -> Duration {
    let mut random = Random::new(seed ^ fnv1a(b"fargate profile"), fnv1a(profile_uid.as_bytes()));
    between(&mut random, PROFILE_MS)
}

fn between(random: &mut Random, (low, high): (u64, u64)) -> Duration {
    Duration::from_micros(random.between(low * 1_000, high * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_pod_takes_as_long_every_time() {
        assert_eq!(start(1, "a"), start(1, "a"));
        assert_ne!(start(1, "a"), start(1, "b"));
        assert_ne!(start(1, "a"), start(2, "a"));
    }

    #[test]
    fn draws_keep_within_the_model_and_fill_it() {
        let starts: Vec<Start> = (0..2_000).map(|pod| start(7, &pod.to_string())).collect();
        for start in &starts {
            assert!((30_000..=45_000).contains(&start.registers.as_millis()), "{start:?}");
            assert!((40_000..=60_000).contains(&start.ready.as_millis()), "{start:?}");
            assert!(start.registers < start.ready, "{start:?}");
        }
        let early = starts.iter().filter(|start| start.ready < Duration::from_secs(45)).count();
        let late = starts.iter().filter(|start| start.ready > Duration::from_secs(55)).count();
        assert!((400..600).contains(&early) && (400..600).contains(&late), "{early} {late}");
        let stops = (0..100).map(|pod| stop(7, &pod.to_string()).as_millis());
        assert!(stops.into_iter().all(|stop| (1_000..=3_000).contains(&stop)));
        assert!((120..=360).contains(&profile_creation(7, "p").as_secs()));
    }
}
