//! Sends what the controllers say to the lab whose API they use, a little later and many at a time.

use std::time::Duration;

use tokio::sync::mpsc;
use wharf_remote::Server;

use crate::lab::shared_journal::{self, Entry};

/// Entries that wait to be sent; more are dropped.
const WAITING_MAX: usize = 10_000;
/// Entries sent at once.
const BATCH_MAX: usize = 500;
/// How long entries are gathered.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts sending; ends when the sender that is returned is gone.
pub(super) fn share(server: &Server) -> mpsc::Sender<Entry> {
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    let server = server.with_own_limit();
    tokio::spawn(async move {
        let path = format!("/wharf/v1/{}", shared_journal::NAME);
        let mut batch = Vec::new();
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
