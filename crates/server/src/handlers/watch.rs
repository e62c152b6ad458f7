//! Watches: a stream of events from a revision on, as the client's selector sees it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::Response;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use wharf_model::object::{Object, Revision};
use wharf_ports::clock::Clock;
use wharf_ports::cluster::Change;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_store::{Visibility, Watch};

use super::list::Filter;
use super::{Call, Target, render};
use crate::api::Api;
use crate::body::Body;
use crate::negotiate::Form;
use crate::query::ListOptions;
use crate::serve::stopped;
use crate::status;
use crate::table::{self, IncludeObject};

/// How often a watch without changes tells how far it has come; upstream's interval.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// When a watch ends if the client does not say; upstream picks 30 to 60 minutes.
const TIMEOUT_SECONDS_DEFAULT: u64 = 2_700;
/// A watch that is asked for a longer time ends after this: a year, far from where sums of times
/// overflow.
const TIMEOUT_SECONDS_MAX: u64 = 365 * 86_400;
/// How much is collected before it is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait for a slow client. Further changes stay in the store's history, so that a
/// client that is too slow is told to list again rather than costing memory.
const PIECES_MAX: usize = 4;
/// Deletions whose last form is remembered for other watchers of the same change.
const DELETED_FORMS_MAX: usize = 64;

/// Answers `watch`.
pub(super) async fn watch(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    // A watch by its path is one even if the query does not say so.
    let options = ListOptions::parse(&call.query.clone().with("watch", "true"))?;
    let filter = Filter::new(call, target, &options)?;
    let include = render::include(call)?;
    let from = options.resource_version.filter(|version| *version > 0);
    let initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => from.is_none(),
    };
    let encoder = Encoder {
        target,
        form: call.accepted.form,
        include,
        clock: Arc::clone(&api.parts.clock),
        headers_sent: false,
    };
    let (sender, receiver) = mpsc::channel(PIECES_MAX);

    let mut first = Vec::new();
    let revision = if initial {
        if let Some(version) = from {
            crate::paging::reached(version, api.store.revision())?;
        }
        let (objects, revision) = api.store.list(target.kind, filter.namespace.as_deref());
        api.durable(revision).await?;
        first = objects;
        first.retain(|object| filter.selects(object));
        revision
    } else {
        from.unwrap_or_else(|| api.store.revision())
    };
    let seconds =
        options.timeout_seconds.unwrap_or(TIMEOUT_SECONDS_DEFAULT).min(TIMEOUT_SECONDS_MAX);
    let stream = Stream {
        api: Arc::clone(api),
        filter,
        encoder,
        sender,
        piece: BytesMut::new(),
        bookmarks: options.bookmarks,
        deadline: Instant::now() + Duration::from_secs(seconds),
        after: revision,
    };
    let end_mark = initial && options.send_initial_events == Some(true);
    let source = api.store.watch(Some(target.kind), revision, Visibility::Durable);
    match source {
        Ok(source) => {
            tokio::spawn(stream.run(source, first, end_mark));
        }
        Err(expired) => {
            tokio::spawn(stream.end_with(too_old(&expired)));
        }
    }
    let mut response = Response::new(Body::Stream(receiver));
    render::head(&mut response, "application/json");
    Ok(response)
}

fn too_old(expired: &wharf_store::Expired) -> ApiError {
    ApiError::new(StatusReason::Expired, expired.to_string())
}

/// One watch, as a task that owns its cursor.
struct Stream {
    api: Arc<Api>,
    filter: Filter,
    encoder: Encoder,
    sender: mpsc::Sender<Bytes>,
    piece: BytesMut,
    bookmarks: bool,
    deadline: Instant,
    /// Changes up to this revision are known to the client.
    after: Revision,
}

/// The client is gone, or the watch is over.
struct Over;

