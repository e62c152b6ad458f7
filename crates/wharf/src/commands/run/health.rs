//! What a kubelet asks of a pod that runs `wharf run`: `/healthz` and `/livez` answer while the
//! program works, `/readyz` once it acts or stands by for another copy. Plain HTTP, since kubelets
//! bring no certificates to a probe. `/metrics` has what Prometheus asks for: the scheduler's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use wharf_controllers::metrics::MEDIA_TYPE;
use wharf_controllers::scheduler::SchedulerMetrics;

use crate::failure::Failure;

/// The longest head of a request that is read: a probe's is a few lines.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long a client may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Clients at once; more wait in the listener's queue.
const CLIENTS_MAX: usize = 16;

/// Whether the program is ready; shared with the answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on the program is ready.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers probes at `address` from now on, for as long as the program runs.
pub(super) async fn serve(
    address: SocketAddr,
    ready: Readiness,
    metrics: Arc<SchedulerMetrics>,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::bad_input(format!(
            "cannot listen at {address}: {error}; choose another address with --health-listen"
        ))
    })?;
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Nearly always a lack of file descriptors: it passes.
                tokio::time::sleep(TIMEOUT / 100).await;
                continue;
            };
            let (ready, metrics) = (ready.clone(), Arc::clone(&metrics));
            tokio::spawn(async move {
                // What goes wrong here concerns the client alone.
                let _ = tokio::time::timeout(TIMEOUT, answer(stream, &ready, &metrics)).await;
                drop(slot);
            });
        }
    });
    Ok(())
}

async fn answer(
    mut stream: TcpStream,
    ready: &Readiness,
    metrics: &SchedulerMetrics,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match stream.read(&mut piece).await? {
            0 => break,
            length => head.extend_from_slice(&piece[..length]),
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let (status, mut body) = reply(&line, ready.0.load(Ordering::Relaxed), || metrics.to_text());
    body.push('\n');
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// The status and body for a request line.
fn reply(line: &str, is_ready: bool, metrics: impl FnOnce() -> String) -> (&'static str, String) {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, text) = match (method, path) {
        ("GET", "/metrics") => return ("200 OK", metrics().trim_end().to_owned()),
        ("GET", "/healthz" | "/livez") => ("200 OK", "ok"),
        ("GET", "/readyz") if is_ready => ("200 OK", "ok"),
        ("GET", "/readyz") => ("503 Service Unavailable", "the cluster has not been read yet"),
        ("GET", _) => ("404 Not Found", "there are /healthz, /livez, /metrics and /readyz"),
        _ => ("405 Method Not Allowed", "only GET"),
    };
    (status, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_answered() {
        let reply = |line: &str, is_ready| reply(line, is_ready, || "m 1\n".to_owned());
        assert_eq!(reply("GET /healthz HTTP/1.1", false).1, "ok");
        assert_eq!(reply("GET /metrics HTTP/1.1", false).1, "m 1");
        assert_eq!(reply("GET /readyz?verbose HTTP/1.1", true).0, "200 OK");
        assert_eq!(reply("GET /readyz HTTP/1.1", false).0, "503 Service Unavailable");
        assert_eq!(reply("GET /secret HTTP/1.1", true).0, "404 Not Found");
        assert_eq!(reply("POST /healthz HTTP/1.1", true).0, "405 Method Not Allowed");
        assert_eq!(reply("", true).0, "405 Method Not Allowed");
    }
}
