//! Response bodies: whole, made lazily piece by piece (lists), or streamed (watches, logs).

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

/// The body of a response.
pub enum Body {
    /// All bytes are there.
    Full(Bytes),
    /// Made on demand while the connection takes it, so that a long list is never held as one text.
    Lazy(Box<dyn Pieces>),
    /// Comes from a task that writes as things happen.
    Stream(mpsc::Receiver<Bytes>),
}

/// A source of the pieces of a body.
pub trait Pieces: Send {
    /// The next piece, `None` at the end.
    fn next_piece(&mut self) -> Option<Bytes>;
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// The same body compressed with gzip. Streams are left alone: their pieces must not wait.
    #[must_use]
    pub fn gzip(self) -> Self {
        match self {
            Self::Full(bytes) => {
                let mut encoder = GzEncoder::new(Vec::new(), GZIP_LEVEL);
                // Writing into a vector cannot fail; were it to, the plain bytes are still right.
                match encoder.write_all(&bytes).and_then(|()| encoder.finish()) {
                    Ok(packed) => Self::Full(packed.into()),
                    Err(_) => Self::Full(bytes),
                }
            }
            Self::Lazy(source) => Self::Lazy(Box::new(Gzip {
                source,
                encoder: Some(GzEncoder::new(Vec::new(), GZIP_LEVEL)),
            })),
            Self::Stream(receiver) => Self::Stream(receiver),
        }
    }

    /// All bytes of a body that ends by itself; for tests and for the in-process client.
    pub async fn collect(mut self) -> Bytes {
        let mut all = Vec::new();
        match &mut self {
            Self::Full(bytes) => return std::mem::take(bytes),
            Self::Lazy(source) => {
                while let Some(piece) = source.next_piece() {
                    all.extend_from_slice(&piece);
                }
            }
            Self::Stream(receiver) => {
                while let Some(piece) = receiver.recv().await {
                    all.extend_from_slice(&piece);
                }
            }
        }
        all.into()
    }
}

/// Upstream's choice: speed before size.
const GZIP_LEVEL: Compression = Compression::new(1);

struct Gzip {
    source: Box<dyn Pieces>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces for Gzip {
    fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.source.next_piece() {
                Some(piece) => {
                    if encoder.write_all(&piece).is_err() {
                        self.encoder = None;
                        return None;
                    }
                    let packed = std::mem::take(encoder.get_mut());
                    if !packed.is_empty() {
                        return Some(packed.into());
                    }
                }
                None => return self.encoder.take()?.finish().ok().map(Bytes::from),
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => None,
            Self::Full(bytes) => Some(std::mem::take(bytes)),
            Self::Lazy(source) => source.next_piece(),
            Self::Stream(receiver) => match receiver.poll_recv(context) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Lazy(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    struct Counted(u32);
    impl Pieces for Counted {
        fn next_piece(&mut self) -> Option<Bytes> {
            self.0 = self.0.checked_sub(1)?;
            Some(Bytes::from("some text that repeats, ".repeat(40)))
        }
    }

    #[tokio::test]
    async fn a_compressed_body_unpacks_to_the_same_text() {
        let plain = Body::Lazy(Box::new(Counted(50))).collect().await;
        for body in [Body::Lazy(Box::new(Counted(50))), Body::Full(plain.clone())] {
            let packed = body.gzip().collect().await;
            assert!(packed.len() < plain.len() / 10);
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).expect("valid gzip");
            assert_eq!(text, plain);
        }
    }
}
