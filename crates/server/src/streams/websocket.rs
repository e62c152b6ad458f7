//! WebSocket frames (RFC 6455), the server's side. Pure: bytes in, messages out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

use super::Broken;

/// The longest message that is taken; kubectl sends pieces of 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// What RFC 6455 has appended to a client's key.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A message, text or binary.
    Data(Vec<u8>),
    /// It asks for a sign of life, to be given with the same bytes.
    Ping(Vec<u8>),
    /// A sign of life.
    Pong,
    /// It closes the connection.
    Close,
}

/// Puts a client's frames together.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// The fragments so far of a message under way.
    partial: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes bytes as they come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    pub(crate) fn next_message(&mut self) -> Result<Option<Message>, Broken> {
        loop {
            let Some((first, payload)) = self.next_frame()? else { return Ok(None) };
            let is_last = first & 0x80 != 0;
            match first & 0x0f {
                PING => return Ok(Some(Message::Ping(payload))),
                PONG => return Ok(Some(Message::Pong)),
                CLOSE => return Ok(Some(Message::Close)),
                TEXT | BINARY if self.partial.is_some() => {
                    return Err(Broken("a message begins within another"));
                }
                TEXT | BINARY if is_last => return Ok(Some(Message::Data(payload))),
                TEXT | BINARY => self.partial = Some(payload),
                CONTINUATION => {
                    let Some(mut message) = self.partial.take() else {
                        return Err(Broken("a message continues that never began"));
                    };
                    message.extend(payload);
                    if message.len() > MESSAGE_BYTES_MAX {
                        return Err(Broken("the message is too long"));
                    }
                    if is_last {
                        return Ok(Some(Message::Data(message)));
                    }
                    self.partial = Some(message);
                }
                _ => return Err(Broken("unknown frame")),
            }
        }
    }

    /// The first byte and the payload of the next frame.
    fn next_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, Broken> {
        let [first, second, rest @ ..] = self.buffer.as_slice() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Broken("extensions were not agreed upon"));
        }
        if second & 0x80 == 0 {
            return Err(Broken("the client's frame is not masked"));
        }
        let is_control = first & 0x08 != 0;
        if is_control && (second & 0x7f > 125 || first & 0x80 == 0) {
            return Err(Broken("a control frame is short and whole"));
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
        let Some(length) = length else { return Err(Broken("the message is too long")) };
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let (first, payload) = (*first, payload.collect());
        let used = self.buffer.len() - rest.len() + length;
        self.buffer.drain(..used);
        Ok(Some((first, payload)))
    }
}

/// A binary message.
pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(BINARY, payload)
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    frame(PONG, payload)
}

/// The end of the connection, with a code: 1000 is the ordinary one.
pub(crate) fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes())
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// The answer to a client's `Sec-WebSocket-Key`.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{}{KEY_SUFFIX}", key.trim());
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it.
    pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = frame(0, payload);
        out[0] = first;
        out[1] |= 0x80;
        let mask = [7, 1, 9, 200];
        let head = out.len() - payload.len();
        out.truncate(head);
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn all(pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<Message>, Broken> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(&piece);
            while let Some(message) = decoder.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn the_key_of_the_standards_example() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn fragments_are_put_together_and_control_frames_come_between() {
        let sent = [
            masked(0x02, b"one "),
            masked(0x89, b"ping"),
            masked(0x80, b"message"),
            masked(0x8a, b""),
            masked(0x88, &[3, 232]),
        ];
        let expected = [
            Message::Ping(b"ping".to_vec()),
            Message::Data(b"one message".to_vec()),
            Message::Pong,
            Message::Close,
        ];
        assert_eq!(all(sent), Ok(expected.to_vec()));
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let long = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        for (sent, why) in [
            (frame(BINARY, b"x"), "the client's frame is not masked"),
            (masked(0xc2, b"x"), "extensions were not agreed upon"),
            (masked(0x80, b"x"), "a message continues that never began"),
            (masked(0x83, b"x"), "unknown frame"),
            (masked(0x09, b"x"), "a control frame is short and whole"),
            (long, "the message is too long"),
            ([masked(0x02, b"x"), masked(0x82, b"y")].concat(), "a message begins within another"),
        ] {
            assert_eq!(all([sent]), Err(Broken(why)));
        }
    }

    proptest! {
        #[test]
        fn messages_arrive_whatever_the_pieces(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            piece in 1_usize..50,
        ) {
            let sent: Vec<u8> = messages.iter().flat_map(|message| masked(0x82, message)).collect();
            let expected: Vec<Message> = messages.into_iter().map(Message::Data).collect();
            prop_assert_eq!(all(sent.chunks(piece).map(<[u8]>::to_vec)), Ok(expected));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all([bytes]);
        }
    }
}
