//! What the verbs do, one file each.

pub(crate) mod bench;
pub(crate) mod catalog;
pub(crate) mod clock;
pub(crate) mod compare_compute;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod eksctl;
pub(crate) mod fargate;
pub(crate) mod lb;
pub(crate) mod logs;
pub(crate) mod nodegroup;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod why;

use std::path::Path;

use wharf_controllers::scheduler::Scheduler;
use wharf_ports::metrics::Board;
use wharf_scheduler::config::{self, Configuration};
use wharf_sim::world::{Controllers, Measures, chosen_controllers};

use crate::failure::Failure;
use crate::lab::REGION_DEFAULT;

/// The controllers that a flag names, all of which there must be.
fn controllers(names: &str) -> Result<Controllers, Failure> {
    let choice = Controllers::named(names);
    let measures = Measures::on(&Board::new());
    chosen_controllers(
        REGION_DEFAULT,
        &choice,
        Scheduler::default(),
        0,
        &measures,
        Default::default(),
    )
    .map_err(|error| Failure::bad_input(format!("{error}, all and none")))?;
    Ok(choice)
}

/// The scheduler's configuration from a file, or upstream's default one.
pub(crate) fn scheduler_config(file: Option<&Path>) -> Result<Configuration, Failure> {
    let Some(file) = file else { return Ok(Configuration::default()) };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::bad_input(format!("{}: {error}", file.display())))?;
    config::load(&text, &file.display().to_string()).map_err(Failure::bad_input)
}

/// Refuses extenders, which cannot be asked here.
pub(crate) fn without_extenders(configuration: &Configuration) -> Result<(), Failure> {
    match configuration.extenders.first() {
        None => Ok(()),
        Some(extender) => Err(Failure::bad_input(format!(
            "extenders are not available here: take {} out of the scheduler's configuration",
            extender.url_prefix
        ))),
    }
}
