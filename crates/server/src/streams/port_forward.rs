//! `port-forward`: many connections to the ports of a pod over one to the API. Pure state machines.
//!
//! Over SPDY (`portforward.k8s.io`), by itself or within WebSocket messages
//! (`SPDY/3.1+portforward.k8s.io`), a connection is a pair of streams of one `requestID`: errors and
//! data. Over WebSocket channels (`v4.channel.k8s.io`) each port of the query has one connection, with
//! two channels, each of which begins with the port's number.

use std::collections::BTreeMap;

use super::{Broken, spdy, websocket};
use crate::processes::PortConnection;

/// The protocol over SPDY.
pub(crate) const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// The same within WebSocket messages.
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol of WebSocket channels.
pub(crate) const CHANNEL_PROTOCOL: &str = "v4.channel.k8s.io";
/// Connections at once.
const CONNECTIONS_MAX: usize = 1_024;

/// Connects to a port.
pub(crate) type Connect = Box<dyn Fn(u16) -> Result<Box<dyn PortConnection>, String> + Send>;

/// What becomes of the connection to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It goes on.
    More,
    /// It is over.
    Over,
}

/// One transport of forwarded ports.
pub(crate) trait Forward: Send {
    /// What is sent before the client says anything.
    fn begin(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes the client's bytes; appends what it is sent.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Next, Broken>;
}

/// Over SPDY.
pub(crate) struct SpdyForward {
    connect: Connect,
    connection: spdy::Connection,
    /// The error stream and the port of each `requestID`.
    requests: BTreeMap<String, (u32, u16)>,
    /// The open connections by their data streams, with their error streams.
    open: BTreeMap<u32, (Box<dyn PortConnection>, u32)>,
}

impl SpdyForward {
    /// To a pod.
    pub(crate) fn new(connect: Connect) -> Self {
        Self {
            connect,
            connection: spdy::Connection::default(),
            requests: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    fn stream(&mut self, id: u32, headers: &[(String, String)], out: &mut Vec<u8>) {
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let request = header("requestid").to_owned();
        let is_full = self.open.len() + self.requests.len() >= CONNECTIONS_MAX;
        match (header("streamtype"), header("port").parse::<u16>()) {
            ("error", Ok(port @ 1..)) if !is_full => {
                self.requests.insert(request, (id, port));
                out.extend(self.connection.reply(id));
            }
            ("data", Ok(port @ 1..)) if self.requests.contains_key(&request) => {
                out.extend(self.connection.reply(id));
                let Some((error, _)) = self.requests.remove(&request) else { return };
                match (self.connect)(port) {
                    Ok(connection) => {
                        self.open.insert(id, (connection, error));
                    }
                    Err(why) => {
                        out.extend(spdy::data(error, why.as_bytes(), true));
                        out.extend(spdy::data(id, b"", true));
                    }
                }
            }
            _ => out.extend(spdy::reset(id, spdy::REFUSED_STREAM)),
        }
    }

    fn data(&mut self, id: u32, bytes: &[u8], fin: bool, out: &mut Vec<u8>) {
        let Some((connection, error)) = self.open.get_mut(&id) else { return };
        let mut answer = Vec::new();
        let closed = connection.take(bytes, &mut answer) || fin;
        if closed || !answer.is_empty() {
            out.extend(spdy::data(id, &answer, closed));
        }
        if closed {
            out.extend(spdy::data(*error, b"", true));
            self.open.remove(&id);
        }
    }
}

impl Forward for SpdyForward {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Next, Broken> {
        self.connection.push(bytes);
        while let Some(frame) = self.connection.next_frame()? {
            match frame {
                spdy::Frame::Stream { id, headers, .. } => self.stream(id, &headers, out),
                spdy::Frame::Data { id, bytes, fin } => self.data(id, &bytes, fin, out),
                spdy::Frame::Reset(id) => {
                    self.open.remove(&id);
                    self.requests.retain(|_, (error, _)| *error != id);
                }
                spdy::Frame::Ping(number) => out.extend(spdy::ping(number)),
                spdy::Frame::GoAway => return Ok(Next::Over),
            }
        }
        Ok(Next::More)
    }
}

/// SPDY within WebSocket messages.
pub(crate) struct TunneledForward {
    decoder: websocket::Decoder,
    inner: SpdyForward,
}

impl TunneledForward {
    /// To a pod.
    pub(crate) fn new(connect: Connect) -> Self {
        Self { decoder: websocket::Decoder::default(), inner: SpdyForward::new(connect) }
    }
}

impl Forward for TunneledForward {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Next, Broken> {
        self.decoder.push(bytes);
        while let Some(message) = self.decoder.next_message()? {
            let mut answer = Vec::new();
            let next = match message {
                websocket::Message::Data(bytes) => self.inner.take(&bytes, &mut answer)?,
                websocket::Message::Ping(payload) => {
                    out.extend(websocket::pong(&payload));
                    Next::More
                }
                websocket::Message::Pong => Next::More,
                websocket::Message::Close => Next::Over,
            };
            if !answer.is_empty() {
                out.extend(websocket::binary(&answer));
            }
            if next == Next::Over {
                out.extend(websocket::close(1000));
                return Ok(Next::Over);
            }
        }
        Ok(Next::More)
    }
}

/// Over WebSocket channels: of the port with index `i`, `2 i` is data and `2 i + 1` errors.
pub(crate) struct ChannelForward {
    decoder: websocket::Decoder,
    ports: Vec<u16>,
    open: Vec<Result<Box<dyn PortConnection>, String>>,
}

impl ChannelForward {
    /// To these ports of a pod.
    pub(crate) fn new(ports: Vec<u16>, connect: &Connect) -> Self {
        let open = ports.iter().map(|port| connect(*port)).collect();
        Self { decoder: websocket::Decoder::default(), ports, open }
    }
}

impl Forward for ChannelForward {
    fn begin(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (port, open)) in self.ports.iter().zip(&self.open).enumerate() {
            let [data, error] = [2 * index as u8, 2 * index as u8 + 1];
            let [low, high] = port.to_le_bytes();
            out.extend(websocket::binary(&[data, low, high]));
            out.extend(websocket::binary(&[error, low, high]));
            if let Err(why) = open {
                out.extend(websocket::binary(&[&[error][..], why.as_bytes()].concat()));
            }
        }
        out
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Next, Broken> {
        self.decoder.push(bytes);
        while let Some(message) = self.decoder.next_message()? {
            match message {
                websocket::Message::Data(message) => {
                    let Some((channel, bytes)) = message.split_first() else { continue };
                    let open = self.open.get_mut(usize::from(channel / 2));
                    if let Some(Ok(connection)) = open
                        && channel % 2 == 0
                    {
                        let mut answer = Vec::new();
                        connection.take(bytes, &mut answer);
                        out.extend(websocket::binary(&[&[*channel][..], &answer].concat()));
                    }
                }
                websocket::Message::Ping(payload) => out.extend(websocket::pong(&payload)),
                websocket::Message::Pong => {}
                websocket::Message::Close => {
                    out.extend(websocket::close(1000));
                    return Ok(Next::Over);
                }
            }
        }
        Ok(Next::More)
    }
}

/// For the fuzzers.
pub(super) fn fuzz(bytes: &[u8]) {
    let connect = || -> Connect { Box::new(|_| Err("nobody".to_owned())) };
    let forwards: [Box<dyn Forward>; 3] = [
        Box::new(SpdyForward::new(connect())),
        Box::new(TunneledForward::new(connect())),
        Box::new(ChannelForward::new(vec![80], &connect())),
    ];
    for mut forward in forwards {
        let mut out = forward.begin();
        for piece in bytes.chunks(9) {
            if forward.take(piece, &mut out).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::streams::spdy::tests::Client;
    use crate::streams::websocket::tests::masked;

    /// Answers with the same in capitals, and hangs up after a full stop.
    struct Loud;

    impl PortConnection for Loud {
        fn take(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> bool {
            answer.extend(bytes.to_ascii_uppercase());
            bytes.ends_with(b".")
        }
    }

    fn connect() -> Connect {
        Box::new(|port| match port {
            80 => Ok(Box::new(Loud)),
            _ => Err(format!("nobody at {port}")),
        })
    }

    fn pair(client: &mut Client, first: u32, port: &str) -> Vec<u8> {
        let request = first.to_string();
        let stream = |client: &mut Client, id, kind| {
            client.stream(id, &[("streamtype", kind), ("port", port), ("requestid", &request)])
        };
        [stream(client, first, "error"), stream(client, first + 2, "data")].concat()
    }

    #[test]
    fn connections_over_spdy() {
        let mut client = Client::default();
        let mut forward = SpdyForward::new(connect());
        let mut replies = spdy::Connection::default();
        let replies: Vec<Vec<u8>> = (0..4).map(|index| replies.reply(2 * index + 1)).collect();
        let mut out = Vec::new();
        forward.take(&pair(&mut client, 1, "80"), &mut out).expect("valid");
        assert_eq!(out, replies[..2].concat());
        out.clear();
        forward.take(&spdy::data(3, b"hello", false), &mut out).expect("valid");
        assert_eq!(out, spdy::data(3, b"HELLO", false));
        out.clear();
        forward.take(&spdy::data(3, b"bye.", false), &mut out).expect("valid");
        assert_eq!(out, [spdy::data(3, b"BYE.", true), spdy::data(1, b"", true)].concat());
        out.clear();
        forward.take(&pair(&mut client, 5, "81"), &mut out).expect("valid");
        let refused = [spdy::data(5, b"nobody at 81", true), spdy::data(7, b"", true)].concat();
        assert_eq!(out, [replies[2..].concat(), refused].concat());
        out.clear();
        let alone = client.stream(9, &[("streamtype", "data"), ("port", "80")]);
        forward.take(&alone, &mut out).expect("valid");
        assert_eq!(out, spdy::reset(9, spdy::REFUSED_STREAM));
    }

    #[test]
    fn spdy_within_websocket() {
        let mut client = Client::default();
        let mut forward = TunneledForward::new(connect());
        let mut out = Vec::new();
        forward.take(&masked(0x82, &pair(&mut client, 1, "80")), &mut out).expect("valid");
        out.clear();
        // A frame in two messages.
        let data = spdy::data(3, b"hello", false);
        let (one, other) = data.split_at(5);
        forward.take(&masked(0x82, one), &mut out).expect("valid");
        assert_eq!(out, b"");
        forward.take(&masked(0x82, other), &mut out).expect("valid");
        assert_eq!(out, websocket::binary(&spdy::data(3, b"HELLO", false)));
        assert_eq!(forward.take(&masked(0x88, b""), &mut out), Ok(Next::Over));
    }

    #[test]
    fn channels_over_websocket() {
        let mut forward = ChannelForward::new(vec![80, 81], &connect());
        let begin = [
            websocket::binary(&[0, 80, 0]),
            websocket::binary(&[1, 80, 0]),
            websocket::binary(&[2, 81, 0]),
            websocket::binary(&[3, 81, 0]),
            websocket::binary(b"\x03nobody at 81"),
        ];
        assert_eq!(forward.begin(), begin.concat());
        let mut out = Vec::new();
        forward.take(&masked(0x82, b"\0hello"), &mut out).expect("valid");
        assert_eq!(out, websocket::binary(b"\0HELLO"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            fuzz(&bytes);
        }
    }
}
