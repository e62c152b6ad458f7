//! Follows one kind: lists it page by page, then watches from the list's revision on.
//!
//! What happens to the connection stays in here. A watch that ends or breaks is taken up again
//! where it was; one whose revision the server no longer holds (410) is followed by a new list,
//! from which the reader works out what it has missed. A kind that the server does not serve (404)
//! is looked for again every minute. Failures wait with growing, jittered pauses.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Revision};
use wharf_ports::error::{ApiError, StatusReason};

use crate::api::{Again, Api, Failure, Request};
use crate::backoff::Backoff;
use crate::decode::{self, WatchEvent};
use crate::link::Link;
use crate::{path, status};

/// Objects a page; client-go's reflectors ask for as many.
const PAGE: usize = 500;
/// How long until a kind that is not served is looked for again.
const ABSENT_PAUSE: Duration = Duration::from_secs(60);
/// How long a watch is asked to last: this and up to as much again, so that watches do not all end
/// at once. client-go asks for 5 to 10 minutes.
const WATCH_LASTS: Duration = Duration::from_secs(300);
/// How much later than asked for a watch may end before the connection is taken for dead.
const WATCH_GRACE: Duration = Duration::from_secs(15);
/// A watch that ends sooner and told nothing counts as failed: it must not be asked for at once,
/// again and again.
const WATCH_BRIEF: Duration = Duration::from_secs(1);
/// The longest line of a watch: an object of 1.5 MiB, the most that etcd takes, with room for what
/// JSON adds.
const LINE_BYTES_MAX: usize = 16 << 20;

/// What a reflector tells.
#[derive(Debug)]
pub(crate) enum News {
    /// All objects there are at a revision.
    Listed { kind: Kind, objects: Vec<Arc<Object>>, revision: Revision },
    /// The server does not serve the kind.
    Absent { kind: Kind },
    /// An object is there in this form.
    Present(Arc<Object>),
    /// An object is gone; this was its last form.
    Gone(Arc<Object>),
    /// Nothing has changed up to this revision.
    Reached { kind: Kind, revision: Revision },
    /// The kind cannot be listed at present. Told until it has been listed once.
    Unlistable { kind: Kind, error: ApiError },
}

/// Follows one kind.
pub(crate) struct Reflector {
    api: Api,
    kind: Kind,
    sender: mpsc::Sender<News>,
    arrived: Arc<Notify>,
    /// How far this has told.
    reached: watch::Sender<Revision>,
    backoff: Backoff,
    link: Arc<Link>,
    is_listed: bool,
    is_absent: bool,
}

/// The reader has gone: there is nobody to tell.
struct Unheard;

/// How a watch ended.
enum End {
    /// In order, or broken: it can be taken up where it was.
    Resume,
    /// The server no longer holds its revision.
    Relist,
}

impl Reflector {
    pub(crate) fn new(
        api: Api,
        kind: Kind,
        sender: mpsc::Sender<News>,
        arrived: Arc<Notify>,
        reached: watch::Sender<Revision>,
        seed: u64,
        link: Arc<Link>,
    ) -> Self {
        let backoff = Backoff::new(seed, &format!("remote watch of {}", kind.group_resource()));
        Self {
            api,
            kind,
            sender,
            arrived,
            reached,
            backoff,
            link,
            is_listed: false,
            is_absent: false,
        }
    }

    /// Follows the kind until nobody listens.
    pub(crate) async fn run(mut self) {
        while self.list_and_watch().await.is_ok() {}
    }

