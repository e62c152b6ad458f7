//! The Cluster port itself: the face that the event loop sees. Everything that waits is in tasks
//! behind channels, so neither [`Cluster::submit`] nor [`Cluster::poll`] ever does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use wharf_model::kinds::Kind;
use wharf_ports::clock::Clock;
use wharf_ports::cluster::{Change, Cluster, ClusterEvent, Write, WriteId};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventRecord;
use wharf_ports::view::View;

use crate::connect::Server;
use crate::link::Link;
use crate::reflector::{News, Reflector};
use crate::told::{HistoryLost, Told};
use crate::writer::{self, Job, Outcomes};
use crate::{Log, recorder};

/// News that wait to be read; the reflectors wait beyond that, and the server in turn.
const NEWS_MAX: usize = 1_024;
/// Writes that wait; more are refused as a busy server would, and the event loop's back-off
/// brings them again.
const WRITES_MAX: usize = 100_000;
/// How long writes under way may take to end when the adapter is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a remote cluster is followed with.
pub struct Settings {
    /// The kinds to follow.
    pub kinds: Vec<Kind>,
    /// Seed of the jitter.
    pub seed: u64,
    /// Cluster time, for Events.
    pub clock: Arc<dyn Clock>,
    /// Where to say what goes wrong with the connection.
    pub log: Log,
}

/// Why a cluster cannot be followed from the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A kind may not be read.
    #[error("{message}; give this user a role with the verbs list and watch on {resource}")]
    Forbidden {
        /// The server's words.
        message: String,
        /// `pods`, `deployments.apps`.
        resource: String,
    },
    /// Another refusal, or no answer.
    #[error("cannot list {resource}: {message}")]
    Unlistable {
        /// `pods`, `deployments.apps`.
        resource: String,
        /// Why.
        message: String,
    },
}

/// A remote cluster.
pub struct RemoteCluster {
    told: Told,
    news: mpsc::Receiver<News>,
    outcomes: mpsc::UnboundedReceiver<ClusterEvent>,
    teller: Outcomes,
    jobs: mpsc::UnboundedSender<Job>,
    waiting: usize,
    records: mpsc::Sender<EventRecord>,
    /// Events dropped because too many were waiting.
    records_dropped: u64,
    arrived: Arc<Notify>,
    changes: Vec<Change>,
    failure: Option<HistoryLost>,
    absent: BTreeSet<Kind>,
    writer: JoinHandle<()>,
    recorder: JoinHandle<()>,
    /// Reflectors end with the adapter.
    reflectors: JoinSet<()>,
}

impl RemoteCluster {
    /// Follows a cluster: returns once every kind has been listed, with the world as it stands.
    /// Runs its tasks on the current runtime.
    ///
    /// # Errors
    /// If a kind cannot be listed. A kind that is not served is no error.
    pub async fn start(server: &Server, settings: Settings) -> Result<(Self, View), StartError> {
        let Settings { kinds, seed, clock, log } = settings;
        let arrived = Arc::new(Notify::new());
        let (news_sender, news) = mpsc::channel(NEWS_MAX);
        let mut reflectors = JoinSet::new();
        let link = Arc::new(Link::new(log));
        let mut reached = BTreeMap::new();
        for kind in &kinds {
            let (far, how_far) = watch::channel(0);
            reached.insert(*kind, how_far);
            let reflector = Reflector::new(
                server.api.clone(),
                *kind,
                news_sender.clone(),
                Arc::clone(&arrived),
                far,
                seed,
                Arc::clone(&link),
            );
            reflectors.spawn(reflector.run());
        }
        let (sender, outcomes) = mpsc::unbounded_channel();
        let teller = Outcomes { sender, arrived: Arc::clone(&arrived) };
        let (jobs, jobs_receiver) = mpsc::unbounded_channel();
        let writer = tokio::spawn(writer::run(
            server.api.clone(),
            jobs_receiver,
            teller.clone(),
            Arc::new(reached),
        ));
        let (records, records_receiver) = mpsc::channel(recorder::WAITING_MAX);
        let events_api = server.api.with_own_limit(server.rate);
        let recorder = tokio::spawn(recorder::run(events_api, records_receiver, clock));
        let mut cluster = Self {
            told: Told::default(),
            news,
            outcomes,
            teller,
            jobs,
            waiting: 0,
            records,
            records_dropped: 0,
            arrived,
            changes: Vec::new(),
            failure: None,
            absent: BTreeSet::new(),
            writer,
            recorder,
            reflectors,
        };
        cluster.take_first_lists(kinds.into_iter().collect()).await?;
        // The first lists are the view; what was heard after them is in it as well.
        cluster.changes.clear();
        let view = cluster.told.view();
        Ok((cluster, view))
    }

