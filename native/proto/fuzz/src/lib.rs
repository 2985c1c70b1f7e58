//! What each fuzz target does with the bytes it gets, and what must hold: a panic is a find.
//!
//! The tests of megaphone-proto include this file too and give every target its corpus and some
//! thousand changes of it (`tests/fuzz_corpus.rs`), so that it holds in each `cargo test`.

mod control;
mod frames;
mod http_heads;
mod http_requests;
mod link_operations;
mod websocket;

pub use control::control;
pub use frames::frames;
pub use http_heads::http_heads;
pub use http_requests::http_requests;
pub use link_operations::link_operations;
pub use link_operations::world::choice::{Choices, mix};
pub use websocket::websocket;

/// Cuts `bytes` into pieces whose sizes `sizes` tells, again and again.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = sizes
            .next()
            .map_or(usize::MAX, |size| 1 + usize::from(*size));
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Takes the first `N` bytes, which say how; the rest says what.
fn split<const N: usize>(data: &[u8]) -> Option<(&[u8; N], &[u8])> {
    data.split_first_chunk()
}
