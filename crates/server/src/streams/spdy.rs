//! SPDY/3.1 frames, the server's side: what kubectl's streams are made of. Pure: bytes in, frames out.
//!
//! Windows are not kept: neither kubectl nor the kubelet ever did. Settings and priorities are
//! skipped.

use super::Broken;
use super::spdy_headers::{HeaderReader, HeaderWriter};

/// The longest frame that is taken; kubectl sends pieces of 32 KiB.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// The flag of a frame after which its side of the stream is done.
const FIN: u8 = 1;
/// Why a stream is reset: it is not wanted.
pub(crate) const REFUSED_STREAM: u32 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

/// What a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A new stream.
    Stream {
        /// Its number.
        id: u32,
        /// Its headers, names in small letters.
        headers: Vec<(String, String)>,
        /// Whether nothing more comes on it.
        fin: bool,
    },
    /// Bytes of a stream.
    Data {
        /// The stream's number.
        id: u32,
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether nothing more comes on it.
        fin: bool,
    },
    /// A stream is given up.
    Reset(u32),
    /// Asks for a sign of life of the same number.
    Ping(u32),
    /// The client ends the connection.
    GoAway,
}

/// Takes frames apart, and makes them.
#[derive(Default)]
pub(crate) struct Connection {
    buffer: Vec<u8>,
    reader: HeaderReader,
    writer: HeaderWriter,
}

impl Connection {
    /// Takes bytes as they come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that says something, if all of it is there.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        loop {
            let Some((head, rest)) = self.buffer.split_first_chunk::<8>() else { return Ok(None) };
            let head = *head;
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(Broken("the frame is too long"));
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let body = body.to_vec();
            self.buffer.drain(..8 + length);
            if let Some(frame) = self.read(&head, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn read(&mut self, head: &[u8; 8], body: Vec<u8>) -> Result<Option<Frame>, Broken> {
        const SHORT: Broken = Broken("the frame is cut short");
        let fin = head[4] & FIN != 0;
        let number = |at: usize| {
            let bytes = body.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
            bytes.map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff).ok_or(SHORT)
        };
        if head[0] & 0x80 == 0 {
            let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            return Ok(Some(Frame::Data { id, bytes: body, fin }));
        }
        if u16::from_be_bytes([head[0] & 0x7f, head[1]]) != 3 {
            return Err(Broken("the frame is not of SPDY/3"));
        }
        Ok(match u16::from_be_bytes([head[2], head[3]]) {
            SYN_STREAM => {
                let id = number(0)?;
                let headers = self.reader.read(body.get(10..).ok_or(SHORT)?)?;
                let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
                Some(Frame::Stream { id, headers: headers.into_iter().map(lower).collect(), fin })
            }
            RST_STREAM => Some(Frame::Reset(number(0)?)),
            PING => {
                let bytes = body.first_chunk::<4>().ok_or(SHORT)?;
                Some(Frame::Ping(u32::from_be_bytes(*bytes)))
            }
            GO_AWAY => Some(Frame::GoAway),
            _ => None,
        })
    }

    /// Accepts a client's stream.
    pub(crate) fn reply(&mut self, id: u32) -> Vec<u8> {
        let headers = self.writer.write(&[]);
        control(SYN_REPLY, 0, &[&id.to_be_bytes()[..], &headers].concat())
    }
}

/// Bytes on a stream; with `fin` the last ones.
pub(crate) fn data(id: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
    /// Longer texts are sent as several frames.
    const PIECE: usize = 32 * 1024;
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(PIECE));
        rest = after;
        let flags = u32::from(if fin && rest.is_empty() { FIN } else { 0 });
        out.extend(id.to_be_bytes());
        out.extend((flags << 24 | piece.len() as u32).to_be_bytes());
        out.extend_from_slice(piece);
        if rest.is_empty() {
            return out;
        }
    }
}

/// Gives a stream up.
pub(crate) fn reset(id: u32, why: u32) -> Vec<u8> {
    control(RST_STREAM, 0, &[id.to_be_bytes(), why.to_be_bytes()].concat())
}

/// The answer to a ping.
pub(crate) fn ping(number: u32) -> Vec<u8> {
    control(PING, 0, &number.to_be_bytes())
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = 0x8003_u16.to_be_bytes().to_vec();
    out.extend(kind.to_be_bytes());
    out.extend((u32::from(flags) << 24 | body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client, for tests: makes streams as kubectl does.
    #[derive(Default)]
    pub(crate) struct Client(HeaderWriter);

    impl Client {
        pub(crate) fn stream(&mut self, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
            let block = self.0.write(headers);
            control(SYN_STREAM, 0, &[&id.to_be_bytes()[..], &[0; 6], &block].concat())
        }
    }

    fn all(pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<Frame>, Broken> {
        let mut connection = Connection::default();
        let mut frames = Vec::new();
        for piece in pieces {
            connection.push(&piece);
            while let Some(frame) = connection.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_arrive_in_pieces_of_any_length() {
        let mut client = Client::default();
        let sent = [
            client.stream(1, &[("Streamtype", "error")]),
            control(4, 0, &[0; 4]),
            client.stream(3, &[("streamtype", "stdin")]),
            data(3, b"hello", true),
            ping(7),
            reset(3, REFUSED_STREAM),
            control(GO_AWAY, 0, &[0; 8]),
        ]
        .concat();
        let stream = |id, kind: &str| Frame::Stream {
            id,
            headers: vec![("streamtype".to_owned(), kind.to_owned())],
            fin: false,
        };
        let expected = vec![
            stream(1, "error"),
            stream(3, "stdin"),
            Frame::Data { id: 3, bytes: b"hello".to_vec(), fin: true },
            Frame::Ping(7),
            Frame::Reset(3),
            Frame::GoAway,
        ];
        for length in 1..40 {
            assert_eq!(all(sent.chunks(length).map(<[u8]>::to_vec)), Ok(expected.clone()));
        }
    }

    #[test]
    fn long_data_goes_in_several_frames_and_ends_once() {
        let bytes = vec![7; 100_000];
        let frames = all([data(5, &bytes, true)]).expect("valid");
        let ends: Vec<bool> =
            frames.iter().map(|frame| matches!(frame, Frame::Data { fin: true, .. })).collect();
        assert_eq!(ends, [false, false, false, true]);
        assert_eq!(data(5, b"", true).len(), 8);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        for (sent, why) in [
            (vec![0x80, 2, 0, 1, 0, 0, 0, 0], "the frame is not of SPDY/3"),
            (vec![0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0], "the frame is cut short"),
            (vec![0x80, 3, 0, 6, 0, 0, 0, 0], "the frame is cut short"),
            (vec![0, 0, 0, 1, 0, 0xff, 0, 0], "the frame is too long"),
        ] {
            assert_eq!(all([sent]), Err(Broken(why)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = all([bytes.clone()]);
            let mut body = vec![0; 10];
            body.extend(bytes);
            let _ = all([control(SYN_STREAM, 0, &body)]);
        }
    }
}
