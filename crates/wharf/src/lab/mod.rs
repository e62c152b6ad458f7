//! The lab: an embedded Kubernetes API, the controllers and a simulated EC2, on a clock that can be
//! sped up, stopped and stepped.

mod balancers;
pub(crate) mod clock;
mod collected_logs;
mod driver;
mod endpoints;
mod pod_logs;
mod processes;
mod settings;
pub(crate) mod shared_board;
pub(crate) mod shared_journal;
mod state_metrics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use wharf_cloud::catalog::Catalog;
use wharf_controllers::journal::Journal;
use wharf_controllers::vpa::Storage;
use wharf_model::gates::FeatureGates;
use wharf_ports::clock::Clock;
use wharf_ports::metrics::MetricsApis;
use wharf_registry::Registry;
use wharf_scheduler::config::Configuration;
use wharf_server::{Api, Pki, ServerParts, Tokens, serve};
use wharf_sim::cluster::Cluster;
use wharf_sim::world::{Controllers, World, WorldSettings};
use wharf_store::Store;

use crate::client;
use crate::extenders::Extenders;
use crate::failure::Failure;
use crate::kubeconfig::Access;
use crate::prometheus::{History, Sources};
use balancers::Balancers;
use clock::{ScaledClock, WallClock};
use collected_logs::CollectedLogs;
use driver::{Driver, LabRecorder};
pub(crate) use settings::REGION_DEFAULT;

/// What a lab is started with.
#[derive(Clone, Debug)]
pub(crate) struct LabOptions {
    /// Where to serve.
    pub(crate) listen: SocketAddr,
    /// Where to keep the lab; `None` keeps nothing.
    pub(crate) data: Option<PathBuf>,
    /// Cluster seconds per second.
    pub(crate) speed: u32,
    /// The region, if asked for.
    pub(crate) region: Option<String>,
    /// The seed, if asked for.
    pub(crate) seed: Option<u64>,
    /// What the cluster begins with, if a file says so.
    pub(crate) cluster: Option<Cluster>,
    /// How the scheduler is configured.
    pub(crate) scheduler: Configuration,
    /// How much to say on stderr.
    pub(crate) verbose: u8,
    /// Which controllers run.
    pub(crate) controllers: Controllers,
    /// With what the Vertical Pod Autoscaler's recommender begins.
    pub(crate) vpa_storage: Storage,
    /// Which metrics APIs are served.
    pub(crate) metrics_apis: MetricsApis,
    /// Which features are on.
    pub(crate) gates: FeatureGates,
}

/// A running lab.
pub(crate) struct Lab {
    /// How to reach it.
    pub(crate) access: Access,
    /// Its region.
    pub(crate) region: String,
    store: Store,
    clock: Arc<ScaledClock>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    driver: Driver,
}

