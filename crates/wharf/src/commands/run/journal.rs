//! Sends what the controllers say, and what their kubelets measure, to the lab whose API they use, a
//! little later and many at a time.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use wharf_ports::metrics::Board;
use wharf_remote::Server;

use crate::lab::shared_board::{self, News};
use crate::lab::shared_journal::{self, Entry};

/// Entries that wait to be sent; more are dropped.
const WAITING_MAX: usize = 10_000;
/// Entries sent at once.
const BATCH_MAX: usize = 500;
/// How long entries are gathered.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts sending what is said; ends when the sender that is returned is gone.
pub(super) fn share(server: &Server) -> mpsc::Sender<Entry> {
    start(server, shared_journal::NAME)
}

/// Starts sending what a board is told.
pub(super) fn share_board(server: &Server, board: &Board) {
    let sender = start::<News>(server, shared_board::NAME);
    board.tell(Box::new(move |told| {
        // What finds no room is told again when it changes.
        let _ = sender.try_send(told.into());
    }));
}

fn start<T: Serialize + Send + Sync + 'static>(server: &Server, name: &str) -> mpsc::Sender<T> {
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    let server = server.with_own_limit();
    let path = format!("/wharf/v1/{name}");
    tokio::spawn(async move {
        let mut batch: Vec<T> = Vec::new();
        while receiver.recv_many(&mut batch, BATCH_MAX).await > 0 {
            if let Ok(json) = serde_json::to_string(&batch) {
                // What is lost is on stderr all the same.
                let _ = server.post(&path, json).await;
            }
            batch.clear();
            tokio::time::sleep(PAUSE).await;
        }
    });
    sender
}
