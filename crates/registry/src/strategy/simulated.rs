//! Instances of the simulated EC2: written by the simulation itself, so nothing is checked.

use wharf_model::instance::Instance;

use super::Rules;

impl Rules for Instance {
    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }
}