impl Stream {
    /// Sends the objects there are, then changes until the client leaves, time is up or the server
    /// stops.
    async fn run(mut self, mut source: Watch, first: Vec<Arc<Object>>, end_mark: bool) {
        for object in first {
            self.encoder.event(&mut self.piece, "ADDED", &object, None);
            if self.piece.len() >= PIECE_BYTES && self.flush().await.is_err() {
                return;
            }
        }
        if end_mark && self.bookmarks {
            self.encoder.bookmark(&mut self.piece, self.after, true);
        }
        if self.flush().await.is_err() {
            return;
        }
        let mut stop = self.api.parts.stop.clone();
        let mut ticks = tokio::time::interval(BOOKMARK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut changes = Vec::new();
        loop {
            if let Err(expired) = source.drain(&mut changes) {
                return self.end_with(too_old(&expired)).await;
            }
            for change in changes.drain(..) {
                self.change(&change);
                if self.piece.len() >= PIECE_BYTES && self.flush().await.is_err() {
                    return;
                }
            }
            self.after = self.after.max(source.cursor());
            if self.flush().await.is_err() {
                return;
            }
            tokio::select! {
                changed = source.changed() => if let Err(error) = changed {
                    let error = ApiError::new(StatusReason::InternalError, error.to_string());
                    return self.end_with(error).await;
                },
                _ = ticks.tick(), if self.bookmarks => {
                    self.encoder.bookmark(&mut self.piece, self.after, false);
                }
                () = tokio::time::sleep_until(self.deadline) => return,
                () = self.sender.closed() => return,
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Turns a change into the event that the selector's view of it calls for.
    fn change(&mut self, change: &Change) {
        if change.revision <= self.after {
            return;
        }
        if let Some(namespace) = &self.filter.namespace
            && change.key().namespace != namespace.as_str()
        {
            return;
        }
        let selected = |object: &Option<Arc<Object>>| {
            object.as_ref().filter(|object| self.filter.selects(object)).cloned()
        };
        match (selected(&change.old), selected(&change.new)) {
            (None, Some(new)) => self.encoder.event(&mut self.piece, "ADDED", &new, None),
            (Some(_), Some(new)) => self.encoder.event(&mut self.piece, "MODIFIED", &new, None),
            (Some(old), None) => {
                let last = self.api.deleted_forms.of(change.revision, &old);
                self.encoder.event(&mut self.piece, "DELETED", &last, Some(change.revision));
            }
            (None, None) => {}
        }
    }

    async fn flush(&mut self) -> Result<(), Over> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        tokio::select! {
            sent = self.sender.send(piece) => sent.map_err(|_| Over),
            // A client that does not read must not hold its watch beyond its time.
            () = tokio::time::sleep_until(self.deadline) => Err(Over),
        }
    }

    /// Ends the watch with an error event.
    async fn end_with(mut self, error: ApiError) {
        self.piece.put_slice(b"{\"type\":\"ERROR\",\"object\":");
        self.piece.put_slice(&status::encode(&error, ""));
        self.piece.put_slice(b"}\n");
        // Whoever is gone need not be told.
        let _ = self.flush().await;
    }
}

/// Writes events in the form the client asked for.
struct Encoder {
    target: Target,
    form: Form,
    include: IncludeObject,
    /// For the ages in tables.
    clock: Arc<dyn Clock>,
    /// Upstream sends a table's columns with the first event only.
    headers_sent: bool,
}

impl Encoder {
    fn event(
        &mut self,
        piece: &mut BytesMut,
        word: &str,
        object: &Arc<Object>,
        deleted_at: Option<Revision>,
    ) {
        let bytes = match self.form {
            Form::Plain => render::object_bytes(self.target, object),
            Form::Metadata => match render::metadata_only(object, true) {
                Ok(value) => render::to_bytes(&value),
                // An object that does not decode is passed over.
                Err(_) => return,
            },
            Form::Table => {
                let objects = std::slice::from_ref(object);
                let now = self.clock.now();
                let mut table = table::render(self.target.kind, objects, now, self.include);
                let revision = deleted_at.unwrap_or(object.revision());
                table["metadata"] = json!({"resourceVersion": revision.to_string()});
                if std::mem::replace(&mut self.headers_sent, true) {
                    table["columnDefinitions"] = json!(null);
                }
                render::to_bytes(&table)
            }
        };
        frame(piece, word, &bytes);
    }

    fn bookmark(&self, piece: &mut BytesMut, revision: Revision, end_of_initial: bool) {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = self.target.resource;
        let object = match self.form {
            Form::Plain => json!({
                "kind": resource.kind,
                "apiVersion": resource.api_version(),
                "metadata": meta,
            }),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
            }),
            Form::Table => json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": meta,
                }}],
            }),
        };
        frame(piece, "BOOKMARK", &render::to_bytes(&object));
    }
}

fn frame(piece: &mut BytesMut, word: &str, object: &[u8]) {
    piece.reserve(object.len() + word.len() + 24);
    piece.put_slice(b"{\"type\":\"");
    piece.put_slice(word.as_bytes());
    piece.put_slice(b"\",\"object\":");
    piece.put_slice(object);
    piece.put_slice(b"}\n");
}

/// The last forms of recently deleted objects under the revision of their deletion, made once for
/// all watchers.
#[derive(Default)]
pub(crate) struct DeletedForms(Mutex<VecDeque<(Revision, Arc<Object>)>>);

impl DeletedForms {
    /// The form in which the change at `revision` shows an object that it took away: as it was,
    /// under the revision of the change.
    fn of(&self, revision: Revision, old: &Arc<Object>) -> Arc<Object> {
        // A plain lock: it is held for a scan of a few entries, never across a wait.
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, form)) =
            forms.iter().find(|(at, form)| *at == revision && form.uid() == old.uid())
        {
            return Arc::clone(form);
        }
        let form = match old.typed_any() {
            Ok(typed) => Arc::new(Object::from_typed(typed.clone_box(), revision)),
            Err(_) => Arc::clone(old),
        };
        if forms.len() == DELETED_FORMS_MAX {
            forms.pop_front();
        }
        forms.push_back((revision, Arc::clone(&form)));
        form
    }
}
