//! Storage: what binds claims to volumes, makes volumes, attaches them, and keeps what is in use.
//!
//! The controllers of kube-controller-manager are upstream's in what they write. The EBS driver's
//! side (provisioner and attacher) is simulated: there is no disk, and how long EC2 takes is a
//! model.

mod attach;
mod binder;
mod ebs;
mod ephemeral;
mod protection;
mod provisioner;
mod usage;

use wharf_ports::controller::Controller;

/// Every controller of this part, in a fixed order. `seed` tells one simulated cloud's draws from
/// another's.
pub fn controllers(seed: u64) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(binder::VolumeBinder::default()),
        Box::new(protection::ClaimProtection::default()),
        Box::new(protection::VolumeProtection),
        Box::new(ephemeral::EphemeralVolumes),
        Box::new(provisioner::Provisioner::new(seed)),
        Box::new(attach::Attacher::new(seed)),
    ]
}
