//! The headers of SPDY/3.1 streams: names and values, deflated over the whole connection with a
//! dictionary that both sides know (section 2.6.10 of the SPDY/3.1 draft).

use std::sync::OnceLock;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress};

use super::Broken;

/// The most that the headers of one stream may come to.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// The Adler-32 of the dictionary, which a deflated stream names it by.
const DICTIONARY_ID: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];

/// The names and values of the dictionary that come each with its length before it.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// Codes without words: 203, 204 and others come with them in [`TAIL`].
const CODES: [u16; 31] = [
    100, 101, 201, 202, 205, 206, 300, 302, 303, 304, 305, 306, 307, 402, 405, 406, 407, 408, 409,
    410, 411, 412, 413, 414, 415, 416, 417, 502, 504, 505, 203,
];
/// What follows the codes.
const TAIL: &str = concat!(
    " Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request",
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented",
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 ",
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,",
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=",
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.",
);

/// The dictionary.
pub(super) fn dictionary() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut bytes = Vec::new();
        for word in WORDS {
            bytes.extend((word.len() as u32).to_be_bytes());
            bytes.extend(word.bytes());
        }
        bytes.extend(CODES.iter().flat_map(|code| code.to_string().into_bytes()));
        bytes.extend(TAIL.bytes());
        bytes
    })
}

/// Reads the headers of a connection's streams, in their order.
pub(super) struct HeaderReader {
    inflate: Box<DecompressorOxide>,
    /// The last 32 KiB of text, round and round.
    window: Vec<u8>,
    at: usize,
    began: bool,
}

impl Default for HeaderReader {
    fn default() -> Self {
        Self { inflate: Box::default(), window: vec![0; TINFL_LZ_DICT_SIZE], at: 0, began: false }
    }
}

impl HeaderReader {
    /// Reads one block.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, Broken> {
        let mut rest = block;
        if !self.began {
            rest = self.begin(block)?;
        }
        let text = self.inflate(rest)?;
        parse(&text).ok_or(Broken("the headers are cut short"))
    }

    /// The head of the deflated stream.
    fn begin<'b>(&mut self, block: &'b [u8]) -> Result<&'b [u8], Broken> {
        const NO_ZLIB: Broken = Broken("the headers are not deflated");
        let (head, rest) = block.split_first_chunk::<2>().ok_or(NO_ZLIB)?;
        if head[0] & 0x0f != 8 || u16::from_be_bytes(*head) % 31 != 0 {
            return Err(NO_ZLIB);
        }
        self.began = true;
        if head[1] & 0x20 == 0 {
            return Ok(rest);
        }
        let (id, rest) = rest.split_first_chunk::<4>().ok_or(NO_ZLIB)?;
        if *id != DICTIONARY_ID {
            return Err(Broken("the headers are deflated with another dictionary"));
        }
        let dictionary = dictionary();
        self.window[..dictionary.len()].copy_from_slice(dictionary);
        self.at = dictionary.len();
        Ok(rest)
    }

    fn inflate(&mut self, mut rest: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut text = Vec::new();
        loop {
            let (status, taken, given) = decompress(
                &mut self.inflate,
                rest,
                &mut self.window,
                self.at,
                TINFL_FLAG_HAS_MORE_INPUT,
            );
            text.extend_from_slice(&self.window[self.at..self.at + given]);
            if text.len() > HEADERS_BYTES_MAX {
                return Err(Broken("the headers are too long"));
            }
            self.at = (self.at + given) % self.window.len();
            rest = &rest[taken..];
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput | TINFLStatus::Done if rest.is_empty() => {
                    return Ok(text);
                }
                _ => return Err(Broken("the headers are not deflated")),
            }
        }
    }
}

/// Names and values. Several values of one name are one here, with zeros between.
fn parse(text: &[u8]) -> Option<Vec<(String, String)>> {
    fn number(text: &[u8]) -> Option<(usize, &[u8])> {
        let (number, rest) = text.split_first_chunk::<4>()?;
        Some((usize::try_from(u32::from_be_bytes(*number)).ok()?, rest))
    }
    fn string(text: &[u8]) -> Option<(String, &[u8])> {
        let (length, rest) = number(text)?;
        let (string, rest) = rest.split_at_checked(length)?;
        Some((String::from_utf8_lossy(string).into_owned(), rest))
    }
    let (count, mut rest) = number(text)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let (name, value);
        (name, rest) = string(rest)?;
        (value, rest) = string(rest)?;
        headers.push((name, value));
    }
    Some(headers)
}

/// Writes headers: as the format allows, without making them smaller.
#[derive(Debug, Default)]
pub(super) struct HeaderWriter {
    began: bool,
}

impl HeaderWriter {
    /// A block with these headers.
    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut text = (headers.len() as u32).to_be_bytes().to_vec();
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            text.extend((part.len() as u32).to_be_bytes());
            text.extend(part.bytes());
        }
        let mut block = Vec::new();
        if !std::mem::replace(&mut self.began, true) {
            block.extend([0x78, 0x01]);
        }
        // Stored blocks, none of which is the last: the stream goes on.
        for part in text.chunks(usize::from(u16::MAX)) {
            let length = part.len() as u16;
            block.push(0);
            block.extend(length.to_le_bytes());
            block.extend((!length).to_le_bytes());
            block.extend_from_slice(part);
        }
        // An empty one at the end, as zlib's flush leaves it: Go's reader hands out what it has at that,
        // and otherwise reads on into the end of the frame, which it takes for the end of the stream.
        block.extend([0, 0, 0, 0xff, 0xff]);
        block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(dictionary().len(), 1_423);
        assert_eq!(((b << 16) | a).to_be_bytes(), DICTIONARY_ID);
    }

    /// Deflated by zlib with the dictionary: two streams of one connection.
    #[test]
    fn headers_that_zlib_deflated() {
        let first = [
            0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xa6, 0x23, 0x46, 0x70, 0x3a, 0x2b, 0x29,
            0x4a, 0x4d, 0xcc, 0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x06, 0x00, 0x00, 0x00,
            0xff, 0xff,
        ];
        let second = [0xc2, 0x2e, 0x55, 0x5c, 0x02, 0xcc, 0x2e, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff];
        let mut reader = HeaderReader::default();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(reader.read(&first), Ok(vec![header("streamtype", "error")]));
        assert_eq!(reader.read(&second), Ok(vec![header("streamtype", "stdin")]));
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(
            streams in proptest::collection::vec(
                proptest::collection::vec(("[a-z-]{1,12}", "\\PC{0,40}"), 0..5), 1..5),
        ) {
            let (mut writer, mut reader) = (HeaderWriter::default(), HeaderReader::default());
            for headers in streams {
                let lent: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                prop_assert_eq!(reader.read(&writer.write(&lent)), Ok(headers));
            }
        }

        #[test]
        fn no_bytes_panic(blocks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..60), 1..4)) {
            let mut reader = HeaderReader::default();
            for mut block in blocks {
                if block.len() > 6 {
                    block[..6].copy_from_slice(&[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2]);
                }
                if reader.read(&block).is_err() {
                    break;
                }
            }
        }
    }
}