    async fn list_and_watch(&mut self) -> Result<(), Unheard> {
        let kind = self.kind;
        match self.list().await {
            Ok((objects, revision)) => {
                if self.is_absent {
                    self.link.say(format!("the server serves {} now", kind.group_resource()));
                }
                (self.is_listed, self.is_absent) = (true, false);
                // The back-off stays until a watch works: a server that lists but expires every
                // watch at once must not be asked for lists all the time.
                self.link.answers(kind);
                self.tell(News::Listed { kind, objects, revision }).await?;
                self.watch_from(revision).await
            }
            Err(Failure::Refused(error)) if error.reason == StatusReason::NotFound => {
                if !self.is_absent {
                    self.link.say(format!(
                        "the server does not serve {} in {}; looking again every minute",
                        kind.group_resource(),
                        kind.version
                    ));
                }
                (self.is_listed, self.is_absent) = (true, true);
                self.link.answers(kind);
                self.tell(News::Absent { kind }).await?;
                tokio::time::sleep(ABSENT_PAUSE).await;
                Ok(())
            }
            Err(failure) => {
                if self.is_listed {
                    self.trouble("list", &failure);
                } else {
                    // The reader says so itself.
                    let error = failure.into_error();
                    self.tell(News::Unlistable { kind, error }).await?;
                }
                let pause = self.backoff.next();
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }

    /// All objects, page by page. Pages are of one revision; if the server drops it on the way
    /// (410), the rest comes in one list without pages, as client-go does it.
    async fn list(&mut self) -> Result<(Vec<Arc<Object>>, Revision), Failure> {
        let collection = path::collection(self.kind, "");
        let mut objects = Vec::new();
        let mut next = String::new();
        let mut limit = PAGE;
        loop {
            let mut path = collection.clone();
            if limit > 0 {
                path.push_str(&format!("?limit={limit}"));
            }
            if !next.is_empty() {
                path.push_str(&format!("&continue={}", path::escaped(&next)));
            }
            // The reflector's own back-off is what repeats a list.
            let body = match self.api.call(&Request::get(path).with(Again::Never)).await {
                Err(Failure::Refused(error))
                    if error.reason == StatusReason::Expired && !next.is_empty() =>
                {
                    objects.clear();
                    next.clear();
                    limit = 0;
                    continue;
                }
                answer => answer?,
            };
            let page =
                decode::page(self.kind, &body).map_err(|error| Failure::Lost(error.to_string()))?;
            for problem in page.problems {
                self.link.say(format!("{problem}; it is left out"));
            }
            objects.extend(page.objects);
            next = page.next;
            if next.is_empty() {
                return Ok((objects, page.revision));
            }
        }
    }

    async fn watch_from(&mut self, mut revision: Revision) -> Result<(), Unheard> {
        let collection = path::collection(self.kind, "");
        loop {
            let lasts = WATCH_LASTS + self.backoff.below(WATCH_LASTS);
            let path = format!(
                "{collection}?watch=1&allowWatchBookmarks=true&resourceVersion={revision}&timeoutSeconds={}",
                lasts.as_secs()
            );
            let start = Instant::now();
            let before = revision;
            let (end, is_refused) = match self.api.watch(path).await {
                Ok(body) => {
                    self.link.answers(self.kind);
                    (self.follow(body, lasts + WATCH_GRACE, &mut revision).await?, false)
                }
                Err(failure) => {
                    self.trouble("watch", &failure);
                    (if failure.is_expired() { End::Relist } else { End::Resume }, true)
                }
            };
            let is_brief = start.elapsed() < WATCH_BRIEF && revision == before;
            if is_refused || is_brief {
                let pause = self.backoff.next();
                tokio::time::sleep(pause).await;
            }
            if matches!(end, End::Relist) {
                return Ok(());
            }
        }
    }

    /// Tells what a watch brings, until it ends.
    async fn follow(
        &mut self,
        mut body: Body,
        silence_max: Duration,
        revision: &mut Revision,
    ) -> Result<End, Unheard> {
        let mut buffer = BytesMut::new();
        loop {
            let frame = match tokio::time::timeout(silence_max, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                // It ended, broke, or is silent beyond its time: all of that happens to watches.
                _ => return Ok(End::Resume),
            };
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(length) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(length);
                buffer.advance(1);
                if line.is_empty() {
                    continue;
                }
                if let Some(end) = self.take_line(&line, revision).await? {
                    return Ok(end);
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                self.set_aside("an event is too long");
                return Ok(End::Relist);
            }
        }
    }

    async fn take_line(
        &mut self,
        line: &[u8],
        revision: &mut Revision,
    ) -> Result<Option<End>, Unheard> {
        let kind = self.kind;
        let news = match decode::watch_event(kind, line) {
            Ok(WatchEvent::Present(object)) => News::Present(object),
            Ok(WatchEvent::Gone(object)) => News::Gone(object),
            Ok(WatchEvent::Bookmark(revision)) => News::Reached { kind, revision },
            Ok(WatchEvent::Error(text)) => {
                let failure = Failure::Refused(status::refusal_in_watch(&text));
                self.trouble("watch", &failure);
                return Ok(Some(if failure.is_expired() { End::Relist } else { End::Resume }));
            }
            // What an unreadable event was about is not known: only a list can tell.
            Err(error) => {
                self.set_aside(&error.to_string());
                return Ok(Some(End::Relist));
            }
        };
        *revision = match &news {
            News::Present(object) | News::Gone(object) => object.revision(),
            News::Reached { revision, .. } => *revision,
            _ => *revision,
        };
        self.recovered();
        self.tell(news).await?;
        Ok(None)
    }

    async fn tell(&self, news: News) -> Result<(), Unheard> {
        let revision = match &news {
            News::Listed { revision, .. } | News::Reached { revision, .. } => Some(*revision),
            News::Present(object) | News::Gone(object) => Some(object.revision()),
            News::Absent { .. } | News::Unlistable { .. } => None,
        };
        self.sender.send(news).await.map_err(|_| Unheard)?;
        if let Some(revision) = revision {
            self.reached.send_replace(revision);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Says that something fails, the first time in a row.
    fn trouble(&self, verb: &str, failure: &Failure) {
        match failure {
            Failure::Lost(why) => self.link.lost(self.kind, why),
            // A list that follows tells what was missed.
            Failure::Refused(_) if failure.is_expired() => {}
            Failure::Refused(error) if self.backoff.failures() == 0 => self.link.say(format!(
                "cannot {verb} {}: {}; trying again",
                self.kind.group_resource(),
                error.message
            )),
            Failure::Refused(_) => {}
        }
    }

    /// Says that something the server told cannot be read; a new list comes round it.
    fn set_aside(&self, why: &str) {
        self.link.say(format!("{why}; listing {} again", self.kind.group_resource()));
    }

    fn recovered(&mut self) {
        self.link.answers(self.kind);
        self.backoff.reset();
    }
}
