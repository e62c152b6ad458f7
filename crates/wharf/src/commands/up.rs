//! `wharf up`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode as Exit, ExitStatus};

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use wharf_sim::cluster::{AutoMode, Cluster};
use wharf_sim::config::{self, ClusterConfig};

use crate::cli::UpArgs;
use crate::failure::Failure;
use crate::lab::{Lab, LabOptions, process_start};
use crate::{kubeconfig, output};

/// Threads of the server: as many as the machine has cores would idle most of the time; memory per
/// thread is what an idle lab is made of.
const WORKER_THREADS: usize = 2;

/// Starts a lab and serves until told to stop, or until the given command ends.
pub(crate) fn run(args: UpArgs) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(serve(args))
}

async fn serve(args: UpArgs) -> Result<Exit, Failure> {
    let failed = |error| Failure::failed(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let controllers = super::controllers(&args.controllers)?;
    let scheduler = super::scheduler_config(args.scheduler_config.as_deref())?;
    let config = cluster_config(&args)?;
    let region = config.as_ref().map(|config| config.region.clone());
    let cluster = with_auto_mode(config.map(shown_in_kube_system), args.auto_mode);
    let options = LabOptions {
        scheduler,
        cluster,
        listen: args.listen,
        data: data_directory(&args),
        speed: args.speed,
        region: args.region.clone().or(region),
        seed: args.seed,
        verbose: args.verbose,
        controllers,
        vpa_storage: args.prometheus.storage(),
        metrics_apis: args.metrics_apis,
        gates: args.feature_gates,
    };
    let sources = args.prometheus.sources()?;
    let mut lab = Lab::start(&options, sources).await?;
    let scratch = ScratchFile::for_command(&args);
    let kubeconfig = match (&args.kubeconfig, &scratch) {
        (Some(file), _) => file.clone(),
        (None, Some(scratch)) => scratch.0.clone(),
        (None, None) => kubeconfig::default_path(),
    };
    if let Err(error) = kubeconfig::add(&kubeconfig, &lab.access) {
        lab.stop().await?;
        return Err(Failure::bad_input(error));
    }
    let ready = format!(
        "wharf is ready at {} in {} ms (context {}, {}, {}x)",
        lab.access.server,
        process_start().elapsed().as_millis(),
        kubeconfig::NAME,
        lab.region,
        args.speed
    );
    let child = if args.command.is_empty() {
        output::data(&ready);
        None
    } else {
        // Standard output belongs to the command.
        output::progress(&ready);
        Some(spawn(&args.command, &kubeconfig)?)
    };
    let command = async {
        match child {
            Some(mut child) => child.wait().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(Exit::SUCCESS),
        _ = interrupt.recv() => Ok(Exit::SUCCESS),
        status = command => status.map(exit_of).map_err(Failure::failed),
        failure = lab.failed() => Err(failure),
    };
    lab.stop().await?;
    ended
}

/// The cluster of the file, or one without a file, in Auto Mode if that is asked for.
fn with_auto_mode(cluster: Option<Cluster>, is_asked: bool) -> Option<Cluster> {
    if !is_asked {
        return cluster;
    }
    let mut cluster = cluster.unwrap_or_default();
    let name = &cluster.name;
    cluster.auto_mode = cluster.auto_mode.or_else(|| Some(AutoMode::of_eksctl(name)));
    Some(cluster)
}

/// The cluster of a file, with what EKS puts into `kube-system`.
fn shown_in_kube_system(config: ClusterConfig) -> Cluster {
    Cluster { kube_system: true, ..config.cluster }
}

/// What the file of `--config` says; what of it has no effect is told.
fn cluster_config(args: &UpArgs) -> Result<Option<ClusterConfig>, Failure> {
    let Some(file) = &args.config else { return Ok(None) };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::bad_input(format!("{}: {error}", file.display())))?;
    let config = config::load(&text, &file.display().to_string()).map_err(Failure::bad_input)?;
    if let Some(region) = args.region.as_ref().filter(|region| **region != config.region) {
        return Err(Failure::bad_input(format!(
            "{} is for region {}, not {region}; leave --region away, or change the file",
            file.display(),
            config.region
        )));
    }
    for warning in &config.warnings {
        output::progress(&format!("warning: {warning}"));
    }
    Ok(Some(config))
}

/// The directory that keeps the lab; `None` for an ephemeral one.
fn data_directory(args: &UpArgs) -> Option<PathBuf> {
    if args.ephemeral {
        return None;
    }
    if let Some(directory) = &args.data {
        return Some(directory.clone());
    }
    // The XDG base directory specification.
    let data_home = std::env::var_os("XDG_DATA_HOME").filter(|home| !home.is_empty());
    Some(data_home.map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_else(|| OsString::from("."));
            PathBuf::from(home).join(".local/share/wharf")
        },
        |data_home| PathBuf::from(data_home).join("wharf"),
    ))
}

fn spawn(command: &[OsString], kubeconfig: &Path) -> Result<tokio::process::Child, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::bad_input("there is no command after --"));
    };
    let file = std::path::absolute(kubeconfig).unwrap_or_else(|_| kubeconfig.to_owned());
    Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", file)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Failure::bad_input(format!("cannot run {}: {error}", program.to_string_lossy()))
        })
}

/// The command's status, as a shell would tell it: 128 and the signal's number if it was killed.
fn exit_of(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Exit::from(u8::try_from(code).unwrap_or(1))
}

/// A kubeconfig of the command's own, so that running one leaves the user's file alone.
struct ScratchFile(PathBuf);

impl ScratchFile {
    fn for_command(args: &UpArgs) -> Option<Self> {
        (!args.command.is_empty() && args.kubeconfig.is_none()).then(|| {
            let name = format!("wharf-{}.kubeconfig", std::process::id());
            Self(std::env::temp_dir().join(name))
        })
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // A file that is left behind names a lab that is gone: harmless.
        let _ = std::fs::remove_file(&self.0);
    }
}
