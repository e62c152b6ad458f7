//! `exec` and `attach`: how stdin, stdout, stderr, the terminal's size and the end of a process share
//! one connection. Pure state machines, one for each transport.
//!
//! Over WebSocket (`v4.channel.k8s.io`, `v5.channel.k8s.io`) the first byte of a message is its channel;
//! version 5 can also say that a channel is closed, which is the only way to end stdin. Over SPDY each
//! channel is a stream. The last thing sent is the end, as a `Status`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Broken, spdy, websocket};
use crate::processes::Input;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Says which channel is closed.
const CLOSED: u8 = 255;

/// The subprotocols over WebSocket, the best first.
pub(crate) const WEBSOCKET_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// The protocols over SPDY.
pub(crate) const SPDY_PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

/// What a client wants of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// To send input.
    pub(crate) stdin: bool,
    /// Its output.
    pub(crate) stdout: bool,
    /// Its errors, apart from the output.
    pub(crate) stderr: bool,
    /// A terminal.
    pub(crate) tty: bool,
}

/// What the client's bytes come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something for the process.
    Input(Input),
    /// Something for the client.
    Reply(Vec<u8>),
    /// The client ends the connection.
    Gone,
}

/// Where output belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One transport of a process' streams.
pub(crate) trait Wire: Send {
    /// Takes the client's bytes.
    fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Broken>;

    /// Whether the client has made all its streams.
    fn is_ready(&self) -> bool;

    /// How long to wait for what the client does not tell.
    fn settle(&self) -> Duration {
        Duration::ZERO
    }

    /// Output as bytes for the client.
    fn output(&mut self, channel: Channel, bytes: &[u8]) -> Vec<u8>;

    /// The end of the process and of the connection.
    fn finish(&mut self, status: &Value) -> Vec<u8>;
}

/// The end of a process as a `Status`.
pub(crate) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// A process that did not begin, as a `Status`.
pub(crate) fn internal_error(message: &str) -> Value {
    let message = format!("Internal error occurred: {message}");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": {"causes": [{"message": message.trim_start_matches("Internal error occurred: ")}]},
        "code": 500,
    })
}

/// Over WebSocket.
#[derive(Debug, Default)]
pub(crate) struct WebSocketWire {
    decoder: websocket::Decoder,
}

/// kubectl reads before it has made its channels, and up to 1.32 drops what comes for them meanwhile.
const WEBSOCKET_SETTLES: Duration = Duration::from_millis(100);

impl Wire for WebSocketWire {
    fn settle(&self) -> Duration {
        WEBSOCKET_SETTLES
    }

    fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Broken> {
        self.decoder.push(bytes);
        while let Some(message) = self.decoder.next_message()? {
            match message {
                websocket::Message::Ping(payload) => {
                    events.push(Event::Reply(websocket::pong(&payload)));
                }
                websocket::Message::Pong => {}
                websocket::Message::Close => {
                    events.push(Event::Gone);
                    return Ok(());
                }
                websocket::Message::Data(message) => match message.split_first() {
                    // An empty one on stdin keeps the connection alive.
                    Some((&STDIN, [])) => {}
                    Some((&STDIN, bytes)) => {
                        events.push(Event::Input(Input::Data(bytes.to_vec().into())));
                    }
                    Some((&RESIZE, size)) => events.extend(resize(size)),
                    Some((&CLOSED, [STDIN])) => events.push(Event::Input(Input::End)),
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> Vec<u8> {
        let number = match channel {
            Channel::Stdout => STDOUT,
            Channel::Stderr => STDERR,
        };
        websocket::binary(&[&[number][..], bytes].concat())
    }

    fn finish(&mut self, status: &Value) -> Vec<u8> {
        let status = status.to_string();
        let message = websocket::binary(&[&[ERROR][..], status.as_bytes()].concat());
        [message, websocket::close(1000)].concat()
    }
}

/// Over SPDY: the numbers of the streams, once the client has made them.
pub(crate) struct SpdyWire {
    wanted: Wanted,
    connection: spdy::Connection,
    error: Option<u32>,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
    /// What has come of the terminal's sizes, which are JSON objects one after the other.
    sizes: Vec<u8>,
}

/// The terminal's size that is not yet whole may be this long.
const SIZE_BYTES_MAX: usize = 1_024;

impl SpdyWire {
    /// For a process of which so much is wanted.
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            connection: spdy::Connection::default(),
            error: None,
            stdin: None,
            stdout: None,
            stderr: None,
            resize: None,
            sizes: Vec::new(),
        }
    }

    fn frame(&mut self, frame: spdy::Frame, events: &mut Vec<Event>) -> Result<(), Broken> {
        match frame {
            spdy::Frame::Stream { id, headers, fin } => {
                let kind = headers.iter().find(|(name, _)| name == "streamtype");
                let place = match kind.map(|(_, value)| value.as_str()) {
                    Some("error") => &mut self.error,
                    Some("stdin") => &mut self.stdin,
                    Some("stdout") => &mut self.stdout,
                    Some("stderr") => &mut self.stderr,
                    Some("resize") => &mut self.resize,
                    _ => {
                        events.push(Event::Reply(spdy::reset(id, spdy::REFUSED_STREAM)));
                        return Ok(());
                    }
                };
                *place = Some(id);
                events.push(Event::Reply(self.connection.reply(id)));
                if fin && self.stdin == Some(id) {
                    events.push(Event::Input(Input::End));
                }
            }
            spdy::Frame::Data { id, bytes, fin } if self.stdin == Some(id) => {
                if !bytes.is_empty() {
                    events.push(Event::Input(Input::Data(bytes.into())));
                }
                if fin {
                    events.push(Event::Input(Input::End));
                }
            }
            spdy::Frame::Data { id, bytes, .. } if self.resize == Some(id) => {
                self.sizes.extend(bytes);
                while let Some(end) = self.sizes.iter().position(|byte| *byte == b'}') {
                    let size: Vec<u8> = self.sizes.drain(..=end).collect();
                    events.extend(resize(&size));
                }
                if self.sizes.len() > SIZE_BYTES_MAX {
                    return Err(Broken("the terminal's size is too long"));
                }
            }
            spdy::Frame::Ping(number) => events.push(Event::Reply(spdy::ping(number))),
            spdy::Frame::GoAway => events.push(Event::Gone),
            spdy::Frame::Reset(id) if self.stdin == Some(id) => {
                events.push(Event::Input(Input::End));
            }
            spdy::Frame::Data { .. } | spdy::Frame::Reset(_) => {}
        }
        Ok(())
    }
}

impl Wire for SpdyWire {
    fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Broken> {
        self.connection.push(bytes);
        while let Some(frame) = self.connection.next_frame()? {
            self.frame(frame, events)?;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let Wanted { stdin, stdout, stderr, tty } = self.wanted;
        self.error.is_some()
            && (!stdin || self.stdin.is_some())
            && (!stdout || self.stdout.is_some())
            && (!stderr || self.stderr.is_some())
            && (!tty || self.resize.is_some())
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> Vec<u8> {
        let stream = match channel {
            Channel::Stdout => self.stdout,
            Channel::Stderr => self.stderr,
        };
        stream.map(|id| spdy::data(id, bytes, false)).unwrap_or_default()
    }

    fn finish(&mut self, status: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        // The output first: who reads the end of the process stops reading that.
        for id in [self.stdout, self.stderr].into_iter().flatten() {
            out.extend(spdy::data(id, b"", true));
        }
        if let Some(id) = self.error {
            out.extend(spdy::data(id, status.to_string().as_bytes(), true));
        }
        out
    }
}

/// `{"Width":80,"Height":24}`.
fn resize(text: &[u8]) -> Option<Event> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let size: Size = serde_json::from_slice(text).ok()?;
    Some(Event::Input(Input::Resize { columns: size.width, rows: size.height }))
}

/// For the fuzzers.
pub(super) fn fuzz(bytes: &[u8]) {
    let all = Wanted { stdin: true, stdout: true, stderr: true, tty: true };
    let wires: [Box<dyn Wire>; 2] =
        [Box::new(WebSocketWire::default()), Box::new(SpdyWire::new(all))];
    for mut wire in wires {
        let mut events = Vec::new();
        for piece in bytes.chunks(7) {
            if wire.take(piece, &mut events).is_err() {
                break;
            }
        }
        wire.output(Channel::Stdout, bytes);
        wire.finish(&exit_status(1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::streams::spdy::tests::Client;
    use crate::streams::websocket::tests::masked;

    fn input(text: &str) -> Event {
        Event::Input(Input::Data(text.as_bytes().to_vec().into()))
    }

    #[test]
    fn channels_over_websocket() {
        let mut wire = WebSocketWire::default();
        let sent = [
            masked(0x82, b"\0ls\n"),
            masked(0x82, b"\0"),
            masked(0x82, b"\x04{\"Width\":80,\"Height\":24}"),
            masked(0x82, b"\x04rubbish"),
            masked(0x82, b"\xff\0"),
            masked(0x89, b"?"),
            masked(0x88, b""),
        ];
        let mut events = Vec::new();
        wire.take(&sent.concat(), &mut events).expect("valid");
        let expected = [
            input("ls\n"),
            Event::Input(Input::Resize { columns: 80, rows: 24 }),
            Event::Input(Input::End),
            Event::Reply(websocket::pong(b"?")),
            Event::Gone,
        ];
        assert_eq!(events, expected);
        assert_eq!(wire.output(Channel::Stderr, b"no"), websocket::binary(b"\x02no"));
        let end = wire.finish(&exit_status(0));
        let text = "\x03{\"metadata\":{},\"status\":\"Success\"}";
        assert_eq!(end, [websocket::binary(text.as_bytes()), websocket::close(1000)].concat());
    }

    #[test]
    fn streams_over_spdy() {
        let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
        let mut wire = SpdyWire::new(wanted);
        let mut client = Client::default();
        let mut events = Vec::new();
        for (index, kind) in ["error", "stdin", "stdout", "resize", "other"].iter().enumerate() {
            assert_eq!(wire.is_ready(), index > 3, "{kind}");
            let id = 2 * index as u32 + 1;
            wire.take(&client.stream(id, &[("streamtype", kind)]), &mut events).expect("valid");
        }
        assert!(events.iter().all(|event| matches!(event, Event::Reply(_))), "{events:?}");
        events.clear();
        let sent = [
            spdy::data(3, b"date\n", false),
            spdy::data(7, b"{\"Width\":1,\"Hei", false),
            spdy::data(7, b"ght\":2}\n{\"Width\":3,\"Height\":4}\n", false),
            spdy::ping(1),
            spdy::data(3, b"", true),
        ];
        wire.take(&sent.concat(), &mut events).expect("valid");
        let expected = [
            input("date\n"),
            Event::Input(Input::Resize { columns: 1, rows: 2 }),
            Event::Input(Input::Resize { columns: 3, rows: 4 }),
            Event::Reply(spdy::ping(1)),
            Event::Input(Input::End),
        ];
        assert_eq!(events, expected);
        assert_eq!(wire.output(Channel::Stdout, b"x"), spdy::data(5, b"x", false));
        assert_eq!(wire.output(Channel::Stderr, b"x"), b"");
        let status = exit_status(0);
        let end = [spdy::data(5, b"", true), spdy::data(1, status.to_string().as_bytes(), true)];
        assert_eq!(wire.finish(&status), end.concat());
    }

    #[test]
    fn ends_in_upstreams_form() {
        assert_eq!(
            exit_status(3),
            json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": "command terminated with non-zero exit code: exit status 3",
                "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}
            })
        );
        assert_eq!(internal_error("no")["message"], "Internal error occurred: no");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            fuzz(&bytes);
        }
    }
}
