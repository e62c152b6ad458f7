//! What a data directory began with: its region and seed, kept beside the data so that a restart
//! continues the same lab.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wharf_cloud::catalog::Catalog;

use wharf_sim::cluster::NAME_DEFAULT;

use super::LabOptions;
use crate::failure::Failure;

const FILE: &str = "lab.json";
/// The region of a lab that is not told one.
pub(crate) const REGION_DEFAULT: &str = "us-east-1";
const SEED_DEFAULT: u64 = 1;

/// The settings that a lab cannot change while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// EC2 region.
    pub(super) region: String,
    /// Seed.
    pub(super) seed: u64,
    /// The cluster's name. Data directories of before there were names have none.
    #[serde(default = "cluster_default")]
    pub(super) cluster: String,
}

fn cluster_default() -> String {
    NAME_DEFAULT.to_owned()
}

/// The settings of the data directory, else those asked for, else the defaults. Changes nothing.
pub(super) fn settle(options: &LabOptions) -> Result<Settings, Failure> {
    let kept = options.data.as_deref().map(read).transpose()?.flatten();
    if let (Some(kept), Some(data)) = (&kept, &options.data) {
        // The engine takes an empty file for a new one. These settings are written after it is
        // made, so an empty one beside them has lost what it held.
        let file = data.join("wharf.redb");
        if fs::metadata(&file).is_ok_and(|file| file.len() == 0) {
            return Err(Failure::bad_input(format!(
                "data file {} is damaged (it is empty); remove the directory to start empty, or restore it from a copy",
                file.display()
            )));
        }
        let refuse = |what: &str, was: String| {
            Failure::bad_input(format!(
                "data directory {} began with {what} {was}; leave --{what} away, or choose another directory with --data",
                data.display()
            ))
        };
        if options.region.as_ref().is_some_and(|region| *region != kept.region) {
            return Err(refuse("region", kept.region.clone()));
        }
        if let Some(cluster) = &options.cluster
            && cluster.name != kept.cluster
        {
            return Err(Failure::bad_input(format!(
                "data directory {} holds the cluster {}, and the file of --config is for {}; choose another directory with --data",
                data.display(),
                kept.cluster,
                cluster.name
            )));
        }
        if options.seed.is_some_and(|seed| seed != kept.seed) {
            return Err(refuse("seed", kept.seed.to_string()));
        }
    }
    let settings = kept.unwrap_or_else(|| Settings {
        region: options.region.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned()),
        seed: options.seed.unwrap_or(SEED_DEFAULT),
        cluster: options.cluster.as_ref().map_or_else(cluster_default, |c| c.name.clone()),
    });
    Catalog::load(&settings.region).map_err(Failure::bad_input)?;
    Ok(settings)
}

/// Keeps the settings in a data directory that has none yet.
pub(super) fn keep(directory: &Path, settings: &Settings) -> Result<(), Failure> {
    let file = directory.join(FILE);
    if file.exists() {
        return Ok(());
    }
    let failed = |error: io::Error| {
        Failure::bad_input(format!(
            "data directory {} cannot be written: {error}",
            directory.display()
        ))
    };
    let text = serde_json::to_string_pretty(settings).map_err(|error| failed(error.into()))?;
    let temporary = directory.join(format!("{FILE}.new"));
    fs::write(&temporary, text).map_err(failed)?;
    fs::rename(&temporary, &file).map_err(failed)
}

fn read(directory: &Path) -> Result<Option<Settings>, Failure> {
    let file = directory.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            Failure::bad_input(format!(
                "{} is damaged ({error}); remove it to begin with the default region and seed",
                file.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A path that is no directory is told by the store, in its own words.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => {
            Err(Failure::bad_input(format!("{} cannot be read: {error}", file.display())))
        }
    }
}
