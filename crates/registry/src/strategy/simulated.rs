//! Machines, load balancers and target groups of the simulated cloud: written by the simulation itself, so nothing is checked.

use wharf_model::balancing::{LoadBalancer, TargetGroup};
use wharf_model::instance::Instance;

use super::Rules;

impl Rules for Instance {
    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }
}

impl Rules for LoadBalancer {
    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }
}

impl Rules for TargetGroup {
    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }
}
