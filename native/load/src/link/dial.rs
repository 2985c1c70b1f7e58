//! Brings a link up: connects and shakes hands.

use std::fs;
use std::io::{self, Read, Write};

use megaphone_proto::auth::Secret;
use megaphone_proto::handshake::{Handshake, Step};
use megaphone_proto::{Link, LinkConfig, Role};

use super::Args;
use super::stream::{Blocking, Stream};

/// Bytes read at a time until the link is up.
const READ_SIZE: usize = 4096;

/// A link that is up.
pub struct Up {
    /// What carries it.
    pub stream: Stream,
    /// Its receiving half.
    pub protocol: Link,
    /// What came behind the handshake.
    pub unread: Vec<u8>,
}

/// Connects and shakes hands. Blocks, up to the patience for each answer.
pub fn dial(args: &Args) -> Result<Up, String> {
    let mut config = LinkConfig::new(Role::Edge, "megaphone-load", nonce());
    config.window = args.window;
    config.resume_timeout = args.resume_timeout;
    config.secret = secret(args)?;
    let mut stream = Blocking::connect(&args.address, args.patience)?;
    let mut handshake = Handshake::new(config);
    let text = |error: io::Error| format!("{}: {error}", args.address);
    if let Some(hello) = handshake.hello() {
        stream.write_all(&hello.to_frame()).map_err(text)?;
    }
    let (mut buffer, mut unread) = ([0; READ_SIZE], 0..0);
    loop {
        let mut rest = &buffer[unread.clone()];
        let step = handshake.next(&mut rest);
        unread.start = unread.end - rest.len();
        match step.map_err(|error| format!("{}: the handshake failed: {error}", args.address))? {
            Some(Step::Up { .. }) => break,
            // Only a node is told of a hello.
            Some(Step::Hello) => {}
            None => match stream.read(&mut buffer).map_err(text)? {
                0 => return Err(format!("{}: closed in the handshake", args.address)),
                bytes => unread = 0..bytes,
            },
        }
    }
    if let Some(auth) = handshake.auth() {
        stream.write_all(&auth.to_frame()).map_err(text)?;
    }
    Ok(Up {
        stream: stream.into_stream().map_err(text)?,
        protocol: handshake.finish(),
        unread: buffer[unread].to_vec(),
    })
}

fn secret(args: &Args) -> Result<Option<Secret>, String> {
    let Some(file) = &args.secret_file else {
        return Ok(None);
    };
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let content = fs::read(file).map_err(|error| named(&error))?;
    Secret::new(&content)
        .map(Some)
        .map_err(|error| named(&error))
}

/// 128 bits in hex. They need not be secret here: nobody is let in by them.
fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}
