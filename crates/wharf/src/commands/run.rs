//! `wharf run`: the controllers of a lab against a cluster whose API server is somewhere else.

mod clock;
mod driver;
mod health;
mod journal;

use std::future::Future;
use std::process::ExitCode as Exit;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use wharf_cloud::none::NoCloud;
use wharf_controllers::event_loop::EventLoop;
use wharf_controllers::scheduler::Scheduler;
use wharf_model::instance::Instance;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::ObjectKey;
use wharf_ports::clock::Clock;
use wharf_ports::cloud::Cloud;
use wharf_ports::controller::Controller;
use wharf_ports::metrics::Board;
use wharf_remote::{
    ConnectError, Election, LeaseSettings, Log, Place, Rate, RemoteCluster, RemoteMetrics, Server,
    Settings,
};
use wharf_scheduler::config::Configuration;
use wharf_sim::world::{Measures, chosen_controllers, simulated_cloud};

use crate::cli::{CloudChoice, RunArgs};
use crate::extenders::Extenders;
use crate::failure::Failure;
use crate::lab::clock::WallClock;
use crate::lab::process_start;
use crate::output;
use crate::prometheus::History;
use clock::ClusterClock;
use driver::Driver;
use health::Readiness;

/// Threads for connections. The decisions have a thread of their own.
const WORKER_THREADS: usize = 2;
/// Where upstream's components keep their Leases.
const LEASE_NAMESPACE: &str = "kube-system";

/// Runs controllers against a cluster until told to stop.
pub(crate) fn run(args: RunArgs) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(serve(args))
}

async fn serve(args: RunArgs) -> Result<Exit, Failure> {
    let mut stop = Stop::listen()?;
    let configuration = configuration(&args)?;
    let news = Arc::new(Notify::new());
    let calls = Extenders::new(&configuration, Arc::clone(&news))?;
    let names: Vec<&str> =
        configuration.profiles.iter().map(|profile| profile.scheduler_name.as_str()).collect();
    let scheduler_name = names.join(", ");
    let names = args.only.as_deref().unwrap_or("all");
    let choice = super::controllers(names)?;
    let scheduler = Scheduler::new(configuration.clone());
    let metrics = scheduler.metrics();
    metrics.measure_with(|| process_start().elapsed());
    let board = Board::new();
    let sources = args.prometheus.sources()?;
    if choice.is_none() {
        return Err(Failure::bad_input("--only names no controller; there is nothing to run"));
    }
    let schedules = choice.run_scheduler();
    if args.scheduler_name.is_some() && !schedules {
        return Err(Failure::bad_input(
            "--scheduler-name is the scheduler's, which --only leaves out; add it there",
        ));
    }

    let place =
        Place { kubeconfig: kubeconfig(&args, &configuration), context: args.context.clone() };
    let server =
        match stop.or(Server::connect(&place, rate(&args, &configuration), args.seed)).await {
            Some(connected) => connected.map_err(unreachable)?,
            None => return Ok(Exit::SUCCESS),
        };
    let readiness = Readiness::default();
    if let Some(address) = args.health_listen {
        health::serve(address, readiness.clone(), metrics).await?;
    }
    let Some(clock) = stop.or(ClusterClock::of(&server)).await else {
        return Ok(Exit::SUCCESS);
    };
    let clock = clock?;
    let server = match clock.is_labs() && args.qps.is_none() && args.config.is_none() {
        // A lab's minute may be a second of ours, and all of a cluster's parts, which have a limit
        // each elsewhere, may be in this process.
        true => server.at_rate(Rate::UNLIMITED),
        false => server,
    };
    let cloud = cloud(&args, &server, &clock).await?;
    let mut measures = Measures::on(&board);
    measures.storage = args.prometheus.storage();
    if !choice.run_kubelets() {
        // What is measured is elsewhere.
        measures.metrics = Arc::new(RemoteMetrics::new(&server, clock.clock()));
    }
    if let Some(source) = &sources.metrics {
        measures.metrics = source.over(Arc::clone(&measures.metrics), &board);
    }
    let controllers = chosen_controllers(
        &args.region,
        &choice,
        scheduler,
        args.seed,
        &measures,
        args.feature_gates,
    )
    .map_err(Failure::bad_input)?;

    let log = log();
    let mut election = election(&args, &configuration, &server, &scheduler_name, &log);
    if let Some(election) = &mut election {
        // A copy that stands by is as ready as it can be: a rollout must not wait for it to lead.
        readiness.set();
        match stop.or(election.acquire()).await {
            Some(leads) => leads.map_err(|error| {
                Failure::bad_input(format!("cannot hold a lease at {}: {error}", server.url))
            })?,
            None => return Ok(Exit::SUCCESS),
        }
    }
    let settings = Settings {
        kinds: kinds(&controllers, args.cloud),
        seed: args.seed,
        clock: clock.clock(),
        log: Arc::clone(&log),
    };
    let started = match stop.or(RemoteCluster::start(&server, settings)).await {
        Some(started) => started.map_err(Failure::bad_input),
        None => Err(Failure::failed("stopped before the cluster was read")),
    };
    let (cluster, view) = match started {
        Ok(started) => started,
        Err(failure) => {
            if let Some(election) = &mut election {
                election.release().await;
            }
            return if stop.is_told { Ok(Exit::SUCCESS) } else { Err(failure) };
        }
    };
    let arrivals = cluster.arrivals();
    if clock.is_labs() {
        journal::share_board(&server, &board);
    }
    if let Some(source) = sources.metrics {
        source.start(Arc::clone(&board), clock.scaled())?;
    }
    let mut event_loop = EventLoop::new(cluster, cloud, controllers, args.seed);
    event_loop.ask_extenders_with(Box::new(calls));
    if let Some((client, settings)) = sources.history {
        event_loop.ask_history_with(Box::new(History::new(client, settings, Arc::clone(&news))));
    }
    event_loop.start(clock.clock().now(), view);
    let journal = clock.is_labs().then(|| journal::share(&server));
    let mut driver =
        Driver::start(event_loop, clock.scaled(), [arrivals, news], args.verbose, journal)?;
    readiness.set();
    let schedules_for =
        if schedules { format!(", scheduler name {scheduler_name}") } else { String::new() };
    output::data(&format!(
        "wharf runs {names} at {} ({}{schedules_for})",
        server.url, server.version
    ));

    let ended = tokio::select! {
        () = stop.told() => Ok(Exit::SUCCESS),
        failure = driver.failed() => Err(failure),
        failure = keep(&mut election) => Err(failure),
        never = clock.follow(&server) => match never {},
    };
    let closed = driver.stop().await;
    if let Some(election) = &mut election {
        election.release().await;
    }
    closed?;
    ended
}

