//! Calls of a link that is not one yet: who dials, and may they?

use std::sync::Mutex;

use megaphone_proto::auth::Secret;
use megaphone_proto::control::Hello;
use megaphone_proto::handshake::{Handshake as Machine, Identity, Step};
use megaphone_proto::{Link, LinkConfig, LinkError, Role};
use rustler::{Binary, Encoder, Env, NifMap, NifResult, OwnedBinary, Resource, ResourceArc, Term};

use crate::atoms;
use crate::sync::lock;

/// The handshake of one dial. Used up by the link that comes of it.
pub struct Handshake(Mutex<Option<Machine>>);

#[rustler::resource_impl]
impl Resource for Handshake {}

/// As the calls take it.
pub type HandshakeArg = ResourceArc<Handshake>;

impl Handshake {
    /// The link's own stream; `None` the second time.
    pub fn finish(&self) -> Option<Link> {
        lock(&self.0).take().map(Machine::finish)
    }
}

#[derive(NifMap)]
struct HandshakeOptions<'a> {
    node: String,
    nonce: String,
    window: u32,
    max_frame: u32,
    allow_v1: bool,
    resume_timeout: u32,
    secret: Option<Binary<'a>>,
}

#[rustler::nif]
fn handshake_new(options: HandshakeOptions) -> NifResult<HandshakeArg> {
    let secret = options.secret.map(|secret| Secret::new(secret.as_slice()));
    let secret = secret.transpose().map_err(|_| rustler::Error::BadArg)?;
    let config = LinkConfig {
        window: options.window,
        max_content: options.max_frame,
        allow_v1: options.allow_v1,
        resume_timeout: options.resume_timeout,
        secret,
        ..LinkConfig::new(Role::Node, options.node, options.nonce)
    };
    let machine = Mutex::new(Some(Machine::new(config)));
    Ok(ResourceArc::new(Handshake(machine)))
}

#[rustler::nif]
fn handshake<'a>(env: Env<'a>, dial: HandshakeArg, chunk: Binary) -> NifResult<Term<'a>> {
    let mut machine = lock(&dial.0);
    let machine = machine.as_mut().ok_or(rustler::Error::BadArg)?;
    let mut input = chunk.as_slice();
    let step = machine.next(&mut input);
    let offset = chunk.len() - input.len();
    Ok(match step {
        Ok(None) => atoms::more().encode(env),
        Ok(Some(Step::Hello)) => (atoms::hello(), machine.peer().map(greeting), offset).encode(env),
        Ok(Some(Step::Up { version })) => (atoms::up(), version, offset).encode(env),
        Err(error) => refusal(env, machine, &error),
    })
}

#[derive(NifMap)]
struct Greeting<'h> {
    name: &'h str,
    resume: Option<(&'h str, &'h str, u64)>,
}

fn greeting(hello: &Hello) -> Greeting<'_> {
    let (link, token) = (hello.resume.as_deref(), hello.token.as_deref());
    let link = link.zip(token).zip(hello.received);
    Greeting {
        name: &hello.name,
        resume: link.map(|((link, token), received)| (link, token, received)),
    }
}

fn refusal<'a>(env: Env<'a>, machine: &Machine, error: &LinkError) -> Term<'a> {
    let last_words = match machine.hears_errors() {
        true => error.to_control().to_frame(),
        false => Vec::new(),
    };
    let code = error.code().as_str();
    let text = error.to_string();
    (atoms::error(), code, text, binary(env, &last_words)).encode(env)
}

/// The hello that answers the peer's: `resumed` is how many of its bytes an earlier link has.
#[rustler::nif]
fn handshake_answer<'a>(
    env: Env<'a>,
    handshake: HandshakeArg,
    link: String,
    token: String,
    resumed: Option<u64>,
) -> NifResult<Term<'a>> {
    let mut machine = lock(&handshake.0);
    let machine = machine.as_mut().ok_or(rustler::Error::BadArg)?;
    let hello = machine.answer(Identity {
        link,
        token,
        resumed,
    });
    Ok(binary(env, &hello.to_frame()))
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = OwnedBinary::new(bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.release(env).encode(env)
}
