//! A small client for the lab's own endpoints: one request, one answer, over the kubeconfig's TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::failure::Failure;
use crate::kubeconfig::{self, Access};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for an answer: a clock step does its work before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The answer to a request.
pub(crate) struct Answer {
    /// HTTP status code.
    pub(crate) code: u16,
    /// The body.
    pub(crate) body: String,
}

/// Asks the lab that a kubeconfig leads to; `None` is the user's own kubeconfig.
pub(crate) fn ask(
    kubeconfig: Option<&Path>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, Failure> {
    let file: PathBuf = kubeconfig.map_or_else(kubeconfig::default_path, Path::to_owned);
    let access = kubeconfig::access(&file).map_err(Failure::bad_input)?;
    request(&access, method, path, body).map_err(|error| {
        Failure::failed(format!(
            "no lab answers at {} ({error}); start one with `wharf up`",
            access.server
        ))
    })
}

/// The same, with every answer but 2xx told as a failure in the server's own words.
pub(crate) fn ask_well(
    kubeconfig: Option<&Path>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String, Failure> {
    let answer = ask(kubeconfig, method, path, body)?;
    if (200..300).contains(&answer.code) {
        return Ok(answer.body);
    }
    let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let message = status["message"].as_str().map_or_else(
        || format!("the lab answered {}: {}", answer.code, answer.body),
        str::to_owned,
    );
    Err(if answer.code < 500 { Failure::bad_input(message) } else { Failure::failed(message) })
}

/// One request over a new connection.
pub(crate) fn request(
    access: &Access,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut stream, authority) = connect(access)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()?;
    let mut bytes = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes) {
        // A peer that closes without TLS's goodbye has still said what `Content-Length` covers.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        result => {
            result?;
        }
    }
    parse(&bytes).ok_or_else(|| "its answer is not HTTP".into())
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection, and the authority it leads to.
fn connect(access: &Access) -> Result<(Stream, String), Box<dyn std::error::Error + Send + Sync>> {
    let authority = access.server.strip_prefix("https://").unwrap_or(&access.server);
    let authority = authority.trim_end_matches('/');
    let address = authority.to_socket_addrs()?.next().ok_or("its address has no host")?;
    let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let connection = ClientConnection::new(Arc::new(tls(access)?), ServerName::from(address.ip()))?;
    Ok((StreamOwned::new(connection, socket), authority.to_owned()))
}

/// A connection that is kept for many requests, one after another.
pub(crate) struct Connection {
    stream: BufReader<Stream>,
    authority: String,
    /// The request as it is sent: one write, one TLS record.
    outgoing: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(access: &Access) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let (stream, authority) = connect(access)?;
        Ok(Self { stream: BufReader::new(stream), authority, outgoing: Vec::new() })
    }

    /// Sends a request and waits for the answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        self.outgoing.clear();
        write!(
            self.outgoing,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )?;
        let stream = self.stream.get_mut();
        stream.write_all(&self.outgoing)?;
        stream.flush()?;
        read_answer(&mut self.stream, ANSWER_BYTES_MAX)
    }
}

/// Reads one answer and nothing of the next. One that does not say how long it is ends with its
/// connection, if it says that this ends.
pub(crate) fn read_answer(
    stream: &mut impl BufRead,
    bytes_max: u64,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let code = line.starts_with("HTTP/").then(|| line.split(' ').nth(1)?.parse().ok()).flatten();
    let code = code.ok_or("its answer is not HTTP")?;
    let closes_by_default = line.starts_with("HTTP/1.0");
    let (mut length, mut chunked, mut closes) = (None, false, closes_by_default);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.trim().eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let too_long = || std::io::Error::other("its answer is too long");
    let mut body = Vec::new();
    let mut take = |stream: &mut dyn BufRead, length: u64| {
        if body.len() as u64 + length > bytes_max {
            return Err(too_long());
        }
        let end = body.len();
        body.resize(end + usize::try_from(length).unwrap_or(usize::MAX), 0);
        stream.read_exact(&mut body[end..])
    };
    if chunked {
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16)?;
            take(stream, size)?;
            // Each chunk ends with an empty rest of a line, and the last is followed by another.
            line.clear();
            stream.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        take(stream, length)?;
    } else if closes {
        stream.take(bytes_max + 1).read_to_end(&mut body)?;
        if body.len() as u64 > bytes_max {
            return Err(too_long().into());
        }
    }
    Ok(Answer { code, body: String::from_utf8(body)? })
}

/// An answer, if that is what it is.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = &bytes[end + 4..];
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    Some(Answer { code, body: String::from_utf8(body).ok()? })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

fn tls(access: &Access) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(access.authority.as_bytes())?)?;
    let certificates = CertificateDer::pem_slice_iter(access.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(access.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("HTTP");
        assert_eq!((plain.code, plain.body.as_str()), (200, "ok"));
        let chunked =
            parse(b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n1;x=y\r\n!\r\n0\r\n\r\n")
                .expect("HTTP");
        assert_eq!((chunked.code, chunked.body.as_str()), (404, "no!"));
        assert!(parse(b"rubbish").is_none());
        let mut kept = &b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n1;x=y\r\n!\r\n0\r\n\r\nHTTP"[..];
        let first = read_answer(&mut kept, 64).expect("HTTP");
        assert_eq!((first.code, first.body.as_str()), (201, "ok"));
        let second = read_answer(&mut kept, 64).expect("HTTP");
        assert_eq!((second.code, second.body.as_str()), (200, "no!"));
        assert!(read_answer(&mut kept, 64).is_err(), "cut short");
        for (bytes, expected) in [
            (&b"HTTP/1.0 200 OK\r\n\r\nall of it"[..], Some("all of it")),
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it", Some("all of it")),
            (b"HTTP/1.1 204 No Content\r\n\r\n", Some("")),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", None),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\no", None),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n", None),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"SSH-2.0 200", None),
        ] {
            let answer = read_answer(&mut &bytes[..], 64).ok().map(|answer| answer.body);
            assert_eq!(answer.as_deref(), expected, "{}", String::from_utf8_lossy(bytes));
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx").is_none());
    }
}
