//! Connections over TLS: who is let in, and how the server stops.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wharf_model::time::Time;
use wharf_server::{Pki, serve};

use crate::harness::Cluster;

/// The certificates are checked against the real clock.
#[expect(clippy::disallowed_methods, reason = "TLS looks at the wall clock")]
fn pki() -> Pki {
    Pki::load_or_create(None, "127.0.0.1", Time::from(jiff::Timestamp::now())).expect("made")
}

/// A running server.
struct Server {
    cluster: Cluster,
    pki: Pki,
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let cluster = Cluster::new();
        let pki = pki();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = cluster.stop.subscribe();
        let task = tokio::spawn(serve(cluster.api.clone(), pki.tls.clone(), listener, stop));
        Self { cluster, pki, address, task }
    }

    /// Sends a request with the certificate of `client`, trusting this server's authority.
    async fn open(
        &self,
        path: &str,
        client: Option<&Pki>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.pki.ca_pem.as_bytes()).expect("PEM");
        roots.add(ca).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(client) => {
                let chain = CertificateDer::from_pem_slice(client.client_cert_pem.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(client.client_key_pem.as_bytes());
                config
                    .with_client_auth_cert(vec![chain.expect("PEM")], key.expect("PEM"))
                    .expect("a pair")
            }
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("kubernetes.default.svc").expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }

    /// The whole answer to a request.
    async fn get(&self, path: &str, client: Option<&Pki>) -> std::io::Result<String> {
        let mut stream = self.open(path, client).await?;
        let mut answer = Vec::new();
        // A server that refuses a certificate ends the connection without a farewell.
        let read = stream.read_to_end(&mut answer).await;
        if answer.is_empty() {
            read?;
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[tokio::test]
async fn only_our_own_certificates_are_let_in() {
    let server = Server::start().await;
    let answer = server.get("/api/v1/namespaces", Some(&server.pki)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#""kind":"NamespaceList""#), "{answer}");
    let answer = server.get("/api/v1/namespaces", None).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    let stranger = pki();
    let refused = server.get("/api/v1/namespaces", Some(&stranger)).await;
    assert!(refused.as_ref().map_or(true, |answer| !answer.contains("200 OK")), "{refused:?}");
}

#[tokio::test]
async fn plain_http_is_told_that_tls_is_spoken_here() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.contains("Client sent an HTTP request to an HTTPS server."), "{answer}");
}

#[tokio::test]
async fn a_stop_ends_watches_and_then_the_server() {
    let server = Server::start().await;
    let path = "/api/v1/pods?watch=true&resourceVersion=1";
    let mut watch = server.open(path, Some(&server.pki)).await.expect("connected");
    let mut head = [0; 15];
    watch.read_exact(&mut head).await.expect("the watch has begun");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    server.cluster.stop.send_replace(true);
    let mut rest = Vec::new();
    watch.read_to_end(&mut rest).await.expect("an orderly end");
    assert!(rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    let ended = tokio::time::timeout(Duration::from_secs(4), server.task).await;
    ended.expect("stops in time").expect("no panic").expect("no error");
}
