//! Frames that binaries of Erlang's refer to, so that large ones are written without being copied.

use bytes::Bytes;
use rustler::{Binary, Env, Resource, ResourceArc};

/// A frame that waits to be written, and perhaps to be written again.
struct Frame(Bytes);

#[rustler::resource_impl]
impl Resource for Frame {}

/// A binary that refers to a frame.
pub fn binary(env: Env<'_>, frame: Bytes) -> Binary<'_> {
    ResourceArc::new(Frame(frame)).make_binary(env, |frame| &frame.0)
}
