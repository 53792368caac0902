//! Compresses responses on their way to the client.
//!
//! A body goes through an encoder piece by piece; when the instance has no more for the moment, what
//! the encoder holds back is flushed, so that a page that is written slowly arrives as it is written.
//! Memory is bounded twice: an encoder takes at most 630 KiB (gzip 405, zstd 620, brotli 625, as
//! measured with a body of 600 KB), and a worker has [`MOST`] of them; beyond that, and when memory is
//! short, bodies go as they are.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, Response};
use http_body::{Body, Frame};
use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::zstd_safe::CParameter;

use super::admission::Pressure;
use super::body::ResponseBody;
use super::error::BodyError;
use super::places::Place;
use super::turn::Turn;
use super::worker::Worker;
use crate::edge::coding::{Coding, Fit, fit, vary, weak};

/// Encoders at a time on one worker: at most 160 MiB of them.
pub const MOST: usize = if cfg!(test) { 48 } else { 256 };
/// Bytes of output that are gathered before they go on, unless the input pauses.
const GATHER: usize = 8 * 1024;
/// Bytes of input after which others have their turn: a millisecond of compressing.
const TURN: usize = 32 * 1024;
/// For what is made on the fly: nginx has gzip at 1, Caddy at 5 and zstd at 3. Brotli's 4 would take
/// twice the memory of its 3.
const GZIP_LEVEL: u32 = 5;
const ZSTD_LEVEL: i32 = 3;
const BROTLI_LEVEL: i32 = 3;
/// Logarithm of the windows: more would not bound the memory.
const WINDOW: u32 = 16;
/// Logarithm of zstd's tables.
const TABLE: u32 = 14;

/// Fields that are about the very bytes (RFC 9530, and its forerunners).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Compresses a response if it may be; `coding` is what its client prefers.
pub fn compress(
    worker: &Worker,
    method: &Method,
    coding: Option<Coding>,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let is_head = *method == Method::HEAD;
    let length = if is_head {
        let field = response.headers().get(CONTENT_LENGTH);
        field.and_then(|value| value.to_str().ok()?.parse().ok())
    } else {
        response.body().size_hint().exact()
    };
    let fit = fit(method, response.status(), response.headers(), length);
    if fit == Fit::Not {
        return response;
    }
    vary(response.headers_mut());
    let Some(coding) = coding.filter(|_| fit == Fit::Yes) else { return response };
    if worker.pressure() != Pressure::None {
        return response;
    }
    let Some(place) = worker.encoders.enter() else { return response };
    let Ok(encoder) = Encoder::new(coding) else { return response };
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for digest in &DIGESTS {
        headers.remove(digest);
    }
    if let Some(tag) = headers.get(ETAG).and_then(weak) {
        headers.insert(ETAG, tag);
    }
    if is_head {
        // What a GET would get, but for its length, which nobody knows.
        return response;
    }
    response.map(|body| {
        let encoder = Some(encoder);
        ResponseBody::Compressed(Box::new(Compressed {
            body,
            encoder,
            trailers: None,
            is_held_back: false,
            turn: Turn::of(TURN),
            _place: place,
        }))
    })
}

/// A body that is compressed as it comes.
pub struct Compressed {
    body: ResponseBody,
    /// `None` once all is said.
    encoder: Option<Encoder>,
    /// They come behind the last piece.
    trailers: Option<HeaderMap>,
    /// The encoder has bytes that it has not given out.
    is_held_back: bool,
    turn: Turn,
    _place: Place,
}

impl std::fmt::Debug for Compressed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressed").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Compressed {
    /// Whether all of it was given out.
    pub fn is_end(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    /// The next piece.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(|fields| Ok(Frame::trailers(fields))));
            };
            ready!(self.turn.poll(context));
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending if self.is_held_back => {
                    self.is_held_back = false;
                    self.turn.pass();
                    let flushed = encoder.flush();
                    let out = encoder.take();
                    if let Err(error) = flushed {
                        return Poll::Ready(Some(Err(self.fail(error))));
                    }
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out))));
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {
                    self.turn.pass();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        if let Err(error) = encoder.write(&bytes) {
                            return Poll::Ready(Some(Err(self.fail(error))));
                        }
                        self.turn.take(bytes.len());
                        self.is_held_back |= !bytes.is_empty();
                        if encoder.gathered() >= GATHER {
                            return Poll::Ready(Some(Ok(Frame::data(encoder.take()))));
                        }
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        return Poll::Ready(self.finish());
                    }
                },
                Poll::Ready(None) => return Poll::Ready(self.finish()),
            }
        }
    }

    fn finish(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let encoder = self.encoder.take()?;
        Some(encoder.finish().map(Frame::data).map_err(BodyError::Own))
    }

    fn fail(&mut self, error: io::Error) -> BodyError {
        self.encoder = None;
        BodyError::Own(error)
    }
}

/// An encoder that writes into memory.
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let out = Vec::new();
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(out, Compression::new(GZIP_LEVEL))),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(out, ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
                encoder.set_parameter(CParameter::HashLog(TABLE))?;
                encoder.set_parameter(CParameter::ChainLog(TABLE))?;
                Self::Zstd(encoder)
            }
            Coding::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: BROTLI_LEVEL,
                    lgwin: WINDOW as i32,
                    lgblock: 16,
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(out, 4096, &parameters);
                Self::Brotli(Box::new(writer))
            }
        })
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
        }
    }

    fn gathered(&mut self) -> usize {
        self.out().len()
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.out()).into()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What a client makes of it.
    pub fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(bytes).expect("a decoder").read_to_end(&mut out)
            }
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        }
        .expect("a sound body");
        out
    }

    #[test]
    fn what_is_flushed_can_be_read_already() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            encoder.write(b"first words, ").expect("memory");
            encoder.flush().expect("memory");
            let first = encoder.take();
            assert!(!first.is_empty());
            let mut part = vec![0; 13];
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&first[..]).read_exact(&mut part),
                Coding::Zstd => zstd::stream::read::Decoder::new(&first[..])
                    .expect("a decoder")
                    .read_exact(&mut part),
                Coding::Brotli => brotli::Decompressor::new(&first[..], 4096).read_exact(&mut part),
            }
            .unwrap_or_else(|error| panic!("{coding}: {error}"));
            assert_eq!(part, b"first words, ");
            encoder.write(b"and the rest").expect("memory");
            let all = [&first[..], &encoder.finish().expect("memory")].concat();
            assert_eq!(decoded(coding, &all), b"first words, and the rest", "{coding}");
        }
    }

    #[test]
    fn large_bodies_come_back_whole() {
        let text: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| (n.wrapping_mul(n) % 1_000).to_string().into_bytes())
            .collect();
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            let mut out = Vec::new();
            for piece in text.chunks(10_007) {
                encoder.write(piece).expect("memory");
                out.extend_from_slice(&encoder.take());
            }
            out.extend_from_slice(&encoder.finish().expect("memory"));
            assert!(out.len() < text.len() / 2, "{coding}: {} of {}", out.len(), text.len());
            assert!(decoded(coding, &out) == text, "{coding}");
        }
    }
}
