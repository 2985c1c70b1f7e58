//! Memory of ours that binaries of Erlang's refer to, so that what is large is not copied.

use bytes::Bytes;
use megaphone_proto::buffer::Buffer;
use rustler::{Binary, Env, Resource, ResourceArc};

/// A frame that waits to be written, and perhaps to be written again.
struct Frame(Bytes);

#[rustler::resource_impl]
impl Resource for Frame {}

/// A binary that refers to a frame.
pub fn binary(env: Env<'_>, frame: Bytes) -> Binary<'_> {
    ResourceArc::new(Frame(frame)).make_binary(env, |frame| &frame.0)
}

/// What a reader has taken.
struct Content(Buffer);

#[rustler::resource_impl]
impl Resource for Content {}

/// A binary of all that is in a buffer.
pub fn content(env: Env<'_>, buffer: Buffer) -> Binary<'_> {
    ResourceArc::new(Content(buffer)).make_binary(env, |content| content.0.as_slice())
}