    async fn take_first_lists(&mut self, mut missing: BTreeSet<Kind>) -> Result<(), StartError> {
        while !missing.is_empty() {
            let Some(news) = self.news.recv().await else { return Ok(()) };
            match &news {
                News::Listed { kind, .. } | News::Absent { kind } => {
                    missing.remove(kind);
                }
                News::Unlistable { kind, error } => return Err(start_error(*kind, error)),
                _ => {}
            }
            self.absorb(news);
        }
        Ok(())
    }

    /// Told whenever there is something to poll.
    pub fn arrivals(&self) -> Arc<Notify> {
        Arc::clone(&self.arrived)
    }

    /// Why the cluster can no longer be followed, if so: the program should end and start again.
    pub fn failure(&self) -> Option<&HistoryLost> {
        self.failure.as_ref()
    }

    /// The kinds that the server does not serve at present.
    pub fn absent(&self) -> impl Iterator<Item = Kind> {
        self.absent.iter().copied()
    }

    /// Writes whose outcome has not been told yet.
    pub fn writes_waiting(&self) -> usize {
        self.waiting
    }

    /// Events dropped because too many were waiting to be sent.
    pub fn events_dropped(&self) -> u64 {
        self.records_dropped
    }

    /// Stops following, and gives the writes and Events under way a few seconds to end.
    pub async fn close(self) {
        let Self { jobs, records, writer, recorder, mut reflectors, .. } = self;
        reflectors.abort_all();
        drop((jobs, records));
        let both = async {
            let _ = writer.await;
            let _ = recorder.await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, both).await;
    }

    fn absorb(&mut self, news: News) {
        let changes = &mut self.changes;
        match news {
            News::Listed { kind, objects, revision } => {
                self.absent.remove(&kind);
                if let Err(lost) = self.told.listed(kind, objects, revision, changes) {
                    self.failure.get_or_insert(lost);
                }
            }
            News::Absent { kind } => {
                self.absent.insert(kind);
                self.told.absent(kind, changes);
            }
            News::Present(object) => self.told.changed(object, true, changes),
            News::Gone(object) => self.told.changed(object, false, changes),
            News::Reached { kind, revision } => self.told.reached(kind, revision),
            // After the start this is the reflector's own trouble.
            News::Unlistable { .. } => {}
        }
    }
}

impl Cluster for RemoteCluster {
    fn submit(&mut self, id: WriteId, write: Arc<Write>) {
        if let Write::Record(record) = &*write {
            // Saying something waits for nobody; what became of it is nobody's concern.
            if self.records.try_send(record.clone()).is_err() {
                self.records_dropped += 1;
            }
            self.waiting += 1;
            self.teller.tell(id, Ok(None));
            return;
        }
        self.waiting += 1;
        if self.waiting > WRITES_MAX {
            let message = format!("{WRITES_MAX} writes are waiting for the API server already");
            self.teller.tell(id, Err(ApiError::new(StatusReason::TooManyRequests, message)));
            return;
        }
        let base = match &*write {
            Write::Update { .. } => {
                let (kind, key) = write.subject();
                self.told.get(kind, &key).cloned()
            }
            _ => None,
        };
        if let Err(unsent) = self.jobs.send(Job { id, write, base }) {
            let message = "the writer of this adapter has ended";
            let error = ApiError::new(StatusReason::ServiceUnavailable, message);
            self.teller.tell(unsent.0.id, Err(error));
        }
    }

    fn poll(&mut self, _view: &View, events: &mut Vec<ClusterEvent>) {
        // Outcomes are taken first and told last: if the watch has brought their effect by now,
        // whoever learns of the outcome has seen it.
        let mut outcomes = Vec::new();
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.waiting = self.waiting.saturating_sub(1);
            outcomes.push(outcome);
        }
        while let Ok(news) = self.news.try_recv() {
            self.absorb(news);
        }
        events.extend(self.changes.drain(..).map(ClusterEvent::Changed));
        events.append(&mut outcomes);
    }
}

fn start_error(kind: Kind, error: &ApiError) -> StartError {
    let (message, resource) = (error.message.clone(), kind.group_resource());
    if error.reason == StatusReason::Forbidden {
        StartError::Forbidden { message, resource }
    } else {
        StartError::Unlistable { message, resource }
    }
}