/// The scheduler's configuration: the file's, or the default one under the name asked for.
fn configuration(args: &RunArgs) -> Result<Configuration, Failure> {
    let Some(file) = &args.config else {
        let mut configuration = Configuration::default();
        // Unless a file says so, one copy is taken to be enough.
        configuration.leader_election.leader_elect = args.leader_elect;
        if let Some(name) = &args.scheduler_name {
            configuration.profiles[0].scheduler_name = name.as_str().into();
        }
        return Ok(configuration);
    };
    let mut configuration = super::scheduler_config(Some(file.as_path()))?;
    configuration.leader_election.leader_elect |= args.leader_elect;
    Ok(configuration)
}

fn kubeconfig(args: &RunArgs, configuration: &Configuration) -> Option<std::path::PathBuf> {
    let named = &configuration.client_connection.kubeconfig;
    args.kubeconfig.clone().or_else(|| (!named.is_empty()).then(|| named.into()))
}

fn rate(args: &RunArgs, configuration: &Configuration) -> Rate {
    let connection = &configuration.client_connection;
    Rate {
        qps: args.qps.unwrap_or(connection.qps),
        burst: args.burst.unwrap_or(u32::try_from(connection.burst).unwrap_or(u32::MAX)),
    }
}

/// The cloud. The simulated one keeps its machines as objects, which only a Wharf API server
/// without a cloud of its own takes; and its kubelets would play the nodes of a real cluster.
async fn cloud(
    args: &RunArgs,
    server: &Server,
    clock: &ClusterClock,
) -> Result<Box<dyn Cloud>, Failure> {
    if args.cloud != Some(CloudChoice::Sim) {
        return Ok(Box::new(NoCloud::default()));
    }
    if !clock.is_labs() {
        return Err(Failure::bad_input(format!(
            "{} is not a lab of Wharf's; --cloud sim is for one that was started with `wharf up --controllers none`",
            server.url
        )));
    }
    server.post("/wharf/v1/cloud", "{}".to_owned()).await.map_err(Failure::bad_input)?;
    Ok(Box::new(simulated_cloud(&args.region, args.seed, None)))
}

/// The kinds that have to be followed.
fn kinds(controllers: &[Box<dyn Controller>], cloud: Option<CloudChoice>) -> Vec<Kind> {
    let reads = |kind: &Kind, controller: &dyn Controller| {
        controller.reads().is_none_or(|reads| reads.contains(&(kind.group, kind.plural)))
    };
    built_in()
        .iter()
        .filter(|kind| {
            controllers.iter().any(|controller| reads(kind, &**controller))
                || (**kind == Kind::of::<Instance>() && cloud == Some(CloudChoice::Sim))
        })
        .copied()
        .collect()
}

fn election(
    args: &RunArgs,
    configuration: &Configuration,
    server: &Server,
    scheduler_name: &str,
    log: &Log,
) -> Option<Election> {
    let asked = &configuration.leader_election;
    if !asked.leader_elect {
        return None;
    }
    let key = args.lease.clone().unwrap_or_else(|| {
        if args.config.is_some() {
            return ObjectKey::namespaced(&asked.resource_namespace, &asked.resource_name);
        }
        let name = match (args.only.as_deref(), scheduler_name) {
            // Upstream's own scheduler and this one must not both schedule the same pods: they
            // stand for election under one name.
            (Some("scheduler"), "default-scheduler") => "kube-scheduler",
            (Some("scheduler"), other) => other,
            _ => "wharf",
        };
        ObjectKey::namespaced(LEASE_NAMESPACE, name)
    });
    let settings = LeaseSettings {
        duration: asked.lease_duration,
        renew_deadline: asked.renew_deadline,
        retry_period: asked.retry_period,
        ..LeaseSettings::new(key, identity())
    };
    Some(Election::new(server, settings, Arc::new(WallClock), args.seed, Arc::clone(log)))
}

/// The host's name with something that no other process on it has, as client-go's identities.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "wharf" } else { host.trim() };
    format!("{host}_{}-{:x}", std::process::id(), WallClock.now().as_nanos())
}

async fn keep(election: &mut Option<Election>) -> Failure {
    match election {
        Some(election) => Failure::failed(election.keep().await),
        None => std::future::pending().await,
    }
}

fn log() -> Log {
    Arc::new(|line| output::progress(&format!("wharf: {line}")))
}

fn unreachable(error: ConnectError) -> Failure {
    match error {
        ConnectError::Unreachable { .. } => Failure::failed(error),
        _ => Failure::bad_input(error),
    }
}

/// SIGINT and SIGTERM.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    is_told: bool,
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot wait for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            is_told: false,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.is_told = true;
    }

    /// What comes of `work`, unless told to stop before.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.told() => None,
        }
    }
}