impl Lab {
    /// Starts a lab. When this returns, `/readyz` has answered `ok`.
    /// Other metrics than its own are read from `sources`.
    pub(crate) async fn start(options: &LabOptions, sources: Sources) -> Result<Self, Failure> {
        // In the order of what can be refused without leaving anything behind.
        let settings = settings::settle(options)?;
        let answers = Arc::new(Notify::new());
        let calls = Extenders::new(&options.scheduler, Arc::clone(&answers))?;
        let listener = bind(options.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|error| Failure::failed(format!("the socket has no address: {error}")))?;
        let store = match &options.data {
            Some(directory) => Store::open(directory).map_err(Failure::bad_input)?,
            None => Store::ephemeral(),
        };
        if let Some(directory) = &options.data {
            settings::keep(directory, &settings)?;
        }
        let pki = Pki::load_or_create(
            options.data.as_deref(),
            &address.ip().to_string(),
            clock::machine_time(),
        )
        .map_err(Failure::bad_input)?;

        let start = store.clock_at_open().unwrap_or_else(clock::machine_time);
        let clock = Arc::new(ScaledClock::starting_at(start, options.speed));
        let registry =
            Registry::new(store.clone(), Arc::clone(&clock) as Arc<dyn Clock>, settings.seed);
        let registry = Arc::new(registry.with_gates(options.gates));
        let world_settings = WorldSettings {
            region: settings.region.clone(),
            seed: settings.seed,
            controllers: options.controllers.clone(),
            scheduler: options.scheduler.clone(),
            vpa_storage: options.vpa_storage,
            metrics_apis: options.metrics_apis,
            cluster: Cluster {
                name: settings.cluster.clone(),
                kubelet_certificates: true,
                ..options.cluster.clone().unwrap_or_default()
            },
        };
        let mut world =
            World::new(Arc::clone(&registry), &world_settings).map_err(Failure::failed)?;
        world.ask_extenders_with(Box::new(calls));
        if let Some((client, settings)) = sources.history {
            world.ask_history_with(Box::new(History::new(client, settings, Arc::clone(&answers))));
        }
        world.cluster_mut().record_beside().map_err(Failure::failed)?;
        let board = world.board();
        if let Some(metrics) = sources.metrics {
            metrics.start(Arc::clone(&board), Arc::clone(&clock))?;
        }
        let metrics = world.scheduler_metrics();
        metrics.measure_with(|| process_start().elapsed());
        let journal = Arc::new(Mutex::new(Journal::default()));
        let machines = Arc::default();
        let logs = Arc::new(pod_logs::ModelledLogs::new(
            Arc::clone(&journal),
            Arc::clone(&clock) as Arc<dyn Clock>,
        ));
        let collected = Arc::new(CollectedLogs::new(
            Arc::clone(&logs),
            store.clone(),
            settings.cluster.clone(),
        ));
        let recorder = LabRecorder::new(
            Arc::clone(&journal),
            Arc::clone(&collected),
            Arc::clone(&machines),
            options.verbose,
            clock.now(),
        );
        let (stop, stopping) = watch::channel(false);
        let driver = Driver::start(
            world,
            store.clone(),
            Arc::clone(&clock),
            recorder,
            stopping.clone(),
            answers,
        )?;

        let access = Access {
            server: format!("https://{address}"),
            authority: pki.ca_pem.clone(),
            certificate: pki.client_cert_pem.clone(),
            key: pki.client_key_pem.clone(),
        };
        let balancers = Balancers::start(store.clone(), stopping.clone()).await?;
        let cloud_is_elsewhere = !options.controllers.run_cloud();
        let api = Api::new(ServerParts {
            registry: Arc::clone(&registry),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            wall: Arc::new(WallClock),
            tokens: Tokens::new(&pki.token_key),
            signer: Some(pki.signer),
            logs,
            processes: Arc::new(processes::ModelledProcesses::new(
                Arc::clone(&registry),
                Arc::clone(&clock),
                Arc::clone(&board),
                Arc::clone(&journal),
                stopping.clone(),
            )),
            metrics: Arc::clone(&board),
            metrics_apis: options.metrics_apis,
            extra: Arc::new(endpoints::LabEndpoints {
                registry: Arc::clone(&registry),
                clock: Arc::clone(&clock),
                journal,
                collected,
                metrics,
                board,
                machines,
                cluster_name: settings.cluster.clone(),
                catalog: Arc::new(Catalog::load(&settings.region).map_err(Failure::bad_input)?),
                profiles: options.scheduler.profiles.clone(),
                cloud_is_elsewhere,
                balancers,
            }),
            cloud_is_elsewhere,
            stop: stopping.clone(),
        });
        let server = tokio::spawn(serve(api, pki.tls, listener, stopping));
        let lab = Self { access, region: settings.region, store, clock, stop, server, driver };
        lab.wait_ready().await?;
        Ok(lab)
    }

    /// Asks `/readyz` as a client would.
    async fn wait_ready(&self) -> Result<(), Failure> {
        let access = self.access.clone();
        let answer =
            tokio::task::spawn_blocking(move || client::request(&access, "GET", "/readyz", ""))
                .await
                .map_err(Failure::failed)?
                .map_err(|error| Failure::failed(format!("the API does not answer: {error}")))?;
        if answer.code != 200 || answer.body != "ok" {
            return Err(Failure::failed(format!("the API is not ready: {}", answer.body)));
        }
        Ok(())
    }

    /// Its objects.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until something inside the lab has failed for good; never returns otherwise.
    pub(crate) async fn failed(&mut self) -> Failure {
        loop {
            tokio::select! {
                error = self.driver.failed() => return error,
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {
                    if let Some(error) = self.store.failure() {
                        return Failure::failed(format!("{error}; free space on its disk and start again"));
                    }
                }
            }
        }
    }

    /// Stops serving, lets the controllers finish their step, and leaves everything on disk.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let Self { store, clock, stop, server, driver, .. } = self;
        stop.send_replace(true);
        let _ = server.await;
        driver.join().await?;
        store.set_clock(clock.now());
        tokio::task::spawn_blocking(move || store.flush())
            .await
            .map_err(Failure::failed)?
            .map_err(Failure::failed)
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::bad_input(match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "address {address} is in use; stop what listens there, or choose another with --listen (port 0 picks a free one)"
            ),
            _ => format!("cannot listen at {address}: {error}; choose another address with --listen"),
        })
    })
}

/// When the process began, as near as it can be told from inside.
pub(crate) fn process_start() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(clock::machine_instant)
}
