//! Connections: TLS, HTTP/1.1 and HTTP/2, limits and an orderly stop. Knows nothing of the API.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::api::Api;
use crate::auth::User;

/// Open connections at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// Requests at once on one HTTP/2 connection. Upstream's 250 is not enough for a client that keeps
/// a watch for each of a thousand objects.
const STREAMS_MAX: u32 = 1_000;
/// How long a client may take for the TLS handshake and for the head of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a kept-alive HTTP/1.1 connection may be silent before the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// How often an HTTP/2 peer is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long open requests may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` turns true (or its sender is gone), then lets open requests end.
///
/// # Errors
/// If the listener cannot be read at all.
pub async fn serve(
    api: Arc<Api>,
    tls: Arc<rustls::ServerConfig>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = stopped(&mut stop) => break,
        };
        let Ok(slot) = slot else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
        };
        tokio::spawn(connection(stream, acceptor.clone(), Arc::clone(&api), stop.clone(), slot));
    }
    drop(listener);
    // All slots are free when all connections are closed.
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(STOP_TIMEOUT, slots.acquire_many(all)).await;
    Ok(())
}

/// Returns when the server is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say stop; its owner is gone, so that is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
    api: Arc<Api>,
    mut stop: watch::Receiver<bool>,
    slot: OwnedSemaphorePermit,
) {
    // Answers are small and complete; waiting to fill a packet only adds delay.
    let _ = stream.set_nodelay(true);
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            stream
                .write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
                .await?;
            return Err(io::Error::other("plain HTTP"));
        }
        acceptor.accept(stream).await
    };
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await else { return };
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let user = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|certificate| User::of_certificate(certificate));

    let service = service_fn(move |request: Request<Incoming>| {
        let api = Arc::clone(&api);
        let user = user.clone();
        async move { Ok::<_, Infallible>(api.handle(request, user.as_ref()).await) }
    });
    let io = TokioIo::new(stream);
    // What goes wrong on a connection concerns its client alone, who sees it.
    if http2 {
        let mut connection = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .keep_alive_interval(PING_INTERVAL)
                .serve_connection(io, service)
        );
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    } else {
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_TIMEOUT)
                .pipeline_flush(true)
                .serve_connection(io, service)
                .with_upgrades()
        );
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
    drop(slot);
}
